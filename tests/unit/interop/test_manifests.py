"""Segment manifests, and which slots a segment owns: slow references, the authors' rounding, and every refusal."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release import assembly_row, egoprocel_row, fact_times, write_csv

from keystep.errors import InputError
from keystep.interop.official.manifests import (
    ManifestTake,
    Segment,
    archive_path,
    half_decimal,
    read_manifests,
    unique_names,
)
from keystep.interop.official.slicing import (
    Boundaries,
    first_slots,
    on_bounds,
    own_slots,
    segment_slots,
    take_slots,
    whole_labels,
)


def test_an_egoprocel_manifest_gives_takes_by_video_and_classes_by_name(tmp_path: Path) -> None:
    train = write_csv(
        tmp_path / "train.csv",
        [
            egoprocel_row("P01.pt", 4, 9, 3, "Crack egg (OPEN it)"),
            egoprocel_row("P01.pt", 0, 4, 0),
            egoprocel_row("P02.pt", 0, 2, 1, "stir"),
        ],
    )
    test = write_csv(tmp_path / "test.csv", [egoprocel_row("P03.pt", 0, 2, 5, "stir", split="test")])
    manifest = read_manifests([train, test])
    assert manifest.kind == "egoprocel"
    assert [(s.start, s.end, s.label) for s in manifest.takes[ManifestTake("", "P01.pt")]] == [(0, 4, 0), (4, 9, 3)]
    assert manifest.splits == {
        ManifestTake("", "P01.pt"): "train",
        ManifestTake("", "P02.pt"): "train",
        ManifestTake("", "P03.pt"): "test",
    }
    assert manifest.classes == ("background", "stir 1", "class 2", "Crack egg (OPEN it)", "class 4", "stir 5")
    assert len(manifest.hashes) == 2 and not manifest.notes


def test_an_assembly101_manifest_gives_takes_by_action_type_and_view(tmp_path: Path) -> None:
    rows = [
        assembly_row("r1", "v4", 1.5, 2.5, 2),
        assembly_row("r1", "v4", 0.0, 1.5, 0),
        assembly_row("r1", "v4", 9.0, 9.5, 2, kind="disassembly"),
        assembly_row("r2", "v4", 0.0, 0.5, 2, split="validation"),
    ]
    manifest = read_manifests([write_csv(tmp_path / "m.csv", rows)])
    assert manifest.kind == "assembly101" and manifest.classes == ("action 0", "class 1", "action 2")
    assert {take: len(segments) for take, segments in manifest.takes.items()} == {
        ManifestTake("assembly", "r1/v4.pt"): 2,
        ManifestTake("disassembly", "r1/v4.pt"): 1,
        ManifestTake("assembly", "r2/v4.pt"): 1,
    }
    assert [segment.start for segment in manifest.takes[ManifestTake("assembly", "r1/v4.pt")]] == [0.0, 1.5]
    assert manifest.splits[ManifestTake("assembly", "r2/v4.pt")] == "valid"


def test_only_video_endings_become_archive_endings() -> None:
    names = ("a/b.mp4", "a/b.AVI", "a/b.pt", "a.mp4/b.c", "b")
    assert [archive_path(name) for name in names] == ["a/b.pt", "a/b.pt", "a/b.pt", "a.mp4/b.c", "b"]


def test_class_names_fit_on_a_line_and_no_two_are_alike() -> None:
    assert unique_names(["a", "b  c\n", "", "(unlabelled)"]) == ("a", "b c", "class 2", "(unlabelled) 3")
    assert unique_names(["Open\x1b[31m Door", "open\x1b[31m door"]) == ("Open\ufffd[31m Door", "open\ufffd[31m door")
    assert unique_names(["a", "a", "a 1", "b"]) == ("a 0", "a 1 1", "a 1 2", "b")
    names = unique_names(["x 3", "x", "y", "x", "x 1 1", "x 1", "x 3 0"])
    assert len(set(names)) == 7


def spoiled(**changes: object) -> dict:
    return {**egoprocel_row("P01.pt", 0, 4, 1), **changes}


BAD_ROWS = {
    "start that is none": ({"start_sec": "soon"}, "start_sec 'soon' is not a number of seconds"),
    "start nan": ({"start_sec": "nan"}, "start_sec 'nan' is not a number"),
    "end infinite": ({"end_sec": "1e999"}, "end_sec '1e999' is not a number"),
    "end before start": ({"end_sec": "-1.0"}, "the segment ends at -1 s, before it starts at 0 s"),
    "negative id": ({"fact_step_id": "-2"}, "fact_step_id '-2' is not a class id"),
    "id that is none": ({"fact_step_id": "1.5"}, "fact_step_id '1.5' is not a class id"),
    "huge id": ({"fact_step_id": "99999999999"}, "fact_step_id '99999999999' is not a class id"),
    "id of 5,000 digits": ({"fact_step_id": "9" * 5000}, r"fact_step_id '9+\.\.\. is not a class id"),
    "a start for a terminal": ({"start_sec": "\x1b[31m"}, r"start_sec '\\x1b\[31m' is not a number"),
    "no video": ({"video_path": " "}, "no video_path"),
    "unknown split": ({"official_split": "dev"}, "unknown official_split 'dev'; expected one of train, val"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_an_unusable_row_is_named_with_file_and_line(tmp_path: Path, kind: str) -> None:
    changes, message = BAD_ROWS[kind]
    path = write_csv(tmp_path / "m.csv", [spoiled(), spoiled(**changes)])
    with pytest.raises(InputError, match=rf"m\.csv, line 3: {message}") as refusal:
        read_manifests([path])
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_manifests_are_named(tmp_path: Path) -> None:
    rows = [egoprocel_row("P01.pt", 0, 4, 1)]
    good, path = write_csv(tmp_path / "good.csv", rows), tmp_path / "m.csv"
    for column in ("video_path", "official_split", "start_sec", "end_sec", "fact_step_id", "fact_step_name"):
        write_csv(path, [{key: value for key, value in rows[0].items() if key != column}])
        with pytest.raises(InputError, match=rf"m\.csv: no column '{column}'"):
            read_manifests([path])
    for content, message in (
        (b"", "no column 'video_path'"),
        (good.read_bytes().split(b"\n")[0], "no segments"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
        (good.read_bytes() + b"P02.pt,x", "line 3: no "),
        (good.read_bytes() + b'"' + b"x" * 200_000, "not a CSV file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"m\.csv.*{message}"):
            read_manifests([path])
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        read_manifests([tmp_path / "absent.csv"])
    with pytest.raises(InputError, match="cannot be read"):
        read_manifests([tmp_path])


def test_damaged_manifests_never_raise_anything_but_an_input_error(tmp_path: Path) -> None:
    rows = [egoprocel_row(f"P{index}.pt", index, index + 1, index) for index in range(3)]
    path, rng = write_csv(tmp_path / "m.csv", rows), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            damaged[place] = rng.choice([*b'",\n\r\0 -x9', 200])
        path.write_bytes(damaged)
        try:
            assert read_manifests([path]).takes
        except InputError as error:
            assert "\n" not in str(error)


def test_manifests_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = write_csv(tmp_path / "a.csv", [egoprocel_row("P01.pt", 0, 4, 1)])
    other = write_csv(tmp_path / "b.csv", [assembly_row("r", "v", 0, 4, 1)])
    with pytest.raises(InputError, match=r"b\.csv: manifest of assembly101, but .*a\.csv is one of egoprocel"):
        read_manifests([first, other])
    with pytest.raises(InputError, match=r"a\.csv: this manifest is given twice"):
        read_manifests([first, first])
    rows = [egoprocel_row("P02.pt", 4, 5, 1, split="test"), egoprocel_row("P01.pt", 4, 5, 1, split="test")]
    both = write_csv(tmp_path / "c.csv", rows)
    with pytest.raises(InputError, match=r"c\.csv, line 3: 'P01\.pt' is in train and in test"):
        read_manifests([first, both])
    renamed = write_csv(tmp_path / "d.csv", [egoprocel_row("P02.pt", 0, 4, 1, "another")])
    manifest = read_manifests([first, renamed])
    assert manifest.notes == ["class 1 has two names, 'step 1' and 'another'; the first is used"]


# --- slots of segments ---


def segment(start: float, end: float, label: int = 1) -> Segment:
    return Segment(start, end, "", label)


def slow_exact(tenths: list[int], start: int, end: int) -> list[int]:
    """Slots of a segment by whole tenths of a second, where nothing is rounded."""
    inside = [slot for slot, tenth in enumerate(tenths) if start <= tenth < end]
    middle = Fraction(start + end, 2)
    return inside or [min(range(len(tenths)), key=lambda slot: (abs(tenths[slot] - middle), slot))]


def slow_float32(times: np.ndarray, start: float, end: float) -> list[int]:
    inside = [slot for slot, time in enumerate(times) if start <= float(time) < end]
    middle = (start + end) / 2
    return inside or [min(range(len(times)), key=lambda slot: (abs(float(times[slot]) - middle), slot))]


@st.composite
def fact_video(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """Times of a FACT video in tenths of a second, far into it too, and segments with bounds in tenths."""
    offset, count = 5 * draw(st.integers(0, 8000)), draw(st.integers(1, 60))
    tenths = [offset + 5 * (slot // 2) + 2 * (slot % 2) for slot in range(count)]
    bound = st.integers(offset - 3, tenths[-1] + 3)
    pairs = draw(st.lists(st.tuples(bound, bound), min_size=1, max_size=8))
    return tenths, sorted((max(0, min(pair)), max(0, *pair)) for pair in pairs)


@given(fact_video())
def test_exact_slicing_is_that_of_the_decimals_before_rounding(video: tuple[list[int], list[tuple[int, int]]]) -> None:
    tenths, bounds = video
    times = (np.array(tenths) / 10).astype(np.float32).astype(np.float64)
    segments = [segment(float(f"{start / 10:.6f}"), float(f"{end / 10:.6f}")) for start, end in bounds]
    for (start, end), (first, stop) in zip(bounds, segment_slots(times, segments, "exact"), strict=True):
        assert list(range(first, stop)) == slow_exact(tenths, start, end)


FRAMES_A_SECOND, STRIDE = 30, 8


@pytest.mark.parametrize("decimals", [2, 3, 4, 6, 17])
@given(st.integers(0, 400), st.lists(st.tuples(st.integers(-9, 500), st.integers(-9, 500)), min_size=1, max_size=8))
def test_exact_slicing_finds_the_frames_that_rounded_bounds_stand_for(
    decimals: int, first: int, pairs: list[tuple[int, int]]
) -> None:
    """Assembly101's slots and bounds are whole frames of 30 a second, which few decimals write exactly."""
    frames = [STRIDE * (first + slot) for slot in range(60)]
    times = (np.array(frames) / FRAMES_A_SECOND).astype(np.float32).astype(np.float64)
    bounds = sorted(tuple(max(0, frames[0] + place) for place in sorted(pair)) for pair in pairs)
    texts = [[f"{bound / FRAMES_A_SECOND:.{decimals}f}" for bound in pair] for pair in bounds]
    segments = [
        Segment(float(start), float(end), "", 1, (half_decimal(start), half_decimal(end))) for start, end in texts
    ]
    for (start, end), (begin, stop) in zip(bounds, segment_slots(times, segments, "exact"), strict=True):
        assert list(range(begin, stop)) == slow_exact(frames, start, end)


