"""A killed and resumed run ends in the very bits of one that was never stopped."""

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from keystep import persistence
from keystep.config import RunConfig, run_config
from keystep.config.base import build, read_yaml
from keystep.errors import InputError, Interrupted
from keystep.progress import Count
from keystep.train.run import pretrain

SETTINGS = {
    "model": {"dim": 16, "depth": 2, "heads": 2, "predictor_depth": 1},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "crop": 24,
        "warmup": 2,
        "save_every": 5,
        "monitor_every": 6,
        "log_every": 1,
    },
}


STEPS = 60


def settings(root: Path, **train: object) -> RunConfig:
    return build(RunConfig, SETTINGS, {"data": {"root": root, "source_rate": 4}, "train": train})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_bits(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"target": {"kind": "ema", "final_momentum": 1.0, "momentum": 0.9}},
        {"target": {"kind": "clusters", "clusters": 8}, "masking": {"kind": "random"}},
        {"target": {"clusters": 8, "cluster_weight": 1.0}},
        {"train": {"accumulate": 2}},
        {"train": {"live_share": 1.0}},
        {"train": {"epochs": 6, "accumulate": 2, "crop_segments": 2, "bucket": 2}, "objective": {"average": "parts"}},
    ],
    ids=["features", "ema", "clusters", "features and clusters", "accumulated", "one attention never used", "epochs"],
)
def test_a_run_resumed_from_a_checkpoint_equals_one_that_never_stopped(
    mstcn: Path, tmp_path: Path, change: dict
) -> None:
    config = build(RunConfig, SETTINGS, {"data": {"root": mstcn, "source_rate": 4}}, change)
    pretrain(config, tmp_path / "whole")
    last = shutil.ignore_patterns("step-00000012", "model")  # as if killed between step 10 and 12
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", ignore=last)
    pretrain(run_config(tmp_path / "cut"), tmp_path / "cut", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    whole = [json.loads(line)["step"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert steps == whole, "every step stands in the metrics once"


def command_of(root: Path, run: Path, steps: int) -> list[str]:
    command = [sys.executable, "-m", "keystep", "pretrain", str(root), "--source-rate", "4", "--out", str(run)]
    for name, value in {
        "model.dim": 16,
        "model.heads": 2,
        "train.crop": 24,
        "train.batch_size": 4,
        "train.steps": steps,
        "train.save_every": 5,
        "train.log_every": 1,
        "train.monitor_every": 1000,
    }.items():
        command += ["--set", f"{name}={value}"]
    return command


def start(root: Path, run: Path, steps: int) -> subprocess.Popen[str]:
    command = command_of(root, run, steps)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(run.glob(f"checkpoints/step-{step:08d}/state.json")):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def uninterrupted(shared_mstcn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 steps in a process of its own."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(shared_mstcn, run, STEPS)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return run


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_process_that_is_killed_goes_on_to_the_same_weights(
    shared_mstcn: Path, uninterrupted: Path, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    killed = start(shared_mstcn, run, STEPS)
    wait_for_step(run, 5)
    killed.send_signal(number)
    _, said = killed.communicate(timeout=60)
    assert not (run / "model").exists(), "it was stopped before its end"
    if number != signal.SIGKILL:
        assert killed.returncode == 130
        assert re.search(rf"stopped after step \d+; continue with --resume {run}", said) and "Traceback" not in said
    pretrain(run_config(run), run, resume=True)
    assert_same_bits(uninterrupted, run)


class At:
    """Progress that does something once a step has been reported."""

    def __init__(self, step: int, what: Callable[[], object]) -> None:
        self.step, self.what = step, what

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "", initial: float = 0) -> Iterator[Count]:
        def changed(done: float, total: float | None, note: str) -> None:
            if (unit, done) == ("steps", self.step):
                self.what()

        yield Count(total, changed, initial)

    def message(self, text: str) -> None:
        pass


def signalled(number: int, times: int = 1) -> Callable[[], object]:
    return lambda: [os.kill(os.getpid(), number) for _ in range(times)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_request_to_stop_that_is_repeated_at_once_saves_as_one_does(mstcn: Path, tmp_path: Path, number: int) -> None:
    """As when a key is pressed twice, or a service manager and a terminal end together."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
    run = tmp_path / "run"
    try:
        with pytest.raises(Interrupted, match=f"stopped after step 3; continue with --resume {run}"):
            pretrain(settings(mstcn), run, progress=At(3, signalled(number, 3)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


def test_what_is_ignored_as_under_nohup_stops_no_run(mstcn: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        pretrain(settings(mstcn), tmp_path / "run", progress=At(3, signalled(signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "run" / "model").exists()


def test_a_terminal_that_is_closed_leaves_a_checkpoint(mstcn: Path, tmp_path: Path) -> None:
    """Nothing can be printed any more, which is no reason to lose the work."""
    run = tmp_path / "run"
    ours, theirs = pty.openpty()
    take_terminal = partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0)
    given = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    stopped = subprocess.Popen(command_of(mstcn, run, 500), preexec_fn=take_terminal, **given)  # type: ignore[call-overload]
    os.close(theirs)
    wait_for_step(run, 5)
    os.close(ours)
    assert stopped.wait(timeout=60) == 130
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (run / "checkpoints" / f"step-{last:08d}" / "state.json").exists()


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(mstcn: Path, tmp_path: Path) -> None:
    run, refused = (
        tmp_path / "run",
        pytest.raises(InputError, match=f"run: process {os.getpid()} on .* is writing there"),
    )

    def second() -> None:
        for resume in (False, True):
            with refused:
                pretrain(settings(mstcn), run, resume=resume)

    pretrain(settings(mstcn), run, progress=At(3, second))
    assert (run / "model").exists() and not list(tmp_path.glob(".*")), "and no lock stays"


@pytest.mark.parametrize("step", [3, 5, 12], ids=["before a log line", "before a checkpoint", "before the model"])
@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_is_gone_meanwhile_is_an_error(mstcn: Path, tmp_path: Path, step: int, how: str) -> None:
    run = tmp_path / "run"

    def lose() -> None:
        run.rename(tmp_path / "moved")
        if how == "removed":
            shutil.rmtree(tmp_path / "moved")

    with pytest.raises(InputError, match=r"run/\S+: .*(something removed or replaced it|was removed during the run)"):
        pretrain(settings(mstcn), run, progress=At(step, lose))
    assert not run.exists()


def test_epochs_set_the_steps_once_the_videos_are_known(mstcn: Path, tmp_path: Path) -> None:
    """Six videos in batches of four are two steps an epoch."""
    pretrain(settings(mstcn, epochs=3), tmp_path / "run")
    assert run_config(tmp_path / "run").train.steps == 6
    assert (tmp_path / "run" / "checkpoints" / "step-00000006").exists()


def test_crops_of_segments_without_labels_are_refused(mstcn: Path, tmp_path: Path) -> None:
    for path in (mstcn / "groundTruth").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"no groundTruth/.*this needs labels"):
        pretrain(settings(mstcn, crop_segments=2), tmp_path / "run")


def test_the_run_says_all_its_settings_and_they_make_the_same_run(mstcn: Path, tmp_path: Path) -> None:
    pretrain(settings(mstcn, steps=2), tmp_path / "first")
    again = build(RunConfig, read_yaml(tmp_path / "first" / "config.yaml"))
    pretrain(again, tmp_path / "second")
    assert_same_bits(tmp_path / "first", tmp_path / "second")


def test_another_seed_makes_another_model(mstcn: Path, tmp_path: Path) -> None:
    pretrain(settings(mstcn, steps=2), tmp_path / "a")
    pretrain(settings(mstcn, steps=2, seed=1), tmp_path / "b")
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert not torch.equal(one["mask_token"], two["mask_token"])


def test_resuming_refuses_changed_data_and_missing_checkpoints(mstcn: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"no config\.yaml"):
        run_config(run)
    pretrain(settings(mstcn, steps=5), run)
    first = sorted((mstcn / "features").glob("*.npy"))[0]
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(bytes(data))
    with pytest.raises(InputError, match="features, labels or the split changed"):
        pretrain(run_config(run), run, resume=True)
    with pytest.raises(InputError, match="not empty"):
        pretrain(settings(mstcn), run)


def test_a_damaged_checkpoint_is_named(mstcn: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(mstcn, steps=5), run)
    weights_file = run / "checkpoints" / "step-00000005" / "optimizer.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"optimizer\.safetensors"):
        pretrain(run_config(run), run, resume=True)


def test_working_a_batch_off_in_parts_gives_the_same_model(mstcn: Path, tmp_path: Path) -> None:
    """The crops differ in length, so a mean of the parts' means would be another gradient."""
    pretrain(settings(mstcn, accumulate=1), tmp_path / "whole")
    pretrain(settings(mstcn, accumulate=4), tmp_path / "parts")
    one, four = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in one:
        torch.testing.assert_close(one[name], four[name], atol=1e-4, rtol=0)


def test_the_validation_part_is_trained_on_only_if_asked_for(mstcn: Path, tmp_path: Path) -> None:
    seen = {}
    for asked in (False, True):
        config = build(
            RunConfig,
            SETTINGS,
            {"data": {"root": mstcn, "source_rate": 4, "split": "1", "with_valid": asked}, "train": {"steps": 2}},
        )
        pretrain(config, tmp_path / str(asked))
        state = tmp_path / str(asked) / "checkpoints" / "step-00000002" / "state.json"
        seen[asked] = set(json.loads(state.read_text())["videos"])
    assert seen[True] - seen[False] == {"video.3"}
    with pytest.raises(InputError, match="with_valid needs a split"):
        build(RunConfig, {"data": {"root": mstcn, "with_valid": True}})


def test_steps_are_worked_out_from_the_data_and_written_down(mstcn: Path, tmp_path: Path) -> None:
    config = settings(mstcn, steps=0, monitor_every=1000, save_every=1000, log_every=100)
    run = tmp_path / "run"
    pretrain(config, run)
    assert run_config(run).train.steps == 84, "195 frames, 93.3 a step, each frame 40 times at most"
    with pytest.raises(InputError, match="steps cannot be computed from the data; set steps"):
        settings(mstcn, steps=0, crop_segments=2)


def test_offsets_that_mean_nothing_at_this_rate_are_said(
    mstcn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def with_offsets(offsets: list[float]) -> RunConfig:
        return build(RunConfig, settings(mstcn, steps=1).model_dump(), {"target": {"offsets": offsets}})

    with pytest.raises(InputError, match=r"\[100.0\] all reach beyond the longest crop, 24 frames"):
        pretrain(with_offsets([100.0]), tmp_path / "far")
    assert not (tmp_path / "far").exists()
    pretrain(with_offsets([-0.1, 0.0, 0.1]), tmp_path / "near")
    assert "target.offsets all round to the same frame" in caplog.text


def test_a_disk_that_cannot_hold_the_checkpoints_shows_before_the_training(
    mstcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**16))
    with pytest.raises(InputError, match=r"run: the disk has 0 MiB left; this run writes \d+ MiB \(3 checkpoints and"):
        pretrain(settings(mstcn), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_stops_the_run_and_leaves_the_last_whole_checkpoint(
    mstcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on to the same bits once there is room."""
    pretrain(settings(mstcn), tmp_path / "whole")
    run, save = tmp_path / "a run", persistence.save_tensors

    def full(path: Path, *rest: object) -> None:
        if "step-00000010" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(persistence, "save_tensors", full)
        with pytest.raises(InputError) as stopped:
            pretrain(settings(mstcn), run)
    said = str(stopped.value)
    assert "step-00000010: cannot be written: No space left on device" in said, said
    assert said.endswith(f"step 5 is complete; make room, then continue: keystep pretrain --resume '{run}'")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000005"]
    pretrain(run_config(run), run, resume=True)
    assert_same_bits(tmp_path / "whole", run)


def test_a_real_limit_on_files_is_said_at_the_first_checkpoint(mstcn: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys; from keystep.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); main()"
    )
    options = ["pretrain", str(mstcn), "--source-rate", "4", "--out", str(tmp_path / "run"), "--set", "train.steps=3"]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(
        r"step-00000003/\S+: cannot be written: .*no checkpoint yet; make room, then continue", done.stderr
    )
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
