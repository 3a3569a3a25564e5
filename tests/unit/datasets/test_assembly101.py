"""Assembly101 from trees in the published layout, frame for frame."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from trees import ACTIONS, RECORDINGS, assembly101, frame_features, write_arrays, write_coarse, write_views

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.mistakes import Mistake, read_mistakes
from keystep.data.problems import Problems
from keystep.datasets.coarse_annotations import read_segments
from keystep.datasets.frame_features import open_features
from keystep.datasets.registry import preparer
from keystep.errors import InputError
from keystep.reading import read_lines

FRAMES = 150
LENGTHS = dict.fromkeys(RECORDINGS, FRAMES)
VIEW = "C10119_rgb"


def written(root: Path, out: Path, on_error: str = "raise", **options: Any) -> tuple[FeatureFolder, Problems]:
    problems = Problems(on_error)  # type: ignore[arg-type]
    preparer("assembly101", options).write(root, out, problems)
    return open_dataset(out), problems


@pytest.fixture
def arrays(tmp_path: Path) -> tuple[Path, dict[str, list[tuple[int, int, str]]]]:
    """Features as arrays, which need no other package."""
    root = tmp_path / "download"
    segments = assembly101(root, FRAMES)
    write_arrays(root, [VIEW], LENGTHS)
    return root, segments


@pytest.fixture
def lmdb_root(tmp_path: Path) -> Path:
    pytest.importorskip("lmdb", reason="the extra 'data' is not installed")
    root = tmp_path / "download"
    assembly101(root, FRAMES)
    write_views(root, [VIEW, "C10095_rgb"], LENGTHS)
    return root


def frames_of(segments: list[tuple[int, int, str]]) -> list[tuple[int, str]]:
    """(frame, action) of every labelled frame, one by one."""
    return [(frame, action) for start, end, action in segments for frame in range(start, end)]


def test_every_eighth_frame_keeps_its_features_label_and_moment(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, segments = arrays
    folder, _ = written(root, tmp_path / "out")
    assert folder.timeline.rate * 8 == 30 and folder.classes == ACTIONS and folder.width == 2048
    assert set(folder.videos) == {name for name in segments if RECORDINGS[5] not in name}, "test labels are withheld"
    for name in folder.videos:
        recording = name.split("_", 1)[1]
        kept = frames_of(segments[name])[::8]
        expected = frame_features(recording, VIEW, range(FRAMES))[[frame for frame, _ in kept]]
        assert np.array_equal(folder.features(name), expected)
        assert [folder.classes[label] for label in folder.labels(name)] == [action for _, action in kept]
        assert np.array_equal(folder.times(name), [frame / 30 for frame, _ in kept])


def test_averaged_slots_are_means_with_the_most_frequent_label(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, segments = arrays
    folder, _ = written(root, tmp_path / "out", how="average", every=5, half=True)
    for name in folder.videos:
        recording = name.split("_", 1)[1]
        features = frame_features(recording, VIEW, range(FRAMES))
        own = frames_of(segments[name])
        for slot, start in enumerate(range(0, len(own), 5)):
            frames, actions = zip(*own[start : start + 5], strict=True)
            assert np.allclose(folder.features(name)[slot], features[list(frames)].mean(axis=0), atol=2e-2, rtol=1e-3)
            most = max(Counter(actions).values())
            assert Counter(actions)[folder.classes[folder.labels(name)[slot]]] == most
            assert folder.times(name)[slot] == pytest.approx(np.mean(frames) / 30)
        assert sum(folder.segment_lengths(name)) == folder.length(name)


def test_lmdb_and_arrays_of_the_same_features_give_the_same_folder(lmdb_root: Path, tmp_path: Path) -> None:
    """Frames in LMDB begin at 1, columns of an array at 0: numbers are what counts."""
    other = tmp_path / "arrays"
    assembly101(other, FRAMES)
    for recording in RECORDINGS:
        place = other / "TSM_features" / recording / VIEW
        place.mkdir(parents=True)
        np.save(place / "features.npy", frame_features(recording, VIEW, range(1, FRAMES + 1)).T)
    for options in ({"every": 8}, {"every": 4, "how": "average"}):
        name = f"{options['every']}"
        first, _ = written(lmdb_root, tmp_path / f"lmdb-{name}", **options)
        second, _ = written(other, tmp_path / f"npy-{name}", first_frame=1, **options)
        assert first.fingerprint() == second.fingerprint()
        video = next(iter(first.videos))
        assert np.array_equal(first.times(video), second.times(video))


def test_all_views_become_videos_of_their_own_and_stay_on_one_side(lmdb_root: Path, tmp_path: Path) -> None:
    folder, _ = written(lmdb_root, tmp_path / "out", view="all")
    assert len(folder.videos) == 5 * 2 * 2
    split = folder.split("1")
    assert split.valid and all(RECORDINGS[4] in name for name in split.test)
    sides = [{name.split("_", 1)[1].rpartition("_C")[0] for name in split.part(part)} for part in ("train", "valid")]
    assert not sides[0] & sides[1], "a recording's takes and views are either trained on or chosen by"
    views = {name.rpartition("_user_id_")[2].split("_", 2)[2] for name in folder.videos}
    assert views == {VIEW, "C10095_rgb"}


def test_the_survey_counts_and_names_what_is_missing(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]],
) -> None:
    root, segments = arrays
    survey = preparer("assembly101", {}).survey(root)
    assert not survey.missing
    labelled = [own for name, own in segments.items() if RECORDINGS[5] not in name]
    assert survey.counts == {
        "classes": 4,
        "training videos": 8,
        "validation videos": 2,
        "recordings": 5,
        "segments": sum(map(len, labelled)),
        "labelled frames at 30 Hz": sum(own[-1][1] - own[0][0] for own in labelled),
    }
    assert survey.published == {"classes": 202, "training videos": 393, "validation videos": 120}
    assert set(survey.differing) == set(survey.published)
    (root / "coarse-annotations" / "actions.csv").unlink()
    for path in (root / "TSM_features").glob("*/*/features.npy"):
        path.unlink()
    survey = preparer("assembly101", {}).survey(root)
    assert [part.path.name for part in survey.lacking] == ["actions.csv", "TSM_features"]
    assert "assembly101-annotations" in survey.lacking[0].source


def test_an_empty_folder_lacks_annotations_and_features_and_nothing_is_written(tmp_path: Path) -> None:
    survey = preparer("assembly101", {}).survey(tmp_path)
    assert [part.path.name for part in survey.lacking] == ["coarse-annotations", "TSM_features"]
    with pytest.raises(InputError, match=r"coarse-annotations: missing; it comes from"):
        written(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_lists_of_the_test_part_are_not_needed(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]],
) -> None:
    root, _ = arrays
    for path in (root / "coarse-annotations" / "coarse_splits").glob("*_coarse_assembly.txt"):
        path.unlink()
    survey = preparer("assembly101", {}).survey(root)
    assert [part.path.name for part in survey.lacking] == ["train_coarse_assembly.txt", "val_coarse_assembly.txt"]
    assert len(survey.missing) == 3 and survey.counts["training videos"] == 4


def test_the_challenge_part_is_written_without_labels_and_in_no_split(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, _ = arrays
    folder, _ = written(root, tmp_path / "out", challenge=True)
    unlabelled = {name for name, video in folder.videos.items() if video.labels is None}
    assert unlabelled == {f"{kind}_{RECORDINGS[5]}" for kind in ("assembly", "disassembly")}
    split = folder.split("1")
    assert not unlabelled & {*split.train, *split.valid, *split.test}


def test_features_that_end_early_cut_the_labels_and_say_so(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, segments = arrays
    for recording, length in ((RECORDINGS[0], 120), (RECORDINGS[1], 60)):
        path = root / "TSM_features" / recording / VIEW / "features.npy"
        np.save(path, frame_features(recording, VIEW, range(length)).T)
    folder, problems = written(root, tmp_path / "out", every=1)
    assert folder.length(f"disassembly_{RECORDINGS[0]}") == 120 - segments[f"disassembly_{RECORDINGS[0]}"][0][0]
    assert f"disassembly_{RECORDINGS[1]}" not in folder.videos
    said = " ".join(problems.notes)
    assert "1 takes left out, with features that end before the first step" in said
    assert "2 takes have labels beyond their features" in said


def test_gaps_are_unlabelled_and_neighbours_of_one_action_stay_two_segments(tmp_path: Path) -> None:
    root = tmp_path / "download"
    own = [(2, 10, ACTIONS[1]), (10, 10, ACTIONS[0]), (10, 20, ACTIONS[1]), (25, 31, ACTIONS[2])]
    names = [f"assembly_{recording}" for recording in RECORDINGS[:3]]
    write_coarse(root, dict.fromkeys(names, own), dict(zip(names, ("train", "train", "val"), strict=True)))
    write_arrays(root, [VIEW], dict.fromkeys(RECORDINGS[:3], 40))
    folder, _ = written(root, tmp_path / "out", every=1)
    assert folder.labels(names[0]).tolist() == [1] * 18 + [-100] * 5 + [2] * 6
    assert folder.segment_lengths(names[0]) == [8, 10, 5, 6]


def test_a_run_that_was_stopped_goes_on_and_bad_takes_can_be_skipped(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, _ = arrays
    path = root / "TSM_features" / RECORDINGS[2] / VIEW / "features.npy"
    good = np.load(path)
    bad = good.copy()
    bad[7, 5:] = np.nan
    np.save(path, bad)
    with pytest.raises(InputError, match=f"assembly_{RECORDINGS[2]}"):
        written(root, tmp_path / "out")
    assert any("was stopped" in note for note in open_dataset(tmp_path / "out").problems.notes)
    first = next((tmp_path / "out" / "features").glob("*.npy"))
    before = first.stat().st_mtime_ns
    folder, problems = written(root, tmp_path / "out", "skip")
    assert set(problems.skipped) == {f"{kind}_{RECORDINGS[2]}" for kind in ("assembly", "disassembly")}
    assert first.stat().st_mtime_ns == before and not folder.problems.notes
    assert not any(RECORDINGS[2] in name for name in (*folder.split("1").train, *folder.split("1").valid))
    np.save(path, good)
    folder, _ = written(root, tmp_path / "out")
    assert len(folder.videos) == 10
    with pytest.raises(InputError, match="written with"):
        written(root, tmp_path / "out", every=4)


def test_a_bad_array_or_a_missing_label_file_costs_its_take_alone(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, _ = arrays
    array = root / "TSM_features" / RECORDINGS[2] / VIEW / "features.npy"
    array.write_bytes(b"no array")
    labels = root / "coarse-annotations" / "coarse_labels" / f"assembly_{RECORDINGS[0]}.txt"
    labels.unlink()
    survey = preparer("assembly101", {}).survey(root)
    takes = [f"assembly_{RECORDINGS[2]}", f"disassembly_{RECORDINGS[2]}"]
    assert [part.path.name for part in survey.leaving_out] == [labels.name, *takes] and not survey.lacking
    assert "assembly101-annotations" in survey.missing[0].source and str(array) in survey.missing[1].damage
    with pytest.raises(InputError, match="missing, though the train split lists it; it comes from github"):
        written(root, tmp_path / "out")
    folder, problems = written(root, tmp_path / "out", "skip")
    assert set(problems.skipped) == {labels.stem, *takes} and len(folder.videos) == 10 - 3
    assert not any("without features" in note for note in problems.notes)


def test_the_wrong_view_is_named_with_those_that_are_there(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, _ = arrays
    with pytest.raises(InputError, match="no features of view 'C10118' among C10119_rgb; did you mean C10119_rgb"):
        written(root, tmp_path / "out", view="C10118")
    with pytest.raises(InputError, match=r"unknown setting vieuw \(did you mean view\?\)"):
        preparer("assembly101", {"vieuw": "all"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("12\tattach cabin", "line 2: '12.tattach cabin' is not 'start <tab> end <tab> action'"),
        ("30\t20\tattach cabin", "is not 'start"),
        ("5\t20\tattach cabin", "line 2: starts at frame 5, before the previous segment ends"),
        ("10\t20\tattach cabinet", "action 'attach cabinet' is not in actions.csv"),
    ],
)
def test_a_bad_segment_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(f"0\t10\tattach cabin\n{line}")
    with pytest.raises(InputError, match=said):
        read_segments(path, ACTIONS, withheld=False)


def test_the_frames_of_a_recording_in_lmdb_are_found_wherever_its_keys_lie(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason="the extra 'data' is not installed")
    lengths = {recording: 9 + 2 * number for number, recording in enumerate(RECORDINGS[:4])}
    write_views(tmp_path, [VIEW], lengths, first=8)
    with open_features(tmp_path / "TSM_features") as features:
        for recording, length in lengths.items():
            assert features.span(recording, VIEW) == (8, 8 + length)
            assert features.read(recording, VIEW, [8, 7 + length])[:, 2].tolist() == [8, 7 + length]
        assert features.span(RECORDINGS[5], VIEW) is None and features.span(RECORDINGS[0][:-1], VIEW) is None


def test_a_hole_or_a_short_value_in_lmdb_is_named_by_its_key(lmdb_root: Path, tmp_path: Path) -> None:
    import lmdb

    key = f"{RECORDINGS[0]}/{VIEW}/{VIEW}_{5 + 16:010d}.jpg".encode()
    for value, said in ((b"12345678", "has 8 bytes, not 8192"), (None, "is missing")):
        environment = lmdb.open(str(lmdb_root / "TSM_features" / VIEW), map_size=1 << 28)
        with environment.begin(write=True) as transaction:
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)
        environment.close()
        with pytest.raises(InputError, match=said):
            written(lmdb_root, tmp_path / "out")


def test_a_file_that_is_no_lmdb_is_refused_in_one_line(lmdb_root: Path, tmp_path: Path) -> None:
    (lmdb_root / "TSM_features" / VIEW / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="not a readable LMDB environment"):
        written(lmdb_root, tmp_path / "out")


def test_lmdb_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly101(tmp_path)
    (tmp_path / "TSM_features" / VIEW).mkdir(parents=True)
    (tmp_path / "TSM_features" / VIEW / "data.mdb").touch()
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(InputError, match=r"install it with: pip install 'keystep\[data\]'"):
        preparer("assembly101", {}).survey(tmp_path)


def test_splits_list_names_whole(arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path) -> None:
    root, _ = arrays
    written(root, tmp_path / "out")
    listed = [line for path in (tmp_path / "out" / "splits").glob("*.bundle") for line in read_lines(path)]
    assert sorted(listed) == sorted(path.stem for path in (tmp_path / "out" / "features").glob("*.npy"))


def test_persons_are_in_the_names_of_recordings_and_none_trains_and_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings 0 and 1 are of one person here, 2 and 3 of another, 4 and 5 of a third."""
    pairs = tuple(name.replace(f"_90{10 + i}_user", f"_90{10 + i // 2}_user") for i, name in enumerate(RECORDINGS))
    monkeypatch.setattr(trees, "RECORDINGS", pairs)
    assembly101(tmp_path / "in", FRAMES)
    write_arrays(tmp_path / "in", [VIEW], dict.fromkeys(pairs, FRAMES))
    folder, problems = written(tmp_path / "in", tmp_path / "out")
    assert folder.groups is not None and set(folder.groups.values()) == {"9010", "9011", "9012"}
    assert all(f"_{person}_user_id_" in name for name, person in folder.groups.items())
    split = folder.split("1")
    assert len(split.valid) == len(split.train) == 4, "two recordings of a person, two takes each"
    assert not {folder.groups[name] for name in split.train} & {folder.groups[name] for name in split.valid}
    assert not any("persons" in note for note in problems.notes)
    monkeypatch.setattr("keystep.datasets.assembly101.PERSON", "(S[0-9]+)")
    folder, problems = written(tmp_path / "in", tmp_path / "other")
    assert folder.groups is None and any("persons are not known" in note for note in problems.notes)
    assert len(folder.split("1").valid) == 2, "one recording, as without persons"


