import json
from pathlib import Path

import pytest

from keystep.errors import InputError
from keystep.train.records import Metrics, read_metrics


def test_lines_are_on_disk_at_once_and_a_resume_drops_those_after_its_checkpoint(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.write(step, {"loss": 1.0 / step})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3, "written although the file is still open"
    resumed = Metrics(tmp_path, resume_at=2)
    resumed.write(3, {"loss": 0.3})
    resumed.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    metrics.close()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_its_metrics_again(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path)
        metrics.write(0, {"effective_rank": 3.0})
        metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "effective_rank": 3.0}]


def test_a_line_that_a_kill_cut_off_is_left_out_but_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"st')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"st\n' + json.dumps({"step": 1}) + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1"):
        read_metrics(path)


def test_tensorboard_files_hold_the_same_numbers(tmp_path: Path) -> None:
    reader = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(reason="needs the extra 'track'; make test-all has it", modname=reader)
    metrics = Metrics(tmp_path, tensorboard=True)
    metrics.write(7, {"loss": 0.5})
    metrics.close()
    events = events.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("loss")
    assert (scalar.step, scalar.value) == (7, 0.5)
