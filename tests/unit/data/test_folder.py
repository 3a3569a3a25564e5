import json
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.inspection import inspect_dataset
from keystep.data.layout import LENGTH_TOLERANCE, length_tolerance
from keystep.data.problems import Problems
from keystep.data.slots import open_array, pool_mean
from keystep.errors import InputError

MakeFolder = Callable[..., Path]
HZ = Fraction(30)


def opened(root: Path, **options: Any) -> FeatureFolder:
    return open_dataset(root, source_rate=HZ, **options)


def stored(root: Path, name: str) -> Path:
    return root / "features" / f"{name}.npy"


def write_labels(root: Path, name: str, count: int) -> None:
    (root / "groundTruth" / f"{name}.txt").write_text("wait\n" * count)


@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("labelled", [True, False])
def test_both_orientations_are_told_apart_with_and_without_labels(
    make_folder: MakeFolder, time_axis: int, labelled: bool
) -> None:
    root = make_folder(time_axis=time_axis, labelled=labelled)
    folder = opened(root)
    assert (folder.width, folder.length("video0"), folder.length("video5")) == (6, 40, 65)
    array = np.load(stored(root, "video3"))
    assert np.array_equal(folder.features("video3"), array if time_axis == 0 else array.T)


@pytest.mark.parametrize("time_axis", [0, 1])
def test_labels_decide_even_where_every_video_has_one_length(make_folder: MakeFolder, time_axis: int) -> None:
    root = make_folder(lengths={"a": 40, "b": 40}, time_axis=time_axis)
    assert opened(root).length("a") == 40


@pytest.mark.parametrize("time_axis", [0, 1])
def test_an_exact_fit_decides_between_two_that_are_near(make_folder: MakeFolder, time_axis: int) -> None:
    root = make_folder(lengths={"a": 40}, width=38, time_axis=time_axis)
    folder = opened(root)
    assert (folder.length("a"), folder.width) == (40, 38)


def test_one_unlabelled_video_is_ambiguous_until_store_json_says_so(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 40}, labelled=False)
    with pytest.raises(InputError, match=r"cannot distinguish time from width.*\(6, 40\).*\"time_axis\": 1"):
        opened(root)
    for axis, length in ((1, 40), (0, 6)):
        (root / "store.json").write_text(json.dumps({"time_axis": axis}))
        assert opened(root).length("a") == length


def test_labels_that_fit_neither_axis_are_refused_with_both_numbers(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 40, "b": 60})
    write_labels(root, "a", 400)
    write_labels(root, "b", 600)
    with pytest.raises(InputError, match=r"labels have 10 times the rate of the features.*such as 400 for 40 in a"):
        opened(root)
    (root / "features" / "b.npy").unlink()
    with pytest.raises(InputError, match=r"first array has shape \(6, 40\), its labels 400 lines"):
        opened(root)


@pytest.mark.parametrize("surplus", [-length_tolerance(45), -1, 1, length_tolerance(45)])
def test_lengths_that_differ_within_the_tolerance_are_cut_and_noted(make_folder: MakeFolder, surplus: int) -> None:
    root = make_folder()
    write_labels(root, "video1", 45 + surplus)
    folder = opened(root)
    used = min(45, 45 + surplus)
    assert folder.length("video1") == len(folder.features("video1")) == len(folder.labels("video1")) == used
    assert folder.problems.notes == [f"video1: 45 features, {45 + surplus} labels; used the first {used}"]


def test_lengths_that_differ_more_are_refused_with_both_numbers(make_folder: MakeFolder) -> None:
    root = make_folder()
    write_labels(root, "video1", 45 + LENGTH_TOLERANCE + 1)
    with pytest.raises(InputError, match=r"video1\.npy: 45 frames of features \(shape \(6, 45\)\) but 62 labels"):
        opened(root)


def test_names_with_dots_keep_features_and_labels_together(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"P1.cam.1": 40, "P1.cam.2": 50, "P1": 60})
    folder = opened(root)
    assert {name: folder.length(name) for name in folder.videos} == {"P1": 60, "P1.cam.1": 40, "P1.cam.2": 50}
    assert all(len(folder.labels(name)) == folder.length(name) for name in folder.videos)


def test_a_class_outside_the_mapping_is_refused_on_opening(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "groundTruth" / "video2.txt").write_text("wait\n" * 49 + "Wait")
    with pytest.raises(InputError, match=r"video2\.txt, line 50: class 'Wait' is not in mapping\.txt"):
        opened(root)


