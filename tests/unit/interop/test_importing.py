"""An imported folder holds what the archive and the manifest say, slot for slot, and never half of it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release import (
    assembly_row,
    egoprocel_row,
    fact_times,
    packed,
    regular_times,
    surgical,
    write_csv,
    write_lemon,
)

from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.problems import Problems
from keystep.encoding import encode_videos
from keystep.errors import InputError
from keystep.interop.official.importing import Imported, ImportOptions, import_archive
from keystep.interop.official.planning import cholec80_splits, plain_names
from keystep.pjepa import PJEPA
from keystep.progress import Lines


def run(
    archive: Path,
    out: Path,
    *manifests: Path,
    on_error: str = "raise",
    seen: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Imported:
    settings = ImportOptions(archive=archive, out=out, manifests=manifests, **options)
    return import_archive(settings, Problems(on_error=on_error), Lines(seen, interval=0))


def saved(path: Path, payload: object) -> Path:
    torch.save(payload, path)
    return path


VIDEOS = {"P01.pt": fact_times(20), "P02.pt": fact_times(30), "P03.pt": fact_times(16), "P04.pt": fact_times(0)}


@pytest.fixture
def fact(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An EgoProceL archive of FACT features, and its train and test manifests."""
    train = [
        egoprocel_row("P01.pt", 0.0, 2.0, 0),
        egoprocel_row("P01.pt", 2.0, 3.5, 2, "crack egg"),
        egoprocel_row("P01.pt", 3.5, 4.5, 2, "crack egg"),
        egoprocel_row("P02.pt", 1.2, 4.0, 1, "stir"),
        egoprocel_row("P02.pt", 3.0, 5.7, 0),
        egoprocel_row("P09.pt", 0.0, 1.0, 1, "stir"),
    ]
    test = [egoprocel_row("P03.pt", 0.5, 2.5, 1, "stir", split="test")]
    archive = saved(tmp_path / "fact.pt", packed(VIDEOS))
    return archive, write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "test.csv", test)