def test_the_tolerance_is_one_float32_step_and_half_of_the_last_decimal_and_no_more() -> None:
    for moment in (5.7, 300.3, 4100.0, 8000.1):
        step = float(np.spacing(np.float32(moment)))
        for half in (5e-7, 5e-3):
            for apart, own in ((0.9 * step + 0.9 * half, True), (1.5 * step + half, False), (step + 2 * half, False)):
                times = np.array([moment - 1, moment - apart, moment + 1])
                piece = Segment(moment, moment + 9, "", 1, (half, half))
                assert own_slots(times, [piece], "exact") == [(1 if own else 2, 3)], (moment, half, apart)


def test_half_of_the_last_decimal_is_read_from_the_text(tmp_path: Path) -> None:
    texts = {"5.700000": 5e-7, "5.70": 5e-3, "5.266": 5e-4, "5.7": 5e-3, "6": 5e-3, "5e-05": 5e-6, "1e2": 5e-3}
    assert {text: half_decimal(text) for text in texts} == pytest.approx(texts)
    row = egoprocel_row("P01.pt", 0, 4, 1) | {"start_sec": "0.267", "end_sec": "4.0000"}
    ((segments,),) = [read_manifests([write_csv(tmp_path / "m.csv", [row])]).takes.values()]
    assert segments[0].halves == pytest.approx((5e-4, 5e-5))