def cut_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def break_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


def pickled(path: Path) -> None:
    np.save(path, np.array([[1, "a"]], dtype=object), allow_pickle=True)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1, 2]))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut_bytes, "not a readable .npy array, or cut off"),
    "cut in the header": (cut_header, "not a readable"),
    "broken header": (break_header, "not a readable"),
    "zero bytes": (lambda path: path.write_bytes(b""), "not a readable"),
    "text": (lambda path: path.write_text("hello"), "not a readable"),
    "object array": (pickled, "not a readable"),
    "pickle": (bare_pickle, "not a readable"),
    "archive": (lambda path: np.savez(path.open("wb"), a=np.ones((3, 3))), "an archive"),
    "integers": (lambda path: np.save(path, np.ones((6, 45), dtype=np.int32)), "type int32; expected float16"),
    "one axis": (lambda path: np.save(path, np.ones(45)), r"shape \(45,\); expected two axes"),
    "three axes": (lambda path: np.save(path, np.ones((6, 45, 1))), r"shape \(6, 45, 1\)"),
    "no frames": (lambda path: np.save(path, np.ones((6, 0))), r"an empty video, shape \(6, 0\)"),
    "another width": (
        lambda path: np.save(path, np.ones((7, 45))),
        r"width 7 in shape \(7, 45\); the other videos have 6",
    ),
    "a folder": (make_directory, "cannot be read: a folder"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_array_is_named_in_one_line(make_folder: MakeFolder, kind: str) -> None:
    root = make_folder()
    spoil, message = BROKEN[kind]
    spoil(stored(root, "video1"))
    with pytest.raises(InputError, match=rf"video1\.npy: {message}") as caught:
        opened(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_skipping_leaves_a_broken_array_out_and_lists_it(make_folder: MakeFolder, kind: str) -> None:
    root = make_folder()
    BROKEN[kind][0](stored(root, "video1"))
    folder = opened(root, problems=Problems(on_error="skip"))
    assert sorted(folder.videos) == ["video0", "video2", "video3", "video4", "video5"]
    assert list(folder.problems.skipped) == ["video1"] and "video1.npy" in folder.problems.skipped["video1"]
    split = folder.split("1")
    assert {*split.train, *split.valid} == {"video0", "video2", "video3"}


def test_damaged_headers_never_raise_anything_but_an_input_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.npy", np.random.default_rng(0)
    np.save(path, np.ones((20, 5), np.float32))
    whole = path.read_bytes()
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(128)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert open_array(path).ndim == 2
        except InputError as error:
            assert "\n" not in str(error)


def test_skipping_a_video_with_empty_labels_spoils_nothing_else(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "groundTruth" / "video1.txt").write_text("")
    with pytest.raises(InputError, match=r"video1\.txt: no labels; delete the file"):
        opened(root)
    assert len(opened(root, problems=Problems(on_error="skip")).videos) == 5


def test_a_folder_of_bad_videos_only_is_refused_with_the_first_reason(make_folder: MakeFolder) -> None:
    root = make_folder()
    for path in (root / "features").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of its 6 videos can be used; the first: .*video0\.npy"):
        opened(root, problems=Problems(on_error="skip"))


def test_a_folder_without_features_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "empty" / "features").mkdir(parents=True)
    for root in (tmp_path / "nothing", tmp_path / "empty", make_folder() / "mapping.txt"):
        with pytest.raises(InputError, match=r"no features/\*\.npy here"):
            opened(root)


def test_an_unreadable_folder_is_named(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    root = make_folder()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="features: cannot be read: Permission denied"):
        opened(root)


def test_hidden_files_of_other_systems_are_not_taken_for_videos(make_folder: MakeFolder) -> None:
    root = make_folder()
    stored(root, "._video0").write_bytes(b"\0\5\x16\7")
    assert len(opened(root).videos) == 6


def test_ground_truth_without_a_mapping_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "mapping.txt").unlink()
    with pytest.raises(InputError, match=r"groundTruth/ without mapping\.txt"):
        opened(root)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pool", [1, 4])