def test_whole_videos_keep_their_features_times_gaps_and_splits(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact
    imported = run(archive, tmp_path / "out", *manifests)
    folder = open_dataset(tmp_path / "out")
    assert sorted(folder.videos) == ["P01", "P02", "P03"] and not folder.problems.notes and not folder.oracle
    assert folder.classes == ("background", "stir", "crack egg") and folder.source.rate == 4
    tokens = torch.load(archive)["tokens"].numpy()
    assert np.array_equal(folder.features("P02"), tokens[20:50])
    assert folder.has_times("P02") and np.array_equal(folder.times("P02"), VIDEOS["P02.pt"].astype(np.float64))
    tenths = [5 * (slot // 2) + 2 * (slot % 2) for slot in range(30)]
    slow = [-100 if not 12 <= t < 57 else 1 if t < 30 else 0 for t in tenths]
    assert folder.labels("P02").tolist() == slow, "the segment that starts later wins; gaps have no label"
    assert folder.segment_lengths("P02") == [slow.count(-100) - 7, 7, 11, 7], "ORACLE models see gaps as segments"
    split = folder.split("1")
    assert {*split.train, *split.valid} == {"P01", "P02"} and split.test == ("P03",)
    assert imported.splits == {"1": {"train": 2, "valid": 0, "test": 1}}
    counts = imported.plan.counts
    assert (counts["manifest rows"], counts["manifest rows of videos that the archive lacks"]) == (7, 1)
    assert (counts["videos without slots"], counts["slots that several segments claim"]) == (1, 4)
    assert counts["segments outside of their video, left out"] == 0
    provenance = json.loads((tmp_path / "out" / "store.json").read_text())["provenance"]
    assert provenance["archive"]["metadata"]["version"] == "egoprocel_fact_npy_frame_pt_v1"
    assert provenance["files"] == ["fact.pt", "train.csv", "test.csv"] and provenance["counts"] == counts
    assert provenance["manifests"] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in manifests]


def test_takes_glue_segments_together_and_keep_true_lengths_and_original_times(
    fact: tuple[Path, ...], tmp_path: Path
) -> None:
    archive, *manifests = fact
    imported = run(archive, tmp_path / "out", *manifests, sequence="segments", background_limit=3)
    folder = open_dataset(tmp_path / "out")
    assert "true boundaries" in folder.oracle and folder.problems.notes[0].startswith("ORACLE")
    assert folder.segment_lengths("P01") == [3, 6, 4], "neighbours of one class stay two segments"
    assert folder.labels("P01").tolist() == [0] * 3 + [2] * 10
    times = VIDEOS["P01.pt"].astype(np.float64)
    assert np.array_equal(folder.times("P01"), times[[0, 1, 2, *range(8, 18)]])
    tokens = torch.load(archive)["tokens"].numpy()
    assert np.array_equal(folder.features("P01"), tokens[[0, 1, 2, *range(8, 18)]])
    tenths = [5 * (slot // 2) + 2 * (slot % 2) for slot in range(30)]
    stir = [slot for slot, t in enumerate(tenths) if 12 <= t < 40]
    background = [slot for slot, t in enumerate(tenths) if 30 <= t < 57][:3]
    assert np.array_equal(folder.features("P02"), tokens[20:50][[*stir, *background]]), "overlaps repeat slots"
    assert imported.plan.counts["slots that overlapping segments repeat"] == 3
    assert imported.plan.counts["background slots cut off"] == 5 + (len([t for t in tenths if 30 <= t < 57]) - 3)
    assert folder.split("1").test == ("P03",)


def test_background_is_cut_to_1024_slots_by_default_in_takes_of_egoprocel_only(tmp_path: Path) -> None:
    archive = saved(tmp_path / "a.pt", packed({"r/v.pt": fact_times(3000)}))
    ego = write_csv(tmp_path / "ego.csv", [egoprocel_row("r/v.pt", 0, 500, 0), egoprocel_row("r/v.pt", 500, 600, 1)])
    assembly = write_csv(tmp_path / "assembly.csv", [assembly_row("r", "v", 0, 500, 0)])
    for manifest, options, expected in (
        (ego, {}, [1024, 400]),
        (ego, {"background_limit": 0}, [2000, 400]),
        (assembly, {}, [2000]),
    ):
        out = tmp_path / f"{manifest.stem}{len(options)}"
        imported = run(archive, out, manifest, sequence="segments", **options)
        (name,) = imported.done
        assert open_dataset(out).segment_lengths(name) == expected
    with pytest.raises(InputError, match="Assembly101 has no background class"):
        run(archive, tmp_path / "x", assembly, sequence="segments", background_limit=5)


def test_assembly101_takes_are_action_types_of_a_view_and_whole_videos_are_both(tmp_path: Path) -> None:
    rows = [
        assembly_row("r1", "v4", 0, 8, 1),
        assembly_row("r1", "v4", 12, 16, 3, kind="disassembly"),
        assembly_row("r2", "v4", 0, 8, 1, split="val"),
    ]
    payload = packed({"r1/v4.pt": regular_times(75, 3.75), "r2/v4.pt": regular_times(75, 3.75)})
    archive, manifest = saved(tmp_path / "a.pt", payload), write_csv(tmp_path / "m.csv", rows)
    run(archive, tmp_path / "whole", manifest)
    whole = open_dataset(tmp_path / "whole")
    assert sorted(whole.videos) == ["r1__v4", "r2__v4"] and whole.source.rate == Fraction(15, 4)
    assert not whole.has_times("r1__v4"), "regular times are those of the timeline"
    labels = whole.labels("r1__v4")
    assert (labels[:30] == 1).all() and (labels[30:45] == -100).all() and (labels[45:60] == 3).all()
    assert (tmp_path / "whole" / "splits" / "test.split1.bundle").read_text() == "r2__v4\n"
    run(archive, tmp_path / "takes", manifest, sequence="segments")
    takes = open_dataset(tmp_path / "takes")
    assert sorted(takes.videos) == ["assembly__r1__v4", "assembly__r2__v4", "disassembly__r1__v4"]
    assert np.array_equal(takes.features("disassembly__r1__v4"), whole.features("r1__v4", 45, 60))


def test_every_fourth_slot_of_lemon_is_one_a_second(tmp_path: Path) -> None:
    lengths = {"a": 9, "b": 8, "c": 1, "d": 0, "e": 18}
    index = write_lemon(tmp_path / "lemon", lengths)
    imported = run(index, tmp_path / "out", every=4, half=True)
    folder = open_dataset(tmp_path / "out")
    assert folder.source.rate == 1 and {name: folder.length(name) for name in folder.videos} == {
        "a": 3, "b": 2, "c": 1, "e": 5,
    }  # fmt: skip
    assert np.load(tmp_path / "out" / "features" / "e.npy").dtype == np.float16
    assert not folder.classes and not imported.splits and not (tmp_path / "out" / "times").exists()
    whole = torch.load(tmp_path / "lemon" / "pretrain" / "pretrain_00000.pt")["tokens"][:9]
    np.testing.assert_allclose(folder.features("a"), whole[::4].numpy(), rtol=1e-3)


def test_surgical_archives_bring_labels_and_the_known_splits(tmp_path: Path) -> None:
    videos = {f"video{number:02}": regular_times(3, 1) for number in (1, 2, 32, 33, 40, 41, 80)}
    archive = saved(tmp_path / "a.pt", surgical(videos, [0, 1, -1] * 7, source_splits=["x"] * 7))
    imported = run(archive, tmp_path / "out")
    folder = open_dataset(tmp_path / "out")
    assert folder.labels("video33").tolist() == [0, 1, -100] and folder.classes[1] == "Dissection"
    first, second = folder.split("1"), folder.split("2")
    assert first.valid == ("video33", "video40") and first.test == ("video41", "video80")
    assert {*second.train, *second.valid} == {"video01", "video02", "video32", "video33", "video40"}
    assert imported.splits["2"] == {"train": 5, "valid": 0, "test": 2}
    other = {f"v{number}": regular_times(3, 1) for number in range(5)}
    words = ["train", "train", "val", "test", "test"]
    payload = surgical(other, [0] * 15, dataset="m2cai16", source_splits=words)
    run(saved(tmp_path / "b.pt", payload), tmp_path / "m2cai")
    split = open_dataset(tmp_path / "m2cai").split("1")
    assert (split.train, split.valid, split.test) == (("v0", "v1"), ("v2",), ("v3", "v4"))


def test_cholec80s_splits_are_those_of_the_field() -> None:
    names = [f"video{number:02}" for number in range(1, 81)]
    splits = cholec80_splits([*names, "extra", "video81", "video00"])
    assert {part: len(videos) for part, videos in splits["1"].items()} == {"train": 32, "valid": 8, "test": 40}
    assert {part: len(videos) for part, videos in splits["2"].items()} == {"train": 40, "valid": 0, "test": 40}


@pytest.mark.parametrize(
    ("splits", "bundles"),
    [
        (("train", "train", "val"), {"train": 2, "test": 1}),
        (("train", "validation", "test"), {"train": 1, "valid": 1, "test": 1}),
        (("train", "train", "train"), {}),
        (("val", "val", "test"), {}),
    ],
)
def test_the_only_evaluation_part_is_the_test_part_whatever_its_name(
    tmp_path: Path, splits: tuple[str, ...], bundles: dict[str, int]
) -> None:
    rows = [egoprocel_row(f"P{index}.pt", 0, 3, 1, split=split) for index, split in enumerate(splits)]
    archive = saved(tmp_path / "a.pt", packed({f"P{index}.pt": fact_times(8) for index in range(3)}))
    imported = run(archive, tmp_path / "out", write_csv(tmp_path / "m.csv", rows))
    found = {
        path.name.split(".")[0]: len(path.read_text().split()) for path in (tmp_path / "out").glob("splits/*.bundle")
    }
    assert found == bundles
    assert bool(bundles) != any("is not written" in note for note in imported.notes)


def test_float32_boundaries_move_slots_that_exact_ones_do_not(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact
    imported = run(archive, tmp_path / "exact", *manifests)
    run(archive, tmp_path / "float32", *manifests, boundaries="float32")
    exact, naive = open_dataset(tmp_path / "exact"), open_dataset(tmp_path / "float32")
    differing = {
        (name, round(float(time), 3))
        for name in exact.videos
        for time in exact.times(name)[exact.labels(name) != naive.labels(name)]
    }
    on_bounds = (1.2, 4.0, 3.0, 5.7, 2.0, 3.5, 4.5, 0.5, 2.5)
    rounded_down = {bound for bound in on_bounds if float(np.float32(bound)) < bound}
    assert differing == {("P02", 5.7)} and rounded_down == {5.7}
    assert imported.plan.counts["of them, slots that float32 puts before the bound"] == 1


def test_a_killed_import_goes_on_and_ends_with_the_same_bytes(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact

    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(archive, tmp_path / "out", *manifests, seen=stop)
    features = tmp_path / "out" / "features"
    assert [path.name for path in features.glob("*.npy")] == ["P01.npy"] and not (tmp_path / "out" / "splits").exists()
    assert open_dataset(tmp_path / "out").problems.notes == [
        "the command that wrote this folder was stopped; run it again to finish"
    ]
    written = (features / "P01.npy").stat().st_mtime_ns
    run(archive, tmp_path / "out", *manifests)
    run(archive, tmp_path / "once", *manifests)
    assert not open_dataset(tmp_path / "out").problems.notes
    assert (features / "P01.npy").stat().st_mtime_ns == written, "done is done"
    files = [path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*") if path.is_file()]
    assert len(files) > 12
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "once" / file).read_bytes()


def test_other_options_into_the_same_folder_are_refused(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact
    run(archive, tmp_path / "out", *manifests)
    for options, named in (({"boundaries": "float32"}, "'boundaries': 'exact'"), ({"half": True}, "'type': 'float32'")):
        with pytest.raises(InputError, match=rf"written with provenance .*{named}.*choose another folder"):
            run(archive, tmp_path / "out", *manifests, **options)
    with pytest.raises(InputError, match="choose another folder"):
        run(archive, tmp_path / "out", manifests[0])


def test_renamed_files_with_the_same_content_go_on(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact
    run(archive, tmp_path / "out", *manifests)
    (tmp_path / "moved").mkdir()
    moved = [Path(shutil.copy(file, tmp_path / "moved" / f"my {file.name}")) for file in fact]
    (tmp_path / "out" / "features" / "P02.npy").unlink()
    assert len(run(moved[0], tmp_path / "out", *moved[1:]).done) == 3
    moved[1].write_text(moved[1].read_text().replace("crack egg", "crack eggs"))
    with pytest.raises(InputError, match=r"written with provenance \{'manifests': .*choose another folder"):
        run(moved[0], tmp_path / "out", *moved[1:])


def test_the_advice_of_a_failed_import_can_be_followed(fact: tuple[Path, ...], tmp_path: Path) -> None:
    _, *manifests = fact
    payload = packed(VIDEOS)
    payload["tokens"][:, 2] = 1e6
    archive = saved(tmp_path / "large.pt", payload)
    with pytest.raises(InputError, match="too large for --half"):
        run(archive, tmp_path / "out", *manifests, half=True)
    assert len(run(archive, tmp_path / "out", *manifests).done) == 3, "without --half"
    payload["tokens"][3, 2] = torch.nan
    archive = saved(tmp_path / "nan.pt", payload)
    with pytest.raises(InputError, match="NaN"):
        run(archive, tmp_path / "nan", *manifests)
    run(archive, tmp_path / "nan", on_error="skip")
    folder = open_dataset(tmp_path / "nan")
    assert sorted(folder.videos) == ["P02", "P03"] and not folder.classes, "nothing is left of the first attempt"


def test_segments_without_slots_are_counted_and_those_outside_left_out_of_whole_videos(tmp_path: Path) -> None:
    rows = [
        egoprocel_row("P01.pt", 0.0, 3.0, 1),
        egoprocel_row("P01.pt", 3.05, 3.1, 2),
        egoprocel_row("P01.pt", 50, 60, 3),
    ]
    archive = saved(tmp_path / "a.pt", packed({"P01.pt": fact_times(20)}))
    manifest = write_csv(tmp_path / "m.csv", rows)
    without, beyond = "segments without a slot of their own, which got the nearest", "segments outside of their video"
    whole = run(archive, tmp_path / "whole", manifest)
    assert whole.plan.counts[without] == 1 and whole.plan.counts[f"{beyond}, left out"] == 1
    assert open_dataset(tmp_path / "whole").labels("P01").tolist() == [1] * 12 + [2] + [-100] * 7
    takes = run(archive, tmp_path / "takes", manifest, sequence="segments")
    assert takes.plan.counts[without] == 2
    assert open_dataset(tmp_path / "takes").labels("P01").tolist() == [1] * 12 + [2, 3], "as the authors do"


def test_nested_metadata_stands_in_the_provenance(tmp_path: Path) -> None:
    more = {"backbone": {"name": "plstitch", "sizes": [16, 224]}, "preprocessing": {"mean": [0.5, 0.5, 0.5]}}
    run(write_lemon(tmp_path / "lemon", {"a": 4}, **more), tmp_path / "out")
    metadata = json.loads((tmp_path / "out" / "store.json").read_text())["provenance"]["archive"]["metadata"]
    assert {key: metadata[key] for key in more} == more


def test_a_bad_video_stops_the_import_or_is_left_out_of_features_labels_and_splits(
    fact: tuple[Path, ...], tmp_path: Path
) -> None:
    _, *manifests = fact
    payload = packed(VIDEOS)
    payload["tokens"][25, 2] = torch.nan
    archive = saved(tmp_path / "bad.pt", payload)
    with pytest.raises(InputError, match=r"bad\.pt: 'P02\.pt' has NaN or infinite values in slot 5 of 'P02'") as error:
        run(archive, tmp_path / "raise", *manifests)
    assert "\n" not in str(error.value)
    assert not any(path.stem == "P02" for path in (tmp_path / "raise").rglob("*"))
    imported = run(archive, tmp_path / "skip", *manifests, on_error="skip")
    assert sorted(imported.done) == ["P01", "P03"]
    assert not any(path.stem == "P02" for path in (tmp_path / "skip").rglob("*"))
    assert (tmp_path / "skip" / "splits" / "train.split1.bundle").read_text() == "P01\n"


def test_bad_times_are_left_out_too_and_nothing_usable_is_refused(fact: tuple[Path, ...], tmp_path: Path) -> None:
    _, *manifests = fact
    payload = packed(VIDEOS)
    payload["times"][22] = torch.inf
    archive = saved(tmp_path / "bad.pt", payload)
    with pytest.raises(InputError, match=r"'P02\.pt' has the time inf in slot 2"):
        run(archive, tmp_path / "out", *manifests)
    assert not (tmp_path / "out").exists(), "found before anything is written"
    assert sorted(run(archive, tmp_path / "out", *manifests, on_error="skip").done) == ["P01", "P03"]
    payload["tokens"][:] = torch.inf
    with pytest.raises(InputError, match="none of the 4 videos can be used; the first: "):
        run(saved(tmp_path / "worse.pt", payload), tmp_path / "worse", on_error="skip", source_rate=Fraction(4))


def test_an_archive_of_empty_videos_is_refused(tmp_path: Path) -> None:
    archive = saved(tmp_path / "a.pt", packed({"a.pt": fact_times(0)}))
    with pytest.raises(InputError, match="none of the 1 videos can be used; the first: it has no slots"):
        run(archive, tmp_path / "out", source_rate=Fraction(4))
    assert not (tmp_path / "out").exists()


def test_missing_shards_stop_before_anything_is_written_or_cost_their_videos(tmp_path: Path) -> None:
    index = write_lemon(tmp_path / "lemon", dict.fromkeys("abcde", 8))
    (tmp_path / "lemon" / "pretrain" / "pretrain_00001.pt").unlink()
    with pytest.raises(InputError, match=r"pretrain_00001\.pt: no such shard \(1 are missing\)"):
        run(index, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(run(index, tmp_path / "out", on_error="skip").done) == ["a", "b", "e"]


def test_float16_archives_and_features_too_large_for_half(tmp_path: Path) -> None:
    archive = saved(tmp_path / "a.pt", packed({"v.pt": fact_times(9)}, dtype=torch.float16))
    run(archive, tmp_path / "out")
    stored = np.load(tmp_path / "out" / "features" / "v.npy")
    assert stored.dtype == np.float32 and np.array_equal(stored, torch.load(archive)["tokens"].float().numpy())
    payload = packed({"v.pt": fact_times(9)})
    payload["tokens"][4, 1] = 1e6
    with pytest.raises(InputError, match=r"too large for --half\) in slot 4"):
        run(saved(tmp_path / "b.pt", payload), tmp_path / "half", half=True)


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        (fact_times(4001), Fraction(4)),
        (regular_times(4001, 3.75), Fraction(15, 4)),
        (regular_times(3, 1), Fraction(1)),
        (regular_times(40_000, 30), Fraction(30)),
    ],
)
def test_the_rate_is_told_by_the_times_and_overridden_by_the_user(
    tmp_path: Path, times: np.ndarray, rate: Fraction
) -> None:
    archive = saved(tmp_path / "a.pt", packed({"a.pt": times, "b.pt": times[:1]}, width=2))
    assert run(archive, tmp_path / "out").timeline.rate == rate
    assert run(archive, tmp_path / "second", every=2).timeline.rate == rate / 2
    assert run(archive, tmp_path / "said", source_rate=Fraction(25)).timeline.rate == 25
    assert open_dataset(tmp_path / "said").has_times("a")


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_times_that_are_bad_in_every_video_are_what_is_said(tmp_path: Path, value: float) -> None:
    times = fact_times(6)
    times[3] = value
    archive = saved(tmp_path / "a.pt", packed({"a.pt": times, "b.pt": times}))
    for on_error in ("raise", "skip"):
        with pytest.raises(InputError, match=rf"a\.pt: 'a\.pt' has the time {value} in slot 3; times must be finite"):
            run(archive, tmp_path / "out", on_error=on_error)


def test_times_that_tell_no_rate_ask_for_one(tmp_path: Path) -> None:
    archive = saved(tmp_path / "a.pt", packed({"a.pt": fact_times(1)}))
    with pytest.raises(InputError, match=r"for example --source-rate 4"):
        run(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_become_plain_names_of_which_no_two_are_alike(tmp_path: Path) -> None:
    assert plain_names(["a/b.c.pt", "./d.pt", "e.f"], tmp_path) == ["a__b.c", "d", "e.f"]
    for paths, message in (
        (["a/b.pt", "a__b.pt"], r"'a/b\.pt' and 'a__b\.pt' have the same file name 'a__b'"),
        (["a.pt", "a.npy"], "have the same file name 'a'"),
        ([".hidden.pt"], "is not a valid file name"),
        (["a\nb.pt"], r"'a\\nb\.pt' is not a valid file name"),
        (["x" * 300 + ".pt"], r"'x+\.\.\. is too long for a file name"),
        ([" .pt"], "is not a valid file name"),
        ([".pt"], "is not a valid file name"),
    ):
        with pytest.raises(InputError, match=message):
            plain_names(paths, tmp_path)


def test_options_that_do_not_fit_are_refused_before_anything_is_written(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, train, _ = fact
    lemon = write_lemon(tmp_path / "lemon", {"a": 4})
    cholec = saved(tmp_path / "c.pt", surgical({"video01": regular_times(2, 1)}, [0, 1]))
    other = write_csv(tmp_path / "other.csv", [egoprocel_row("Q.pt", 0, 1, 1)])
    both = write_csv(tmp_path / "both.csv", [
        assembly_row("r", "v", 0, 1, 1), assembly_row("r", "v", 0, 1, 1, kind="disassembly", split="test"),
    ])  # fmt: skip
    assembly = saved(tmp_path / "assembly.pt", packed({"r/v.pt": fact_times(8)}))
    out = tmp_path / "out"
    for arguments, options, message in (
        ((archive, out), {"sequence": "segments"}, "needs --manifest"),
        ((archive, out, train), {"sequence": "takes"}, "unknown --sequence 'takes'; expected one of whole, segments"),
        ((archive, out, train), {"boundaries": "near"}, "unknown --boundaries 'near'; expected one of exact, float32"),
        ((archive, out), {"boundaries": "float32"}, "--boundaries float32 needs --manifest"),
        ((archive, out, train), {"every": 0}, "--every must be at least 1"),
        ((archive, out, train), {"background_limit": 5}, "needs --sequence segments"),
        ((archive, out, train), {"background_limit": -5, "sequence": "segments"}, "at least 0"),
        ((lemon, out, train), {}, "a sharded archive has no labels; remove --manifest"),
        ((cholec, out, train), {}, "a surgical archive has its own labels"),
        ((archive, out, other), {}, r"no video of the manifests, such as 'Q\.pt'; it has 'P01\.pt'"),
        ((archive, out, train, train), {}, "given twice"),
        ((assembly, out, both), {}, r"'r/v\.pt' is in test and in train of the manifests"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            run(*arguments, **options)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value) and not out.exists()
    imported = run(assembly, out, both, sequence="segments")
    assert imported.splits == {"1": {"train": 1, "valid": 0, "test": 1}}, "takes may be split where videos may not"


def test_oracle_models_see_the_true_segments_of_takes(fact: tuple[Path, ...], tmp_path: Path) -> None:
    archive, *manifests = fact
    run(archive, tmp_path / "out", *manifests, sequence="segments")
    folder = open_dataset(tmp_path / "out")
    torch.manual_seed(0)
    settings = {"attention": {"kind": "segment_causal"}, "positions": "segment", "live_attention": None}
    model = PJEPA(build(ModelConfig, {"input_dim": 4, "dim": 16, "depth": 2, "heads": 2}, settings)).eval()
    latents = dict(encode_videos(model, folder, ["P01"]))["P01"]

    def direct(lengths: list[int]) -> np.ndarray:
        features = torch.from_numpy(folder.features("P01"))[None]
        return model.encode(features, segment_lengths=torch.tensor([lengths]))[0].detach().numpy()

    np.testing.assert_allclose(latents, direct([8, 6, 4]), atol=1e-5)
    assert np.abs(latents - direct([8, 10])).max() > 1e-3, "runs of labels would be other segments"


def test_segments_that_no_kept_slot_shows_are_counted(tmp_path: Path) -> None:
    labels = [0, 0, 0, 1, 2, 2, 1, 1, 0, 2]
    archive = saved(tmp_path / "a.pt", surgical({"v1": regular_times(10, 1)}, labels))
    assert "v1: 2 of 6 segments are shorter than a slot and get none" in run(archive, tmp_path / "out", every=2).notes
    assert not [note for note in run(archive, tmp_path / "all").notes if "segments" in note]
