"""EgoProceL in both published layouts, with what their own readers lose."""

import json
from pathlib import Path

import numpy as np
import pytest
from trees import PROCEDURE, RECORDED, fact_tree

from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.problems import Problems
from keystep.data.tasks import find_tasks
from keystep.datasets.egoprocel import LISTS, EgoProceL, EgoProceLConfig
from keystep.datasets.egoprocel_csv import read_segments, step_key
from keystep.errors import InputError
from keystep.types import parse_rate


def config(**settings: object) -> EgoProceLConfig:
    return build(EgoProceLConfig, settings)


@pytest.mark.parametrize("final_newline", [True, False])
def test_facts_layout_becomes_a_native_folder_and_loses_no_last_line(tmp_path: Path, final_newline: bool) -> None:
    root = fact_tree(tmp_path, final_newline)
    survey = EgoProceL().survey(root)
    frames = sum(60 + 3 * index for index in range(6))
    segments = sum(length // 10 % 4 != 0 for index in range(6) for length in range(0, 60 + 3 * index, 10))
    assert survey.counts == {
        **{"train": 4, "test": 2, "classes": 4, "videos": 6},
        **{"frames": frames, "segments": segments},
    }
    assert survey.published["train"] == 731 and survey.published["test"] == 183 and not survey.missing
    assert "layout: FACT's" in survey.notes
    EgoProceL().write(root, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert folder.timeline.rate == 10 and folder.classes == PROCEDURE and set(folder.videos) == set(RECORDED)
    for name in RECORDED:
        stored = np.load(root / "egoprocel" / "features" / f"{name}.npy")
        assert np.array_equal(folder.features(name), stored)
        assert folder.frame_labels(name).tolist() == [slot // 10 % 4 for slot in range(len(stored))]
        assert not folder.has_times(name)
    split = folder.split("1")
    assert {*split.train, *split.valid} == set(RECORDED[:4]) and split.test == RECORDED[4:]


def test_counts_are_checked_against_the_list_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fact_tree(tmp_path, True)
    newer = EgoProceL(config(videos=423)).survey(root)
    assert {name: newer.published[name] for name in ("videos", "train", "test")} == LISTS[423]
    assert LISTS[423] == {"videos": 423, "train": 337, "test": 86}
    with pytest.raises(InputError, match="videos"):
        config(videos=100)
    monkeypatch.setitem(LISTS, 423, {"videos": 6, "train": 4, "test": 2})
    hint = "these are the 423 videos of the other published list; set videos=423 to compare with it"
    assert hint in EgoProceL().survey(root).notes
    found = EgoProceL(config(videos=423)).survey(root)
    assert found.differing == ("classes",) and hint not in found.notes


def test_thinned_to_the_papers_rate_each_slot_has_its_own_time(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    EgoProceL(config(rate=4)).write(root, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert folder.timeline.rate == 4
    times = folder.times("Head_5")
    assert np.allclose(times[:6], [0, 0.2, 0.5, 0.7, 1.0, 1.2]) and times[-1] < 6.6
    stored = np.load(root / "egoprocel" / "features" / "Head_5.npy")
    slots = np.rint(10 * times).astype(int)
    assert np.array_equal(folder.features("Head_5"), stored[slots])
    assert folder.labels("Head_5").tolist() == [slot // 10 % 4 for slot in slots]
    EgoProceL(config(rate=5)).write(root, tmp_path / "even", Problems())
    assert not open_dataset(tmp_path / "even").has_times("Head_5")
    with pytest.raises(InputError, match="rate 20: above that of the features on disk, 10 Hz"):
        EgoProceL(config(rate=20)).write(root, tmp_path / "up", Problems())


def test_transposed_arrays_are_told_by_the_labels(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    for path in (root / "egoprocel" / "features").iterdir():
        np.save(path, np.ascontiguousarray(np.load(path).T))
    EgoProceL().write(root, tmp_path / "out", Problems())
    assert open_dataset(tmp_path / "out").width == 7


def test_what_does_not_fit_is_one_line_and_can_be_skipped(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    (root / "egoprocel" / "features" / "0003.npy").unlink()
    np.save(root / "egoprocel" / "features" / "OP01-R03.npy", np.zeros((20, 7), dtype=np.float32))
    survey = EgoProceL().survey(root)
    assert [part.path.name for part in survey.leaving_out] == ["0003.npy", "OP01-R03.npy"] and not survey.lacking
    assert "20 frames of features" in survey.missing[1].damage and "72 labels" in survey.missing[1].damage
    with pytest.raises(InputError, match=r"OP01-R03.*20 frames of features .* but 72 labels"):
        EgoProceL().write(root, tmp_path / "out", Problems())
    problems = Problems(on_error="skip")
    EgoProceL().write(root, tmp_path / "out", problems)
    assert set(problems.skipped) == {"OP01-R03", "0003"}
    assert "20 frames of features" in problems.skipped["OP01-R03"] and "0003.npy: missing" in problems.skipped["0003"]
    assert set(open_dataset(tmp_path / "out").videos) == set(RECORDED) - {"OP01-R03", "0003"}


def test_a_class_that_mapping_lacks_is_named(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    path = root / "egoprocel" / "groundTruth" / "0003.txt"
    path.write_text(path.read_text().replace("whisk", "whisk eggs"))
    with pytest.raises(InputError, match=r"0003.txt, line 21: class 'whisk eggs' is not in mapping.txt"):
        EgoProceL().write(root, tmp_path / "out", Problems())


def test_what_is_missing_says_where_it_comes_from(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    for path in (root / "egoprocel" / "features").iterdir():
        path.unlink()
    (root / "egoprocel" / "features").rmdir()
    (root / "egoprocel" / "split1.train").unlink()
    (root / "egoprocel" / "split1.test").unlink()
    survey = EgoProceL().survey(root)
    assert {part.path.name for part in survey.missing} == {"features", "split1.train", "split1.test"}
    assert all("CVPR2024-FACT" in part.source and part.needed for part in survey.missing)
    with pytest.raises(InputError, match=r"features: missing; it comes from FACT's Google Drive"):
        EgoProceL().write(root, tmp_path / "out", Problems())
    with pytest.raises(InputError, match="neither FACT's layout"):
        EgoProceL().survey(tmp_path)
    with pytest.raises(InputError, match="no such folder; download EgoProceL from"):
        EgoProceL().survey(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["train", "test"])
def test_half_a_split_is_missing_and_counts_as_differing(tmp_path: Path, part: str) -> None:
    root = fact_tree(tmp_path)
    path = root / "egoprocel" / f"split1.{part}"
    path.unlink()
    survey = EgoProceL().survey(root)
    assert [missing.path for missing in survey.lacking] == [path] and part in survey.differing
    with pytest.raises(InputError, match=f"split1.{part}: missing; it comes from"):
        EgoProceL().write(root, tmp_path / "out", Problems(on_error="skip"))
    path.write_text("")
    assert "lists no video" in EgoProceL().survey(root).lacking[0].damage
    assert not (tmp_path / "out").exists()


def test_labels_that_are_missing_or_wrong_are_in_the_survey(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    labels = root / "egoprocel" / "groundTruth"
    (labels / "0003.txt").unlink()
    (labels / "Head_5.txt").write_text((labels / "Head_5.txt").read_text().replace("whisk", "whisk eggs"))
    survey = EgoProceL().survey(root)
    assert [part.path.name for part in survey.leaving_out] == ["0003.txt", "Head_5.npy"]
    assert "'whisk eggs' is not in mapping.txt" in survey.missing[1].damage and survey.counts["videos"] == 4
    problems = Problems(on_error="skip")
    EgoProceL().write(root, tmp_path / "out", problems)
    assert set(problems.skipped) == {"0003", "Head_5"}


def test_finished_videos_are_not_written_again(tmp_path: Path) -> None:
    root = fact_tree(tmp_path)
    EgoProceL().write(root, tmp_path / "out", Problems())
    path = tmp_path / "out" / "features" / "0003.npy"
    before = path.stat().st_mtime_ns
    (tmp_path / "out" / "features" / "Head_5.npy").unlink()
    EgoProceL().write(root, tmp_path / "out", Problems())
    assert path.stat().st_mtime_ns == before and "Head_5" in open_dataset(tmp_path / "out").videos
    with pytest.raises(InputError, match="choose another folder"):
        EgoProceL(config(rate=5)).write(root, tmp_path / "out", Problems())


ANNOTATIONS = {
    "CMU-MMAC/Brownie/S07_Brownie_Video/S07_Brownie_7150991-1431": "1.0,3.0,1 take the fork\n5.0,6.5,4 stir, slowly\n",
    "CMU-MMAC/Brownie/S08_Brownie_Video/S08_Brownie_7150991-1431": "0,2,1 Take the fork\n2,4,4 stir, slowly",
    "CMU-MMAC/Brownie/S09_Brownie_Video/S09_Brownie_7150991-1431": "0,2,1 take the fork\n",
    "EGTEA_Gaze+/BaconAndEggs/OP01-R03-BaconAndEggs": "0.5,2.25,1. crack the egg\n",
    "pc_assembly/Head_5": "0,1,1 open\n1,1.5,2 close\n",
    "pc_disassembly/Head_5": "0,1,1 open\n",
}


def csv_tree(root: Path, transposed: bool = False) -> Path:
    rng = np.random.default_rng(0)
    for index, (name, text) in enumerate(ANNOTATIONS.items()):
        for part in ("annotations", "features"):
            (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"{name}.csv").write_text(text)
        array = rng.normal(size=(32 + index, 5)).astype(np.float32)
        np.save(root / "features" / f"{name}.npy", array.T if transposed else array)
    return root


@pytest.mark.parametrize("transposed", [True, False])
def test_the_authors_annotations_label_slots_by_time(tmp_path: Path, transposed: bool) -> None:
    root = csv_tree(tmp_path / "tree", transposed)
    survey = EgoProceL(config(features_rate=4)).survey(root)
    assert survey.counts["tasks"] == 4 and survey.published == {"tasks": 16}
    assert survey.counts["classes"] == 1 + 2 + 1 + 2 + 1 and survey.counts["segments"] == 9
    EgoProceL(config(features_rate=4)).write(root, tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert folder.classes == (
        "background",
        "CMU-MMAC/Brownie/1 take the fork",
        "CMU-MMAC/Brownie/4 stir, slowly",
        "EGTEA_Gaze+/BaconAndEggs/1. crack the egg",
        "pc_assembly/1 open",
        "pc_assembly/2 close",
        "pc_disassembly/1 open",
    )
    name = "S07_Brownie_7150991-1431"
    expected = [1 if 1 <= slot / 4 < 3 else 2 if 5 <= slot / 4 < 6.5 else 0 for slot in range(32)]
    assert folder.labels(name).tolist() == expected
    record = json.loads((tmp_path / "out" / "features" / f"{name}.json").read_text())
    assert record["task"] == "CMU-MMAC/Brownie"
    tasks = find_tasks(folder, list(folder.videos))
    assert tasks["OP01-R03-BaconAndEggs"] == "EGTEA_Gaze+/BaconAndEggs" and len(set(tasks.values())) == 4


def test_two_videos_of_one_name_stay_two(tmp_path: Path) -> None:
    EgoProceL(config(features_rate=4)).write(csv_tree(tmp_path / "tree"), tmp_path / "out", Problems())
    folder = open_dataset(tmp_path / "out")
    assert {"pc_assembly_Head_5", "pc_disassembly_Head_5"} <= set(folder.videos)
    assert folder.length("pc_disassembly_Head_5") == 37


def test_the_split_of_the_csv_layout_is_ours_and_says_so(tmp_path: Path) -> None:
    root = csv_tree(tmp_path / "tree")
    assert any("split 1 is keystep's own" in note for note in EgoProceL().survey(root).notes)
    EgoProceL(config(features_rate=4)).write(root, tmp_path / "out", Problems())
    split = open_dataset(tmp_path / "out").split("1")
    assert len(split.test) == 1 and split.test[0].endswith("Brownie_7150991-1431")


def test_one_bad_file_of_the_csv_layout_costs_its_video_alone(tmp_path: Path) -> None:
    root = csv_tree(tmp_path / "tree")
    (root / "features" / "pc_assembly" / "Head_5.npy").write_bytes(b"no array")
    np.save(root / "features" / "pc_disassembly" / "Head_5.npy", np.zeros((30, 9), dtype=np.float32))
    brownie = "CMU-MMAC/Brownie/S08_Brownie_Video/S08_Brownie_7150991-1431"
    (root / "annotations" / f"{brownie}.csv").write_text("2,1,take\n")
    survey = EgoProceL(config(features_rate=4)).survey(root)
    said = {part.path.relative_to(root).as_posix(): part.damage for part in survey.leaving_out}
    assert "not a readable .npy array" in said["features/pc_assembly/Head_5.npy"]
    assert "width 9" in said["features/pc_disassembly/Head_5.npy"]
    assert "a segment from 2 to 1 s" in said[f"annotations/{brownie}.csv"] and len(said) == 3
    problems = Problems(on_error="skip")
    EgoProceL(config(features_rate=4)).write(root, tmp_path / "out", problems)
    assert set(problems.skipped) == {"pc_assembly_Head_5", "pc_disassembly_Head_5", Path(brownie).name}
    assert len(open_dataset(tmp_path / "out").videos) == 3
    with pytest.raises(InputError, match="a segment from 2 to 1 s"):
        EgoProceL(config(features_rate=4)).write(root, tmp_path / "again", Problems())


def test_a_rate_is_needed_where_nothing_tells_it(tmp_path: Path) -> None:
    root = csv_tree(tmp_path / "tree")
    assert any("features_rate is not set" in note for note in EgoProceL().survey(root).notes)
    with pytest.raises(InputError, match="set features_rate"):
        EgoProceL().write(root, tmp_path / "out", Problems())


def test_annotations_without_an_array_are_missing_and_named(tmp_path: Path) -> None:
    root = csv_tree(tmp_path / "tree")
    (root / "features" / "EGTEA_Gaze+" / "BaconAndEggs" / "OP01-R03-BaconAndEggs.npy").unlink()
    assert [part.path.stem for part in EgoProceL().survey(root).missing] == ["OP01-R03-BaconAndEggs"]
    with pytest.raises(InputError, match="no features for annotations/EGTEA_Gaze"):
        EgoProceL(config(features_rate=4)).write(root, tmp_path / "out", Problems())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1.0,2.0\n", "line 1: '1.0,2.0' is not 'start,end,key-step'"),
        ("1.0,2.0,1 cut\nx,3,2 fry\n", "line 2: 'x' to '3' are not seconds"),
        ("3,2,1 cut\n", "line 1: a segment from 3 to 2 s"),
        ("nan,2,1 cut\n", "line 1: a segment from nan"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_segments(tmp_path / "x.csv")


def test_key_steps_go_by_their_number() -> None:
    assert step_key("4 stir") == step_key("4. Stir it") == step_key("04 stir") == "4"
    assert step_key("Stir  it") == "stir it"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InputError, match="unknown setting layot"):
        config(layot="csv")
    assert config(features_rate="29.97").features_rate == parse_rate("29.97")