def test_a_number_that_is_none_names_the_file_and_the_frame(make_folder: MakeFolder, bad: float, pool: int) -> None:
    root = make_folder()
    array = np.load(stored(root, "video2"))
    array[3, 17] = bad
    np.save(stored(root, "video2"), array)
    folder = opened(root, rate=HZ / pool)
    with pytest.raises(InputError, match=r"video2\.npy: NaN or infinite value in frame 17;"):
        folder.features("video2")
    with pytest.raises(InputError, match="frame 17;"):
        folder.features("video2", 16 // pool)
    assert np.isfinite(folder.features("video2", 0, 16 // pool)).all()


def test_slots_that_do_not_exist_are_refused(make_folder: MakeFolder) -> None:
    folder = opened(make_folder(), rate=HZ / 4)
    for start, stop in ((-1, 3), (0, 11), (5, 4)):
        with pytest.raises(InputError, match=rf"video0\.npy: no slots {start} to {stop}; it has 10"):
            folder.features("video0", start, stop)
    with pytest.raises(InputError, match="no video 'other' among 6"):
        folder.length("other")


def test_pooling_takes_means_and_keeps_the_last_partial_group(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 43, "b": 50})
    folder = opened(root, rate=HZ / 6)
    array = np.load(stored(root, "a")).T
    slow = np.stack([array[i : i + 6].mean(0) for i in range(0, 43, 6)])
    assert folder.length("a") == 8 and folder.features("a").dtype == np.float32
    np.testing.assert_allclose(folder.features("a"), slow, atol=1e-6)
    np.testing.assert_allclose(folder.features("a")[-1], array[42], atol=1e-6)
    assert folder.timeline.rate == 5 and folder.source.rate == 30


def test_pooled_labels_are_the_majority_and_ties_go_to_the_smaller_id(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 40, "b": 50})
    lines = (
        ["cut", "wait", "cut", "tie a knot"] + ["tie a knot", "cut", "cut", "tie a knot"] + ["wait"] * 30 + ["cut"] * 2
    )
    (root / "groundTruth" / "a.txt").write_text("\n".join(lines))
    folder = opened(root, rate=HZ / 4)
    assert folder.labels("a").tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    folder = opened(root, rate=HZ / 3)
    assert folder.labels("a")[-1] == 1, "the last group holds one frame, and padding has no vote"
    assert len(folder.frame_labels("a")) == 40 and folder.frame_labels("a")[3] == 2


def test_a_pooled_slot_is_unlabelled_only_where_nothing_in_it_has_a_label(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 10, "b": 50})
    gap = "(unlabelled)"
    (root / "groundTruth" / "a.txt").write_text("\n".join([gap] * 3 + ["cut"] + [gap] * 4 + ["wait", gap]))
    assert opened(root).labels("a").tolist() == [-100] * 3 + [1] + [-100] * 4 + [0, -100]
    assert opened(root, rate=HZ / 4).labels("a").tolist() == [1, -100, 0]


def write_times(root: Path, name: str, times: np.ndarray) -> None:
    (root / "times").mkdir(exist_ok=True)
    np.save(root / "times" / f"{name}.npy", times)


@pytest.mark.parametrize(
    ("alignment", "expected"), [("center", [0.2, 1.1, 2.0]), ("right", [0.5, 1.5, 2.0]), ("left", [0.0, 0.7, 2.0])]
)
def test_explicit_times_are_pooled_as_the_alignment_says(
    make_folder: MakeFolder, alignment: str, expected: list[float]
) -> None:
    root = make_folder(lengths={"a": 7, "b": 50}, labelled=False)
    timeline = {"rate": "4", "start": "1", "alignment": alignment}
    (root / "store.json").write_text(json.dumps({"time_axis": 1, "timeline": timeline}))
    times = np.array([0.0, 0.1, 0.5, 0.7, 1.1, 1.5, 2.0])
    write_times(root, "a", times)
    folder = open_dataset(root)
    assert folder.has_times("a") and not folder.has_times("b")
    assert np.array_equal(folder.times("a"), times) and np.array_equal(folder.times("a", 2, 5), times[2:5])
    pooled = open_dataset(root, rate=Fraction(4, 3))
    np.testing.assert_allclose(pooled.times("a"), expected)
    np.testing.assert_allclose(pooled.times("a", 1, 2), expected[1:2])