def test_segments_are_sorted_by_start_end_and_sample_id(tmp_path: Path) -> None:
    rows = [egoprocel_row("P01.pt", 0, 4, label) | {"sample_uid": uid} for label, uid in ((1, "c"), (3, "a"), (2, "b"))]
    (segments,) = read_manifests(
        [write_csv(tmp_path / "m.csv", [*rows, egoprocel_row("P01.pt", 0, 2, 4)])]
    ).takes.values()
    assert [piece.label for piece in segments] == [4, 3, 2, 1]


@given(fact_video())
def test_float32_slicing_is_the_authors_comparison(video: tuple[list[int], list[tuple[int, int]]]) -> None:
    tenths, bounds = video
    times = (np.array(tenths) / 10).astype(np.float32)
    segments = [segment(start / 10, end / 10) for start, end in bounds]
    found = segment_slots(times.astype(np.float64), segments, "float32")
    for (start, end), (first, stop) in zip(bounds, found, strict=True):
        assert list(range(first, stop)) == slow_float32(times, start / 10, end / 10)


def test_adjoining_segments_that_start_on_slots_get_them_exactly_and_lose_a_third_by_float32() -> None:
    times = fact_times(8000).astype(np.float64)
    starts = [float(f"{(5 * (slot // 2) + 2 * (slot % 2)) / 10:.6f}") for slot in range(8000)]
    segments = [segment(start, stop) for start, stop in pairwise(starts[1:])]
    assert segment_slots(times, segments, "exact") == [(slot, slot + 1) for slot in range(1, 7999)]
    counts = on_bounds(times, segments)
    assert counts == (7999, 2361), "30 %, the number that OFFICIAL.md says"
    naive = sum(float(np.float32(start)) < start for start in starts[1:])
    assert counts.moved == naive
    lost = first_slots(times, np.array(starts[1:]), np.zeros(7999), "float32") - np.arange(1, 8000)
    assert set(lost.tolist()) == {0, 1} and lost.sum() == naive


