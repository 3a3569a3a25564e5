"""``keystep stream``: what a user types, what comes out, how it refuses."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from keystep.data.folder import open_folder
from keystep.evals.encoding import encode_videos
from keystep.heads import LinearHead
from keystep.pjepa import PJEPA

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A data folder, a small model trained on it, and the heads that an evaluation wrote."""
    root = tmp_path_factory.mktemp("judged")
    rng = np.random.default_rng(0)
    data = root / "data"
    for part in ("features", "groundTruth", "splits"):
        (data / part).mkdir(parents=True)
    (data / "mapping.txt").write_text("0 wait\n1 cut\n2 tie a knot\n")
    looks = rng.normal(size=(3, 6))
    names = [f"video{index}" for index in range(5)]
    for index, name in enumerate(names):
        labels = np.repeat(rng.integers(0, 3, 20), 5)[: 60 + 5 * index]
        np.save(data / "features" / f"{name}.npy", (looks[labels] + 0.3 * rng.normal(size=(len(labels), 6))).T)
        (data / "groundTruth" / f"{name}.txt").write_text("\n".join(("wait", "cut", "tie a knot")[i] for i in labels))
    for part, chosen in (("train", names[:3]), ("valid", names[3:4]), ("test", names[4:])):
        (data / "splits" / f"{part}.split1.bundle").write_text("\n".join(chosen))
    settings = ["model.dim=16", "model.heads=2", "model.depth=2", "target.clusters=8", "train.steps=4", "train.crop=32"]
    run, result = root / "run", root / "result"
    options = [value for setting in settings for value in ("--set", setting)]
    common = [str(data), "--source-rate", "4", "--rate", "2", "--split", "1"]
    quick = [value for s in ("probe.epochs=1", "probe.min_steps=20") for value in ("--set", s)]
    for command in (
        ["pretrain", *common, "--out", str(run), *options, "--set", "train.batch_size=2"],
        ["eval", *common, "--model", f"pjepa={run}", "--out", str(result), *quick],
    ):
        done = subprocess.run([sys.executable, "-m", "keystep", *command], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    return SimpleNamespace(data=data, run=run, heads=result / "heads", video=data / "features" / "video4.npy")


def offline(judged: SimpleNamespace) -> list[str]:
    """The steps that the causal head reads from the latents of the whole video."""
    folder = open_folder(judged.data, source_rate=Fraction(4), rate=Fraction(2))
    model = PJEPA.from_pretrained(judged.run / "model")
    head = LinearHead.load(judged.heads / "pjepa-causal-seed0.safetensors")
    ((_, latents),) = encode_videos(model, folder, ["video4"], model.config.live_attention)
    return [head.name(step) for step in head.predict(torch.from_numpy(latents)).tolist()]


def arguments(judged: SimpleNamespace, source: object, *options: object, mode: str = "causal") -> list[object]:
    head = judged.heads / f"pjepa-{mode}-seed0.safetensors"
    return ["stream", judged.run, source, "--head", head, *options]


def readings(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_evaluation_writes_heads_with_what_they_belong_to(judged: SimpleNamespace) -> None:
    assert {path.name for path in judged.heads.iterdir()} == {
        f"pjepa-{mode}-seed0.safetensors" for mode in ("offline", "causal")
    }
    head = LinearHead.load(judged.heads / "pjepa-causal-seed0.safetensors")
    assert head.names == ("wait", "cut", "tie a knot")
    assert head.origin["mode"] == "causal" and head.origin["rate"] == "2"


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_file_streams_to_the_steps_of_the_offline_run(keystep: Run, judged: SimpleNamespace, chunk: int) -> None:
    status, said, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, "--chunk", chunk))
    assert status == 0, error
    found = readings(said)
    assert [reading["step"] for reading in found] == offline(judged)
    assert [reading["frame"] for reading in found] == list(range(40))
    assert found[1]["time"] - found[0]["time"] == 0.5 and found[0]["time"] == 0.125, "the middle of two frames at 4 Hz"
    assert set(found[0]) == {"frame", "time", "step", "probability", "delay", "final"}
    assert "40 frames in" in error and "x real time" in error


def test_standard_input_in_both_forms_gives_the_same(
    keystep: Run, judged: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.load(judged.video).T.astype(np.float32)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(row.tolist()) + "\n" for row in rows)))
    status, said, error = keystep(*arguments(judged, "-", "--source-rate", 4))
    assert status == 0, error
    assert [reading["step"] for reading in readings(said)] == offline(judged)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(rows.tobytes())))
    status, said, error = keystep(*arguments(judged, "-", "--source-rate", 4, "--input-format", "float32"))
    assert status == 0, error
    assert [reading["step"] for reading in readings(said)] == offline(judged)