@pytest.mark.parametrize("pool", [1, 3])
def test_times_without_a_file_are_those_of_the_timeline(make_folder: MakeFolder, pool: int) -> None:
    root = make_folder(labelled=False)
    timeline = {"rate": "30000/1001", "start": "1/2", "alignment": "right"}
    (root / "store.json").write_text(json.dumps({"time_axis": 1, "timeline": timeline}))
    folder = open_dataset(root, rate=Fraction(30000, 1001) / pool)
    expected = [float(folder.timeline.seconds(index)) for index in range(folder.length("video0"))]
    np.testing.assert_allclose(folder.times("video0"), expected, atol=1e-12)
    np.testing.assert_allclose(folder.times("video0", 2, 4), expected[2:4], atol=1e-12)


def test_times_are_cut_with_the_features(make_folder: MakeFolder) -> None:
    root = make_folder()
    write_labels(root, "video1", 43)
    write_times(root, "video1", np.arange(45) / 10)
    assert np.array_equal(opened(root).times("video1"), np.arange(43) / 10)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.arange(44) / 10, "44 times for 45 slots"),
        (np.arange(45), r"type int64, shape \(45,\); expected float64"),
        (np.zeros(45, np.float32), "type float32"),
        (np.zeros((45, 1)), r"shape \(45, 1\)"),
        (np.where(np.arange(45) == 7, np.nan, 1.0), "the time of slot 7 is nan"),
    ],
)
def test_times_that_do_not_fit_are_refused_in_one_line(
    make_folder: MakeFolder, times: np.ndarray, message: str
) -> None:
    root = make_folder()
    write_times(root, "video1", times)
    with pytest.raises(InputError, match=rf"times/video1\.npy: .*{message}") as refusal:
        opened(root).times("video1")
    assert "\n" not in str(refusal.value)
    (root / "times" / "video1.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"times/video1\.npy: not a readable"):
        opened(root).times("video1")


def write_segments(root: Path, name: str, lengths: list[int]) -> None:
    (root / "segments").mkdir(exist_ok=True)
    (root / "segments" / f"{name}.txt").write_text("".join(f"{length}\n" for length in lengths))


def test_segments_are_the_runs_of_labels_unless_a_file_tells_them(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 10, "b": 50})
    (root / "groundTruth" / "a.txt").write_text("wait\n" * 6 + "cut\n" * 4)
    assert opened(root).segment_lengths("a") == [6, 4]
    assert opened(root).segment_lengths("a", 4, 9) == [2, 3]
    write_segments(root, "a", [2, 4, 3, 1])
    assert opened(root).segment_lengths("a") == [2, 4, 3, 1]
    assert opened(root).segment_lengths("a", 1, 7) == [1, 4, 1]
    write_segments(root, "a", [2, 4, 3])
    with pytest.raises(InputError, match=r"segments/a\.txt: its 3 segments have 9 frames; the video has 10"):
        opened(root).segment_lengths("a")


