"""A few of what ``make chaos`` does: commands that are killed, whose disks are full, that meet."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # as run.py finds them

from arena import Arena
from serving import Serving
from victims import encode, import_, write_data

import keystep


@pytest.fixture
def model(make_model: Callable[..., keystep.PJEPA], tmp_path: Path) -> Path:
    make_model({"kind": "bidirectional"}, input_dim=6).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_killed_imports_go_on_to_the_same_bytes_and_leave_nothing_behind(tmp_path: Path) -> None:
    arena = Arena(import_(tmp_path), tmp_path / "arena", seed=0)
    arena.kill(3)
    assert not arena.tally.faults and arena.tally.kills == 3


def test_killed_encodes_go_on_to_the_same_bytes_and_leave_nothing_behind(tmp_path: Path, model: Path) -> None:
    arena = Arena(encode(model, write_data(tmp_path / "data", videos=12)), tmp_path / "arena", seed=1)
    arena.kill(3)
    assert not arena.tally.faults and arena.tally.kills == 3


def test_a_disk_that_is_full_at_any_write_is_one_line_and_costs_nothing_that_was_finished(
    tmp_path: Path, model: Path
) -> None:
    arena = Arena(encode(model, write_data(tmp_path / "data")), tmp_path / "arena", seed=0)
    arena.fill_the_disk(6)
    assert not arena.tally.faults and arena.tally.full == 6


def test_two_imports_at_once_are_one_import(tmp_path: Path) -> None:
    arena = Arena(import_(tmp_path), tmp_path / "arena", seed=0)
    arena.start_two(2)
    assert not arena.tally.faults


def test_the_time_of_day_changes_nothing(tmp_path: Path) -> None:
    arena = Arena(import_(tmp_path), tmp_path / "arena", seed=0)
    arena.turn_the_clock(1)
    assert not arena.tally.faults


def test_a_server_that_is_killed_while_labels_are_saved_loses_none_that_it_acknowledged(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "serving", seed=0)
    serving.kill(3)
    assert not serving.tally.faults and serving.tally.kills == 3
    assert serving.told.count >= 3
