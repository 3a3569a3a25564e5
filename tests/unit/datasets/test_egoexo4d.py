"""EgoExo4D's keysteps in the tree that its downloader leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from takes import LABELS, SEGMENTS, TAKES, UIDS, egoexo4d, write_benchmark, write_features, write_takes

from keystep.config.base import build
from keystep.data.annotation import IGNORED
from keystep.data.clips import read_clips
from keystep.data.folder import open_dataset
from keystep.data.problems import Problems
from keystep.datasets.egoexo4d import EgoExo4D, EgoExo4DConfig
from keystep.errors import InputError
from keystep.evals.probe import ProbeConfig
from keystep.evals.trimmed import classify_clips, judge_clips, raw_frames, submission


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return egoexo4d(tmp_path / "tree")


def test_the_official_tree_becomes_a_folder_with_clips(tree: Path, tmp_path: Path) -> None:
    survey = EgoExo4D().survey(tree)
    assert survey.counts["train clips"] == 6 and survey.counts["val clips"] == 3 and survey.counts["test clips"] == 3
    assert survey.published == {"classes": 278, "train clips": 14_326, "val clips": 4_517} and not survey.missing
    EgoExo4D().write(tree, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert folder.classes == ("Stir the mixture", "Read the instructions", "Unbox package")
    assert folder.timeline.to_json() == {"rate": "15/8", "start": "8/15", "window": "16/15", "alignment": "center"}
    split = folder.split("1")
    assert {*split.train, *split.valid} == set(TAKES[:2]) and split.test == (TAKES[2],)
    times, labels = folder.times(TAKES[0]), folder.labels(TAKES[0])
    slow = [
        next((LABELS[step] for start, end, step in SEGMENTS if start <= time < end), IGNORED) for time in times.tolist()
    ]
    assert labels.tolist() == slow and {2, 1, IGNORED} == set(slow)
    clips = read_clips(tmp_path / "out" / "clips.json", len(folder.classes))
    assert [clip.part for clip in clips] == ["train"] * 6 + ["test"] * 3 + ["hidden"] * 3
    first = clips[0]
    assert (first.take, first.start, first.end, first.label) == (TAKES[0], 0.85598, 33.20377, 2)
    assert first.name.endswith("start0.85598_end33.20377_aria02_214-1.mp4") and first.take_uid == UIDS[0]
    assert clips[-1].label is None and folder.video(TAKES[3]).labels is None
    stored = torch.load(tree / "features" / "omnivore_video" / f"{UIDS[1]}_aria02_rgb.pt", weights_only=True)
    assert np.array_equal(folder.features(TAKES[1]), stored.numpy())
    record = json.loads((tmp_path / "out" / "features" / f"{TAKES[0]}.json").read_text())
    assert record["take_uid"] == UIDS[0] and record["task"] == "Covid-19 Rapid Antigen Test"


def test_what_was_written_can_be_judged_and_submitted(tree: Path, tmp_path: Path) -> None:
    EgoExo4D().write(tree, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    clips = read_clips(tmp_path / "out" / "clips.json", len(folder.classes))
    probe = ProbeConfig(penalties=(0.01,))
    results = judge_clips(folder, clips, folder.split("1"), raw_frames, config=probe)
    assert {context: len(found.clips) for context, found in results.items()} == {"take": 3, "clip": 3}
    assert all(0 <= found.top1 <= 100 for found in results.values())
    hidden = [clip for clip in clips if clip.part == "hidden"]
    result = classify_clips(folder, hidden, lambda features: features[:, :3], context="take")
    path = tree / "keystep_benchmark" / "keystep_segment_test_unannotated.json"
    asked, given = json.loads(path.read_text())["segments"], submission(result)["segments"]
    assert [segment["ego_segment_name"] for segment in given] == [segment["ego_segment_name"] for segment in asked]
    assert all(segment["label_id"] in range(3) for segment in given)


def test_without_the_benchmarks_files_classes_are_ours_and_the_note_says_so(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_takes(root)
    write_features(root)
    preparer = EgoExo4D(build(EgoExo4DConfig, {"least_clips": 4}))
    survey = preparer.survey(root)
    assert survey.counts["classes"] == 1 and survey.counts["train clips"] == 4  # 843 occurs six times, 824 three
    assert [part.path.name for part in survey.missing if not part.leaves_out] == ["label_mapping.csv"]
    assert not survey.lacking
    assert any("numbered by keystep" in note for note in survey.notes)
    preparer.write(root, tmp_path / "out", Problems(on_error="skip"))
    assert open_dataset(tmp_path / "out").classes == ("Unbox package",)


@pytest.mark.parametrize("by", ["uid", "name"])
def test_arrays_of_ones_own_in_either_orientation(tmp_path: Path, by: str) -> None:
    root = tmp_path / "tree"
    write_takes(root)
    write_benchmark(root / "annotations" / "keystep_benchmark")
    (root / "features").mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for index, (uid, name) in enumerate(zip(UIDS, TAKES, strict=True)):
        arrays[name] = rng.normal(size=(260 + index, 6)).astype(np.float32)
        np.save(root / "features" / f"{uid if by == 'uid' else name}.npy", arrays[name].T)
    assert any("features_rate is not set" in note for note in EgoExo4D().survey(root).notes)
    with pytest.raises(InputError, match="set features_rate"):
        EgoExo4D().write(root, tmp_path / "out", Problems())
    EgoExo4D(build(EgoExo4DConfig, {"features_rate": 4})).write(root, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert folder.timeline.rate == 4 and all(np.array_equal(folder.features(name), arrays[name]) for name in TAKES)


def test_a_take_without_features_takes_its_clips_along(tree: Path, tmp_path: Path) -> None:
    (tree / "features" / "omnivore_video" / f"{UIDS[1]}_aria02_rgb.pt").unlink()
    (part,) = EgoExo4D().survey(tree).missing
    assert part.path == tree / "features" / "omnivore_video" / f"{UIDS[1]}_aria*_rgb.pt" and part.leaves_out
    with pytest.raises(InputError, match=f"{TAKES[1]}: no array {UIDS[1]}"):
        EgoExo4D().write(tree, tmp_path / "out", Problems())
    problems = Problems(on_error="skip")
    EgoExo4D().write(tree, tmp_path / "out", problems)
    assert len(read_clips(tmp_path / "out" / "clips.json")) == 9
    assert any("3 of 12 clips are left out" in note for note in problems.notes)


def test_a_wrong_rate_shows_as_keysteps_after_the_end(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"slots end at .* a keystep starts at .*check features_rate"):
        EgoExo4D(build(EgoExo4DConfig, {"features_rate": 30})).write(tree, tmp_path / "out", Problems())


def test_code_in_a_torch_file_is_never_run(tree: Path, tmp_path: Path) -> None:
    path = tree / "features" / "omnivore_video" / f"{UIDS[0]}_aria02_rgb.pt"
    torch.save({"features": torch.zeros(130, 6)}, path)
    with pytest.raises(InputError, match="contains a dict; expected a tensor"):
        EgoExo4D().write(tree, tmp_path / "out", Problems())
    torch.save(EgoExo4DConfig(), path)
    with pytest.raises(InputError, match="more than plain tensors"):
        EgoExo4D().write(tree, tmp_path / "out", Problems())


def test_a_damaged_array_is_in_the_survey_and_costs_its_take_alone(tree: Path, tmp_path: Path) -> None:
    path = tree / "features" / "omnivore_video" / f"{UIDS[1]}_aria02_rgb.pt"
    path.write_bytes(b"no tensor")
    survey = EgoExo4D().survey(tree)
    assert [part.path for part in survey.leaving_out] == [path] and str(path) in survey.missing[0].damage
    assert survey.counts["takes with features"] == 3
    problems = Problems(on_error="skip")
    EgoExo4D().write(tree, tmp_path / "out", problems)
    assert list(problems.skipped) == [TAKES[1]] and len(open_dataset(tmp_path / "out").videos) == 3


def test_a_missing_array_of_ones_own_is_named_like_the_others(tmp_path: Path) -> None:
    write_takes(tmp_path)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / f"{TAKES[0]}.npy", np.zeros((130, 6), dtype=np.float32))
    survey = EgoExo4D(build(EgoExo4DConfig, {"features_rate": 2, "time_axis": 0, "least_clips": 1})).survey(tmp_path)
    assert [part.path.name for part in survey.leaving_out] == [f"{TAKES[1]}.npy", f"{TAKES[2]}.npy"]


def test_keysteps_that_overlap_are_counted(tree: Path, tmp_path: Path) -> None:
    path = tree / "keystep_benchmark" / "keystep_segment_train.json"
    record = json.loads(path.read_text())
    record["segments"][1]["start_time"] = 30.0
    path.write_text(json.dumps(record))
    problems = Problems()
    EgoExo4D().write(tree, tmp_path / "out", problems)
    times = open_dataset(tmp_path / "out").times(TAKES[0])
    both = int(((times >= 30) & (times < 33.20377)).sum())
    assert f"{TAKES[0]}: keysteps overlap in {both} slots; the one that starts later is used" in problems.notes


def test_a_number_of_clips_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="least_clips: Input should be greater than or equal to 1, not -3"):
        build(EgoExo4DConfig, {"least_clips": -3})


def test_two_arrays_of_one_take_are_refused(tree: Path) -> None:
    np.save(tree / "features" / f"{TAKES[0]}.npy", np.zeros((130, 6), dtype=np.float32))
    with pytest.raises(InputError, match=f"is of the same take {TAKES[0]}"):
        EgoExo4D().survey(tree)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label_id": 99}, "label_id 99 is not in label_mapping.csv"),
        ({"label_id": 1}, "step 843 has label 1 here and another"),
        ({"end_time": 0.1}, "a segment from 0.85598 to 0.1 s"),
        ({"start_time": None}, "None to 33.20377 are not seconds"),
        ({"take_name": "../elsewhere"}, "'../elsewhere' is not the name of a take"),
    ],
)
def test_a_broken_clip_is_named(tree: Path, change: dict[str, Any], problem: str) -> None:
    path = tree / "keystep_benchmark" / "keystep_segment_train.json"
    record = json.loads(path.read_text())
    record["segments"][0] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"keystep_segment_train.json, segment 0: {problem}"):
        EgoExo4D().survey(tree)


def test_an_empty_tree_says_what_to_download(tmp_path: Path) -> None:
    survey = EgoExo4D().survey(tmp_path)
    assert {part.path.name for part in survey.missing if part.needed} >= {"keystep_train.json", "keystep_val.json"}
    assert all("egoexo -o DIR" in part.source for part in survey.missing)
    with pytest.raises(InputError, match=r"keystep_train.json: missing; it comes from ego-exo4d-data.org"):
        EgoExo4D().write(tmp_path, tmp_path / "out", Problems())
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "keystep_train.json").write_text('{"videos": []}')
    with pytest.raises(InputError, match="has no 'annotations' by take"):
        EgoExo4D().survey(tmp_path)


def test_a_table_of_clips_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.json"
    path.write_text('{"format": "other"}')
    with pytest.raises(InputError, match="not a table of clips"):
        read_clips(path)
    row = {"take": "a", "start": 0.0, "end": 1.0, "label": 5, "part": "train"}
    path.write_text(json.dumps({"format": "keystep-clips", "version": 1, "clips": [row]}))
    assert read_clips(path)[0].label == 5
    with pytest.raises(InputError, match=r"clip 0: .* is not a clip"):
        read_clips(path, classes=3)


def test_participants_of_takes_json_are_groups(tree: Path, tmp_path: Path) -> None:
    persons = [7, 7, None, 9]
    takes = [
        {"take_uid": uid, "take_name": name, "participant_uid": person, "capture_uid": "c1"}
        for uid, name, person in zip(UIDS, TAKES, persons, strict=True)
    ]
    (tree / "takes.json").write_text(json.dumps(takes))
    survey = EgoExo4D().survey(tree)
    assert "1 takes name no participant; their recording session is used instead" in survey.notes
    EgoExo4D().write(tree, tmp_path / "out", Problems())
    groups = open_dataset(tmp_path / "out").groups
    assert groups == dict(zip(TAKES, ["participant 7", "participant 7", "session c1", "participant 9"], strict=True))
    (tree / "takes.json").write_text(json.dumps(takes[1:]))
    with pytest.raises(InputError, match=rf"takes\.json: no take {UIDS[0]} \({TAKES[0]}\); download the file again"):
        EgoExo4D().survey(tree)
    for broken in ("[", "{}", '[{"take": 1}]', "[1]"):
        (tree / "takes.json").write_text(broken)
        with pytest.raises(InputError, match=r"takes\.json: (not a list of takes|no take)"):
            EgoExo4D().survey(tree)


def test_without_takes_json_persons_are_not_known_and_a_note_says_where_they_come_from(
    tree: Path, tmp_path: Path
) -> None:
    assert any("persons are not known without" in note for note in EgoExo4D().survey(tree).notes)
    EgoExo4D().write(tree, tmp_path / "out", Problems())
    assert open_dataset(tmp_path / "out").groups is None