@pytest.mark.parametrize("pool", [2, 3, 4, 7])
def test_a_pooled_slot_belongs_to_the_segment_of_its_middle_frame(make_folder: MakeFolder, pool: int) -> None:
    root = make_folder(lengths={"a": 41, "b": 50}, labelled=False)
    (root / "store.json").write_text(json.dumps({"time_axis": 1}))
    lengths = [5, 1, 8, 2, 2, 20, 3]
    write_segments(root, "a", lengths)
    owner = [segment for segment, length in enumerate(lengths) for _ in range(length)]
    groups = [list(range(41))[first : first + pool] for first in range(0, 41, pool)]
    slow = [owner[group[(len(group) - 1) // 2]] for group in groups]
    counts = [slow.count(segment) for segment in dict.fromkeys(slow)]
    folder = opened(root, rate=HZ / pool)
    assert folder.segment_lengths("a") == counts and sum(counts) == folder.length("a")


def test_segments_count_in_the_fingerprint_but_times_do_not(make_folder: MakeFolder) -> None:
    root = make_folder()
    before = opened(root).fingerprint()
    write_times(root, "video0", np.arange(40) / 10)
    assert opened(root).fingerprint() == before, "older runs of a folder without segments stay resumable"
    write_segments(root, "video0", [20, 20])
    first = opened(root).fingerprint()
    write_segments(root, "video0", [10, 30])
    assert len({before, first, opened(root).fingerprint()}) == 3


def test_sequences_that_true_boundaries_shaped_are_called_oracle_on_every_reading(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "store.json").write_text(json.dumps({"time_axis": 1, "provenance": {"oracle": "cut at true bounds"}}))
    folder = opened(root)
    assert folder.oracle == "cut at true bounds" and folder.problems.notes == ["ORACLE: cut at true bounds"]


@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("pool", [1, 4])
def test_a_crop_equals_the_same_slice_of_the_whole(make_folder: MakeFolder, time_axis: int, pool: int) -> None:
    folder = opened(make_folder(time_axis=time_axis), rate=HZ / pool)
    whole = folder.features("video5")
    for start, stop in ((0, 3), (2, 9), (len(whole) - 2, len(whole)), (4, 4)):
        assert np.array_equal(folder.features("video5", start, stop), whole[start:stop])


def test_half_precision_stays_on_disk_and_comes_out_as_a_float32_copy(make_folder: MakeFolder) -> None:
    root = make_folder(dtype="float16")
    array = open_array(stored(root, "video0"))
    assert isinstance(array, np.memmap) and array.dtype == np.float16
    features = opened(root).features("video0")
    assert features.dtype == np.float32 and not isinstance(features, np.memmap)
    features[:] = 0
    assert np.any(np.load(stored(root, "video0")) != 0)


def test_group_means_agree_with_a_loop() -> None:
    rows = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
    for factor in (1, 2, 5, 23, 40):
        slow = np.stack([rows[i : i + factor].mean(0) for i in range(0, 23, factor)])
        np.testing.assert_allclose(pool_mean(rows, factor), slow, atol=1e-6)


def test_rates_have_to_be_known_once_and_to_divide(make_folder: MakeFolder) -> None:
    root = make_folder()
    with pytest.raises(InputError, match=r"no store\.json states the rate.*--source-rate 30"):
        open_dataset(root)
    with pytest.raises(InputError, match="cannot be pooled to 7 Hz"):
        opened(root, rate=Fraction(7))
    with pytest.raises(InputError, match="a rate must be above 0 Hz"):
        opened(root, rate=Fraction(0))
    (root / "store.json").write_text(json.dumps({"timeline": {"rate": "25"}}))
    assert open_dataset(root).timeline.rate == 25
    with pytest.raises(InputError, match=r"store\.json says 25 Hz, --source-rate says 30"):
        opened(root)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"time_axis": 2}',
        '{"time_axis": true}',
        '{"time_axis": "0"}',
        '{"timeline": 30}',
        '{"timeline": {"rate": "30", "start": "soon"}}',
        '{"timeline": {"rate": "30", "window": null}}',
        "\xff",
    ],
)
def test_an_unusable_store_json_is_refused(make_folder: MakeFolder, text: str) -> None:
    root = make_folder()
    (root / "store.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        opened(root)


def test_labels_that_are_not_there_are_named(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "groundTruth" / "video1.txt").unlink()
    folder = opened(root)
    with pytest.raises(InputError, match=r"no groundTruth/video1\.txt; this needs labels"):
        folder.labels("video1")


def test_the_fingerprint_changes_with_everything_that_is_read(make_folder: MakeFolder) -> None:
    root = make_folder()
    prints = [opened(root).fingerprint()]
    assert opened(root).fingerprint() == prints[0]
    prints.append(opened(root, rate=HZ / 2).fingerprint())
    prints.append(open_dataset(root, source_rate=Fraction(25)).fingerprint())
    (root / "mapping.txt").write_text("0 wait\n1 tie a knot\n2 cut\n")
    prints.append(opened(root).fingerprint())
    labels = root / "groundTruth" / "video0.txt"
    labels.write_text("cut\n" + labels.read_text().split("\n", 1)[1].replace("cut", "wait", 1))
    prints.append(opened(root).fingerprint())
    array = np.load(stored(root, "video3"))
    array[2, 20] += 1
    np.save(stored(root, "video3"), array)
    prints.append(opened(root).fingerprint())
    stored(root, "video5").unlink()
    prints.append(opened(root).fingerprint())
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_covers_a_large_file_beyond_its_ends(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"a": 9000, "b": 20}, width=64, labelled=False)
    before = opened(root).fingerprint()
    array = np.lib.format.open_memmap(stored(root, "a"), mode="r+")
    array[20:44] += 1
    array.flush()
    assert opened(root).fingerprint() != before