@pytest.mark.parametrize("boundaries", ["exact", "float32"])
def test_slots_off_the_bounds_are_shared_out_alike_by_both_comparisons(boundaries: Boundaries) -> None:
    times = fact_times(40).astype(np.float64) + 0.05
    segments = [segment(0.0, 3.1), segment(3.1, 6.4), segment(6.3, 6.3), segment(90, 95)]
    assert segment_slots(times, segments, boundaries) == [(0, 13), (13, 26), (25, 26), (39, 40)]
    assert on_bounds(times, segments) == (0, 0)


def test_a_segment_without_slots_takes_the_nearest_to_its_middle_and_the_earlier_on_ties() -> None:
    times = np.array([0.0, 1.0, 2.0])
    for boundaries in ("exact", "float32"):
        found = segment_slots(times, [segment(0.4, 0.6), segment(1.2, 1.3), segment(7, 8)], boundaries)
        assert found == [(0, 1), (1, 2), (2, 3)]
    rounded = np.float32([2.2, 2.6]).astype(np.float64)
    assert segment_slots(rounded, [segment(2.3, 2.5)], "exact") == [(0, 1)], "a tie of the decimals is a tie"


def test_whole_videos_keep_gaps_and_the_later_of_overlapping_segments() -> None:
    times = np.arange(10.0)
    found = whole_labels(times, [segment(1, 4, 5), segment(3, 6, 7), segment(8, 9, 5)], "exact")
    assert found.labels.tolist() == [-100, 5, 5, 7, 7, 7, -100, -100, 5, -100]
    assert (found.shared, found.nearest, found.outside) == (1, 0, 0)


def test_segments_outside_of_their_video_leave_its_first_and_last_labels_alone() -> None:
    times = 3 + fact_times(20).astype(np.float64)  # 3.0, 3.2, 3.5, ... 7.7 s
    inner = [segment(3.0, 4.0, 1), segment(4.1, 4.15, 2), segment(7.0, 8.0, 3)]
    near = [segment(2.8, 2.89, 4), segment(7.81, 9.0, 5)]
    far = [segment(0.0, 2.7, 6), segment(7.9, 8.4, 7), segment(600.0, 700.0, 8)]
    found = whole_labels(times, sorted([*inner, *near, *far]), "exact")
    assert found.labels.tolist() == [1, 1, 1, 1, -100, 2, *[-100] * 10, 3, 3, 3, 5]
    assert (found.nearest, found.outside) == (3, 3), "half a slot is 0.125 s"
    alone = whole_labels(times, far, "float32")
    assert (alone.labels == -100).all() and (alone.nearest, alone.outside) == (0, 3)
    take = take_slots(times, sorted([*inner, *far]), "exact")
    assert take.nearest == 4 and take.slots[[0, -1]].tolist() == [0, 19], "takes keep the authors' rule, and count"


def test_takes_are_their_segments_end_to_end_as_a_slow_reference_builds_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.sort(rng.integers(0, 200, rng.integers(1, 40))) / 4
        bounds = np.sort(rng.integers(0, 220, (6, 2)) / 4, axis=1)
        segments = sorted(segment(start, end, int(rng.integers(3))) for start, end in bounds.tolist())
        slots: list[int] = []
        labels: list[int] = []
        lengths = []
        for piece in segments:
            own = slow_float32(times, piece.start, piece.end)
            own = own[:4] if piece.label == 0 else own
            slots += own
            labels += [piece.label] * len(own)
            lengths.append(len(own))
        for boundaries in ("exact", "float32"):
            take = take_slots(times, segments, boundaries, background_limit=4)
            assert take.slots.tolist() == slots and take.labels.tolist() == labels and take.lengths == lengths
            everything = take_slots(times, segments, boundaries)
            assert len(everything.slots) == len(slots) + take.cut and everything.cut == 0
