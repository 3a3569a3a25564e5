"""What is judged with groups: intervals draw them, notes say so, and persons on both sides are told of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from two_classes import write_data

import keystep
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.errors import InputError
from keystep.evals.entrants import check_models, open_judge, reserved
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.heads import TrainingConfig

QUICK = EvalConfig(probe=ProbeConfig(penalties=(0.01,)), training=TrainingConfig(epochs=1), seeds=1)
TWO = {"v5": "b", "v6": "b", "v7": "c"}
"""Persons of the three test videos; those of training are all "a", that of validation is "d"."""


def opened(root: Path, test: dict[str, str], train: str = "a", valid: str = "d") -> Any:
    """The folder with ``splits/groups.csv``; split 1 trains on v0 to v3, chooses by v4, tests on v5 to v7."""
    groups = {**dict.fromkeys(("v0", "v1", "v2", "v3"), train), "v4": valid, **test}
    if not root.exists():
        write_data(root)
    lines = [f"{video},{group}\n" for video, group in groups.items()]
    (root / "splits" / "groups.csv").write_text("video,group\n" + "".join(lines))
    return keystep.open_dataset(root, source_rate=4, rate=2)


def model(seed: int = 0) -> keystep.PJEPA:
    torch.manual_seed(100 + seed)
    return keystep.PJEPA(build(ModelConfig, {"input_dim": 4, "dim": 16, "depth": 1, "heads": 2})).eval()


def test_intervals_draw_the_folders_groups_and_the_record_says_how_many(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data", TWO)
    small = {"mstcn": {"maps": 8, "layers": 2, "refinements": 1}}
    config = QUICK.model_copy(update={"head_settings": small})
    results = keystep.evaluate(folder, {"x": model()}, heads=["linear", "mstcn"], modes=["causal"], config=config)
    data = results.record["data"]
    assert data["drawn"] == {"what": "groups", "count": 2} and data["groups"] == ["b", "b", "c"]
    assert "intervals resample 2 groups (persons or sites) of 3 test videos" in data["notes"]
    assert {line["videos"] for line in results.record["gate"]} == {2}
    assert results.compare("x", "raw features").videos == 2
    assert {gain["videos"] for gain in results.record["head_gains"]} == {2}
    assert not folder.problems.notes, "they were the evaluation's own"


def test_without_groups_videos_are_drawn(tmp_path: Path) -> None:
    folder = keystep.open_dataset(write_data(tmp_path / "data"), source_rate=4, rate=2)
    results = keystep.evaluate(folder, {"x": model()}, modes=["causal"], config=QUICK)
    assert results.record["data"]["drawn"] == {"what": "videos", "count": 3}
    assert results.record["data"]["groups"] is None and {line["videos"] for line in results.record["gate"]} == {3}
    other = keystep.evaluate(folder, {"x": model()}, groups="v(.)", modes=["causal"], config=QUICK)
    assert other.record["data"]["drawn"] == {"what": "groups", "count": 3} and folder.groups is None


def test_a_name_that_only_begins_like_a_controls_is_free() -> None:
    for name in ("raw", "raw features", "moving average + elapsed", "untrained encoder 2", "clock", "a ++ b"):
        assert reserved(name), name
    assert not any(reserved(name) for name in ("rawlike", "raw-2", "offsets_of_mine", "clockwork", "pjepa"))


def test_one_person_in_the_test_part_is_drawn_by_video_and_a_note_says_so(tmp_path: Path) -> None:
    judge = open_judge(opened(tmp_path / "data", dict.fromkeys(TWO, "b")), "1", QUICK)
    assert judge.groups is None
    assert judge.folder.problems.notes == [
        "all 3 test videos belong to one group, 'b': intervals resample videos and do not generalise to other groups"
    ]


@pytest.mark.parametrize(
    ("test", "valid", "parts"),
    [
        (TWO, "d", []),
        ({**TWO, "v7": "a"}, "d", ["test"]),
        (TWO, "a", ["valid"]),
        ({**TWO, "v7": "a"}, "a", ["test", "valid"]),
    ],
)
def test_persons_on_both_sides_of_the_split_are_warned_of(
    tmp_path: Path, test: dict[str, str], valid: str, parts: list[str]
) -> None:
    warnings = check_models([], opened(tmp_path / "data", test, valid=valid), "1")
    assert [line.split(" videos are of groups that also train")[0].split()[-1] for line in warnings] == parts


def test_a_model_is_judged_on_one_fold_and_all_of_them_have_their_own_command(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data", TWO)
    with pytest.raises(InputError, match=r"has seen the test videos of the others; .* python benchmarks/quality "):
        check_models([], folder, "all")


def test_few_labels_are_spread_over_persons_and_the_note_says_over_how_many(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data", TWO)
    lines = (folder.root / "splits" / "groups.csv").read_text().replace("v0,a", "v0,e").replace("v1,a", "v1,e")
    (folder.root / "splits" / "groups.csv").write_text(lines)
    for seed in range(4):
        folder = keystep.open_dataset(folder.root, source_rate=4, rate=2)
        judge = open_judge(folder, "1", QUICK.model_copy(update={"label_share": 0.5, "label_seed": seed}))
        assert {folder.groups[video] for video in judge.split.train} == {"a", "e"}
        note = "labels of 50% of the videos: 2 (of 2 groups) for training probes, 1 (of 1 groups) for validation"
        assert note in folder.problems.notes