def test_mistake_labels_stand_beside_the_assemblies_and_give_a_split_for_one_class(
    arrays: tuple[Path, dict[str, list[tuple[int, int, str]]]], tmp_path: Path
) -> None:
    root, segments = arrays
    folder = root / "assembly101-mistake-detection" / "annots"
    folder.mkdir(parents=True)
    wrong = RECORDINGS[0]
    for recording in RECORDINGS:
        first, *rest = segments[f"assembly_{recording}"]
        lines = [f"{first[0]},{first[1]},attach,wheel,chassis,correct,"]
        if recording == wrong:
            start, end, _ = rest[0]
            lines += [f"{start},{end},attach,cabin,chassis, mistake ,wrong order"]
            lines += [f"{rest[1][0]},{rest[1][1]},detach,cabin,chassis,correction"]
        (folder / f"{recording}.csv").write_text("\n".join(lines) + "\n\n")
    data, _ = written(root, tmp_path / "out", every=1)
    name = f"assembly_{wrong}"
    begin = segments[name][0][0]
    (_, _, _), (start, end, _), (again, stop, _), *_ = segments[name]
    assert read_mistakes(data, name) == [
        Mistake(start - begin, end - begin, "wrong order", "attach cabin chassis"),
        Mistake(again - begin, stop - begin, "correction", "detach cabin chassis"),
    ]
    assert read_mistakes(data, f"assembly_{RECORDINGS[1]}") == []
    split = data.split("correct")
    for video in (*split.train, *split.valid):
        assert read_mistakes(data, video) == []
    assert all(read_mistakes(data, video) is not None for video in split.test)
    (folder / f"{wrong}.csv").write_text("1,2,attach,cabin,chassis,perfect,\n")
    with pytest.raises(InputError, match="line 1: 'perfect' from frame 1 to 2"):
        written(root, tmp_path / "other")