def test_vts_opens_whole(shared: Path) -> None:
    folder = opened(shared / "data" / "vts")
    lengths = [folder.length(name) for name in folder.videos]
    assert (len(lengths), folder.width, sum(lengths)) == (99, 36, 608_461)
    for name in "12345":
        split = folder.split(name)
        assert len({*split.train, *split.valid, *split.test}) == 99 and split.rule == f"valid.split{name}.bundle"
    with pytest.raises(InputError, match="splits/ has 1, 2, 3, 4, 5"):
        folder.split("6")
    assert not folder.problems.notes
    assert folder.features("P016_balloon1", 0, 100).shape == (100, 36)
    assert len(open_dataset(shared / "data" / "vts", source_rate=HZ, rate=Fraction(5)).labels("P016_balloon1")) > 400


def test_gtea_opens_whole(shared: Path) -> None:
    folder = open_dataset(shared / "data" / "gtea_s2_effnet_3fps", source_rate=Fraction(3))
    assert (len(folder.videos), folder.width) == (7, 1280)
    for name in folder.videos:
        assert folder.features(name).shape == (len(folder.labels(name)), 1280)
    assert all(len(folder.split(str(number)).test) == 1 for number in range(1, 8))


@pytest.mark.parametrize(("features", "labels"), [(12, 24), (12, 16), (100, 120), (1000, 1017)])
def test_labels_far_beyond_a_share_of_the_length_are_refused(
    make_folder: MakeFolder, features: int, labels: int
) -> None:
    root = make_folder(lengths={"a": features, "b": 45})
    write_labels(root, "a", labels)
    with pytest.raises(InputError, match=rf"a\.npy: {features} frames of features.*but {labels} labels"):
        opened(root)
    assert LENGTH_TOLERANCE >= length_tolerance(features) < labels - features


@pytest.mark.parametrize("factor", [2, 1.25, 1.1, 0.9])
def test_a_factor_that_all_videos_share_is_another_rate(make_folder: MakeFolder, factor: float) -> None:
    lengths = {"a": 40, "b": 60, "c": 90}
    root = make_folder(lengths=lengths)
    for name, length in lengths.items():
        write_labels(root, name, round(factor * length))
    with pytest.raises(InputError, match=r"labels have .* times the rate of the features in all 3 videos"):
        opened(root)
    folder = opened(root, labels_needed=False)
    assert len(folder.videos) == 3 and any("labels not used" in note for note in folder.problems.notes)


def test_one_surplus_that_all_videos_share_is_no_rate(make_folder: MakeFolder) -> None:
    lengths = {"a": 40, "b": 60, "c": 90}
    root = make_folder(lengths=lengths)
    for name, length in lengths.items():
        write_labels(root, name, length + 3)
    assert len(opened(root).videos) == 3


@pytest.mark.parametrize(
    "name",
    [
        "groundTruth/video1",
        "groundTruth/video1.csv",
        "groundTruth/other.txt",
        "features/video1.mat",
        "splits/train.txt",
    ],
)
def test_files_that_nothing_reads_are_named(make_folder: MakeFolder, name: str) -> None:
    root = make_folder()
    assert opened(root).problems.notes == []
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("something")
    (root / "features" / ".DS_Store").write_text("a system's own")
    folder, _, file = name.partition("/")
    (note,) = opened(root).problems.notes
    assert note.startswith(f"{folder}/: not used: {file}; ")
    assert note in inspect_dataset(root).warnings


def test_labels_without_a_list_of_classes_are_said_to_be_unread(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "mapping.txt").unlink()
    assert opened(root, labels_needed=False).problems.notes == [
        "groundTruth/ is not read: there is no mapping.txt with 'id name' lines"
    ]


def test_rates_that_are_nearly_one_are_noted(make_folder: MakeFolder) -> None:
    lengths = {"a": 2000, "b": 4000, "c": 9000}
    root = make_folder(lengths=lengths)
    for name, length in lengths.items():
        write_labels(root, name, round(length * 1.001))
    assert any("labels have 1.001 times" in note for note in opened(root).problems.notes)


def test_arrays_that_lie_the_other_way_round_than_the_store_says_are_called_transposed(make_folder: MakeFolder) -> None:
    root = make_folder(labelled=False)  # (D, T)
    (root / "store.json").write_text('{"time_axis": 0, "timeline": {"rate": "4"}}')
    with pytest.raises(InputError, match=r"transposed: read as \(T, D\), its 6 arrays are all 6 frames long"):
        open_dataset(root)