def test_a_growing_folder_gives_the_same(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    rows = np.load(judged.video).T
    for number, start in enumerate(range(0, len(rows), 30)):
        np.save(tmp_path / f"{number:03d}.npy", rows[start : start + 30])
    (tmp_path / "END").touch()
    status, said, error = keystep(*arguments(judged, tmp_path, "--source-rate", 4))
    assert status == 0, error
    assert [reading["step"] for reading in readings(said)] == offline(judged)


def test_a_stopped_stream_goes_on_from_its_state(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a file played in real time, then the rest at once; together they are the whole."""
    state, out = tmp_path / "state.safetensors", tmp_path / "steps.jsonl"
    options = ("--source-rate", 4, "--state", state, "--out", out)
    command = [sys.executable, "-m", "keystep", *map(str, arguments(judged, judged.video, *options, "--realtime"))]
    playing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out.exists() and len(out.read_text().splitlines()) >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    playing.send_signal(signal.SIGINT)
    _, said = playing.communicate(timeout=60)
    assert playing.returncode == 130 and "stopped after frame" in said and "Traceback" not in said
    seen = len(out.read_text().splitlines())
    assert 2 <= seen < 40, "it played in real time"
    status, _, error = keystep(*arguments(judged, judged.video, *options))
    assert status == 0 and f"going on behind frame {seen}" in error
    assert [reading["step"] for reading in readings(out.read_text())] == offline(judged)


def test_smoothing_and_the_view_work_together(keystep: Run, judged: SimpleNamespace) -> None:
    options = ("--source-rate", 4, "--half-life", 1, "--hold", 1, "--view")
    status, said, error = keystep(*arguments(judged, judged.video, *options))
    assert status == 0, error
    calm = [reading["step"] for reading in readings(said)]
    changes = [sum(a != b for a, b in pairwise(steps)) for steps in (calm, offline(judged))]
    assert changes[0] <= changes[1]
    assert "ms a frame" in error and any(name in error for name in ("wait", "cut", "tie a knot"))


def test_a_head_fitted_on_offline_latents_is_warned_about(keystep: Run, judged: SimpleNamespace) -> None:
    status, _, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, mode="offline"))
    assert status == 0 and "was fitted on offline latents" in error


def test_times_with_gaps_follow_the_stated_policy(
    keystep: Run, judged: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.load(judged.video).T.astype(np.float32)[:10]
    times = [0.5 * index + (60 if index > 4 else 0) for index in range(10)]
    lines = "".join(json.dumps({"time": t, "features": r.tolist()}) + "\n" for t, r in zip(times, rows, strict=True))
    for policy, status in (("stop", 2), ("bridge", 0), ("restart", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        found, said, error = keystep(*arguments(judged, "-", "--on-gap", policy))
        assert found == status, error
        assert len(readings(said)) == (5 if status else 10)
        assert ("a gap: the frame at 62.5 s" if status else "1 gaps") in error


def test_what_cannot_stream_is_one_line(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    other = LinearHead.load(judged.heads / "pjepa-causal-seed0.safetensors")
    changed = LinearHead(other.steps, names=other.names, origin={**other.origin, "weights": "0" * 64})
    changed.save(tmp_path / "other.safetensors")
    np.save(tmp_path / "wide.npy", np.zeros((9, 7)))
    np.save(tmp_path / "nan.npy", np.full((9, 6), np.nan))
    cases = [
        (arguments(judged, tmp_path / "absent.npy"), "absent.npy: no such file or folder"),
        (arguments(judged, tmp_path / "wide.npy"), "shape (9, 7); the model reads 6"),
        (arguments(judged, tmp_path / "nan.npy"), "frame 0 of stream 0 holds NaN"),
        (arguments(judged, judged.video, "--on-gap", "jump"), "--on-gap 'jump' is none of stop, bridge, restart"),
        (arguments(judged, "-", "--input-format", "xml"), "--input-format 'xml' is none of jsonl, float32"),
        (arguments(judged, judged.video, "--source-rate", 3), "cannot be pooled to 2 Hz"),
        (arguments(judged, judged.video, "--hold", -1), "hold is -1.0; give seconds"),
        (["stream", judged.run, judged.video, "--head", tmp_path / "other.safetensors"], "fitted on another model"),
        (["stream", judged.run, judged.video, "--head", tmp_path / "wide.npy"], "not a whole safetensors file"),
    ]
    for command, line in cases:
        status, said, error = keystep(*command)
        assert status == 2 and line in error, (line, error)
        assert not said and "Traceback" not in error
