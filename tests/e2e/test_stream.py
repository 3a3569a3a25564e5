"""``keystep stream``: what a user types, what comes out, how it refuses."""

import errno
import io
import json
import os
import re
import shlex
import shutil
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

from keystep.cli import streaming
from keystep.cli.stream_output import FileOutput
from keystep.config import AttentionPattern, RunConfig
from keystep.config.base import assignments, build
from keystep.data.folder import open_dataset
from keystep.data.timeline import Timeline
from keystep.encoding import encode_videos
from keystep.errors import InputError
from keystep.heads import linear_head, load_head
from keystep.locking import owning
from keystep.pjepa import PJEPA
from keystep.stream import LiveSteps

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def judged(once: Run, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
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
    settings = ["model.dim=16", "model.heads=2", "model.depth=2", "train.steps=4", "train.crop=32"]
    run, result = root / "run", root / "result"
    options = [value for setting in settings for value in ("--set", setting)]
    common = [data, "--source-rate", 4, "--rate", 2, "--split", 1]
    quick = ["--set", "probe.penalties=[0.01]"]
    for command in (
        ["pretrain", *common, "--out", run, *options, "--set", "train.batch_size=2"],
        ["eval", *common, "--model", f"pjepa={run}", "--out", result, *quick],
    ):
        status, _, error = once(*command)
        assert status == 0, error
    return SimpleNamespace(data=data, run=run, heads=result / "heads", video=data / "features" / "video4.npy")


def offline(judged: SimpleNamespace) -> list[str]:
    """The steps that the causal head reads from the latents of the whole video."""
    folder = open_dataset(judged.data, source_rate=Fraction(4), rate=Fraction(2))
    model = PJEPA.from_pretrained(judged.run / "model")
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    ((_, latents),) = encode_videos(model, folder, ["video4"], model.config.live_attention)
    return [head.name(step) for step in head.predict(torch.from_numpy(latents)).tolist()]


def arguments(
    judged: SimpleNamespace, source: object, *options: object, mode: str = "causal", head: Path | None = None
) -> list[object]:
    head = head or judged.heads / f"pjepa-{mode}-seed0.safetensors"
    return ["stream", judged.run, source, "--head", head, *options]


def readings(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_evaluation_writes_heads_with_what_they_belong_to(judged: SimpleNamespace) -> None:
    assert {path.name for path in judged.heads.iterdir()} == {
        f"pjepa-{mode}-seed0.safetensors" for mode in ("offline", "causal")
    }
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    assert head.names == ("wait", "cut", "tie a knot")
    assert head.origin["mode"] == "causal" and head.origin["rate"] == "2"


@pytest.mark.parametrize("source", ["video4.npy", "-", "."])
def test_features_whose_rate_nothing_states_are_refused(keystep: Run, judged: SimpleNamespace, source: str) -> None:
    """A file at 30 Hz was taken for one at the model's 2 Hz without a word."""
    place = source if source == "-" else judged.data / "features" / source
    status, said, error = keystep(*arguments(judged, place))
    assert (status, said) == (2, "")
    assert "states the rate of the features; give it with --source-rate 30 (the model works at 2)" in error


def test_the_note_on_a_growing_state_names_the_rate_of_the_stream(keystep: Run, judged: SimpleNamespace) -> None:
    _, _, error = keystep(*arguments(judged, judged.video, "--source-rate", 4))
    mebibytes = 2 * 2 * 16 * 4 * 3600 * 2 / 2**20  # keys and values, blocks, width, bytes, frames an hour
    assert f"its state grows by {mebibytes:.0f} MiB per hour at 2 Hz" in error
    suggested = re.findall(r"--set (\S+?)[ )]", error)
    config = build(RunConfig, {"data": {"root": "data"}}, assignments(suggested))
    assert config.model.live_attention == AttentionPattern(kind="causal", window=512), "it works as printed"


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


def test_a_stream_is_never_written_onto_what_it_reads(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    before, common = judged.video.read_bytes(), ("--source-rate", 4, "--overwrite")
    for options in (("--out", judged.video), ("--out", tmp_path / "x", "--state", tmp_path / "x")):
        status, said, error = keystep(*arguments(judged, judged.video, *common, *options))
        assert (status, said) == (2, "") and "already read from, or another output" in error
    status, _, error = keystep(*arguments(judged, judged.video, *common, "--picture", judged.video))
    assert status == 2 and "choose a name that ends in .png" in error and judged.video.read_bytes() == before


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
    assert status == 0 and f"resuming after frame {seen}" in error
    assert [reading["step"] for reading in readings(out.read_text())] == offline(judged)


def test_a_stream_that_was_killed_before_its_state_was_saved_again_begins_anew_in_its_output(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    state, out = tmp_path / "state.safetensors", tmp_path / "steps.jsonl"
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    timeline = Timeline.from_json(json.loads(head.origin["timeline"]))
    live = LiveSteps(PJEPA.from_pretrained(judged.run / "model"), head, timeline)
    live.save(state, {"source": str(judged.video), "place": None})
    out.write_text('{"frame": 0, "step": "wait"}\n{"frame": 1, "st')
    status, _, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, "--state", state, "--out", out))
    assert status == 0 and "resuming after frame 0" in error, error
    assert [reading["step"] for reading in readings(out.read_text())] == offline(judged)


def test_the_lines_say_what_the_readings_are(keystep: Run, judged: SimpleNamespace) -> None:
    """Probability, time and delay of every line, against `LiveSteps` on the same chunks."""
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    timeline = Timeline.from_json(json.loads(head.origin["timeline"]))
    live = LiveSteps(PJEPA.from_pretrained(judged.run / "model"), head, timeline)
    rows = np.load(judged.video).T.astype(np.float32).reshape(40, 2, 6).mean(1)
    expected = [reading for start in range(0, 40, 5) for reading in live.feed(rows[start : start + 5])]
    status, said, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, "--chunk", 5))
    assert status == 0, error
    for line, reading in zip(readings(said), expected, strict=True):
        assert line["probability"] == pytest.approx(reading.probability, abs=1e-4)
        assert (line["time"], line["delay"]) == (pytest.approx(reading.time), pytest.approx(reading.delay))
    assert len({line["delay"] for line in readings(said)}) == 5 and len({r.probability for r in expected}) > 20


@pytest.fixture
def blocks(judged: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """The same weights answering at the end of blocks of eight frames."""
    shutil.copytree(judged.run / "model", tmp_path / "blocks")
    config = json.loads((tmp_path / "blocks" / "config.json").read_text())
    config["model"]["live_attention"] |= {"kind": "block_causal", "block": 8}
    (tmp_path / "blocks" / "config.json").write_text(json.dumps(config))
    return SimpleNamespace(run=tmp_path / "blocks", heads=judged.heads, video=judged.video)


def test_provisional_lines_stand_beside_final_ones(keystep: Run, blocks: SimpleNamespace) -> None:
    options = ("--source-rate", 4, "--chunk", 3, "--provisional")
    status, said, error = keystep(*arguments(blocks, blocks.video, *options))
    assert status == 0, error
    final = [line["frame"] for line in readings(said) if line["final"]]
    early = [line["frame"] for line in readings(said) if not line["final"]]
    assert final == list(range(40)) and set(early) >= {0, 1, 2, 9, 10}
    plain = readings(keystep(*arguments(blocks, blocks.video, "--source-rate", 4, "--chunk", 3))[1])
    assert plain == [line for line in readings(said) if line["final"]], "looking early changes nothing"


@pytest.mark.parametrize("kind", ["causal", "blocks"])
def test_a_folder_that_paused_goes_on_to_the_steps_of_the_whole(
    keystep: Run, judged: SimpleNamespace, blocks: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    """Twice nothing comes for a while, in the middle of a block; what was answered early is answered again."""
    used = blocks if kind == "blocks" else judged
    rows = np.load(judged.video).T.reshape(40, 2, 6).mean(1)  # at the model's rate: groups do not span files
    np.save(tmp_path / "whole.npy", rows)
    whole = readings(keystep(*arguments(used, tmp_path / "whole.npy", "--source-rate", 2))[1])
    folder, out = tmp_path / "incoming", tmp_path / "out.jsonl"
    folder.mkdir()
    options = ("--source-rate", 2, "--state", tmp_path / "state", "--out", out, "--idle", 0.1)
    for number, (start, stop) in enumerate(((0, 11), (11, 30), (30, 40))):
        np.save(folder / f"{9 + number}.npy", rows[start:stop])
        status, _, error = keystep(*arguments(used, folder, *options))
        assert status == 0, error
    found = readings(out.read_text())
    assert [(r["frame"], r["step"], r["final"]) for r in found] == [(r["frame"], r["step"], r["final"]) for r in whole]
    assert [r["probability"] for r in found] == pytest.approx([r["probability"] for r in whole], abs=2e-4)


def test_pooled_input_that_ended_inside_a_group_goes_on_right(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    rows = np.load(judged.video).T
    video, out = tmp_path / "video.npy", tmp_path / "out.jsonl"
    for length in (41, 80):
        np.save(video, rows[:length])
        status, _, error = keystep(
            *arguments(judged, video, "--source-rate", 4, "--state", tmp_path / "state", "--out", out)
        )
        assert status == 0, error
    assert [reading["step"] for reading in readings(out.read_text())] == offline(judged)


def test_sigterm_saves_as_ctrl_c_does(judged: SimpleNamespace, tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "out.jsonl"
    options = ("--source-rate", 4, "--state", state, "--out", out, "--realtime")
    command = [sys.executable, "-m", "keystep", *map(str, arguments(judged, judged.video, *options))]
    playing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out.exists() and len(out.read_text().splitlines()) >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    playing.terminate()
    _, said = playing.communicate(timeout=60)
    assert playing.returncode == 130 and "stopped after frame" in said and state.exists()


def test_a_state_of_another_source_or_head_is_refused_and_kept(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    state, other, sharper = tmp_path / "state", tmp_path / "other.npy", tmp_path / "sharper.safetensors"
    shutil.copy(judged.video, other)
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)
    head.save(sharper)
    assert keystep(*arguments(judged, judged.video, "--source-rate", 4, "--state", state))[0] == 0
    before = state.read_bytes()
    for source, options, line in (
        (other, {}, "the state of a stream from"),
        (judged.video, {"head": sharper}, "the state of another head"),
        (
            judged.video,
            {"mode": "offline"},
            "was fitted on offline latents, which see the future; take the causal head",
        ),
    ):
        status, said, error = keystep(*arguments(judged, source, "--source-rate", 4, "--state", state, **options))
        assert status == 2 and line in error and not said and state.read_bytes() == before


def test_frames_whose_lines_could_not_be_written_are_answered_again(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system to stand for a full disk")
    state = tmp_path / "state"
    options = ("--source-rate", 4, "--state", state)
    given = arguments(judged, judged.video, *options)
    command = [sys.executable, "-m", "keystep", *map(str, given)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr
    assert [reading["frame"] for reading in readings(keystep(*given)[1])] == list(range(40))


class SmallFile(io.FileIO):
    """On a disk of 1,500 bytes, which takes part of what does not fit before it says so."""

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        room = 1500 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


def test_what_was_said_before_the_disk_was_full_and_what_is_said_elsewhere_are_the_whole(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, full, other = tmp_path / "state", tmp_path / "full.jsonl", tmp_path / "other.jsonl"
    options = ("--source-rate", 4, "--chunk", 3, "--state", state)
    with monkeypatch.context() as patch:
        small = lambda path, file: FileOutput(path, SmallFile(os.dup(file.fileno()), "wb"))  # noqa: E731
        patch.setattr(streaming, "FileOutput", small)
        status, _, error = keystep(*arguments(judged, judged.video, *options, "--out", full))
    said = readings(full.read_text())
    assert status == 2 and 3 <= len(said) < 40 and len(said) % 3 == 0
    assert f"{full}: cannot be written: No space left on device; resume after frame {len(said)} with --state" in error
    assert keystep(*arguments(judged, judged.video, *options, "--out", other))[0] == 0
    whole = said + readings(other.read_text())
    assert [reading["frame"] for reading in whole] == list(range(40))
    assert [reading["step"] for reading in whole] == offline(judged)


def test_an_output_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        output = FileOutput(tmp_path / "out", file)
        output.say("one\n")
        (tmp_path / "out").rename(tmp_path / "turned")
        output.say("two\n")
        (tmp_path / "turned").unlink()
        with pytest.raises(InputError, match="out: the file was removed"):
            output.say("three\n")


def test_two_streams_with_one_state_are_refused(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    with owning(tmp_path / "state"):
        status, _, error = keystep(
            *arguments(
                judged, judged.video, "--source-rate", 4, "--state", tmp_path / "state", "--out", tmp_path / "out"
            )
        )
    assert status == 2 and f"state: process {os.getpid()} on" in error and not (tmp_path / "out").exists()


def test_lines_can_go_to_a_pipe_and_not_into_a_foreign_file(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    pipe, out, state = tmp_path / "pipe", tmp_path / "out", tmp_path / "state"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert keystep(*arguments(judged, judged.video, "--source-rate", 4, "--out", pipe, "--state", state))[0] == 0
        assert len((reader.stdout or io.StringIO()).readlines()) == 40
    assert pipe.is_fifo()
    out.write_text("my notes\n")
    status, _, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, "--out", out, "--state", state))
    assert status == 2 and "out, line 1: not output of keystep stream" in error and out.read_text() == "my notes\n"


def test_a_reader_that_has_enough_is_no_error(judged: SimpleNamespace) -> None:
    line = shlex.join([sys.executable, "-m", "keystep", *map(str, arguments(judged, judged.video, "--source-rate", 4))])
    done = subprocess.run(f"{line} | head -1", shell=True, capture_output=True, text=True, timeout=120)
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr and "error" not in done.stderr


def test_the_timeline_of_the_folder_counts(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    """A backbone that looked a second ahead is a second late, and says so."""
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "v.npy", np.load(judged.video).T.reshape(40, 2, 6).mean(1))
    timeline = {"rate": "2", "start": "10", "window": "2", "alignment": "center"}
    (tmp_path / "store.json").write_text(json.dumps({"time_axis": 0, "timeline": timeline}))
    status, said, error = keystep(*arguments(judged, tmp_path / "features" / "v.npy", "--chunk", 1))
    assert status == 0, error
    assert [(r["time"], r["delay"]) for r in readings(said)[:2]] == [(10.0, 1.0), (10.5, 1.0)]
    status, _, error = keystep(*arguments(judged, tmp_path / "features" / "v.npy", "--source-rate", 4))
    assert status == 2 and "store.json: says 2 Hz, --source-rate says 4" in error


def test_smoothing_and_the_view_work_together(keystep: Run, judged: SimpleNamespace) -> None:
    options = ("--source-rate", 4, "--half-life", 1, "--hold", 1, "--view")
    status, said, error = keystep(*arguments(judged, judged.video, *options))
    assert status == 0, error
    calm = [reading["step"] for reading in readings(said)]
    changes = [sum(a != b for a, b in pairwise(steps)) for steps in (calm, offline(judged))]
    assert changes[0] <= changes[1]
    assert "ms per frame" in error and any(name in error for name in ("wait", "cut", "tie a knot"))


def test_a_head_fitted_on_offline_latents_has_other_bands_and_is_refused(keystep: Run, judged: SimpleNamespace) -> None:
    status, _, error = keystep(*arguments(judged, judged.video, "--source-rate", 4, mode="offline"))
    assert status == 2 and "was fitted on offline latents, which see the future; take the causal head" in error
    assert error.count("\n") == 1


def test_a_head_fitted_on_offline_latents_of_the_same_width_is_warned_about(
    keystep: Run, judged: SimpleNamespace, tmp_path: Path
) -> None:
    head = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    head.origin = {**head.origin, "mode": "offline"}
    head.save(tmp_path / "head.safetensors")
    status, _, error = keystep(
        "stream", judged.run, judged.video, "--source-rate", 4, "--head", tmp_path / "head.safetensors"
    )
    assert status == 0 and "was fitted on offline latents" in error


def test_times_with_gaps_follow_the_stated_policy(
    keystep: Run, judged: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.load(judged.video).T.astype(np.float32)[:10]
    times = [0.5 * index + (60 if index > 4 else 0) for index in range(10)]
    lines = "".join(json.dumps({"time": t, "features": r.tolist()}) + "\n" for t, r in zip(times, rows, strict=True))
    for policy, status in (("stop", 2), ("bridge", 0), ("restart", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        found, said, error = keystep(*arguments(judged, "-", "--source-rate", 2, "--on-gap", policy))
        assert found == status, error
        assert len(readings(said)) == (5 if status else 10)
        assert ("a gap: the frame at 62.5 s" if status else "1 gaps") in error


def test_what_cannot_stream_is_one_line(keystep: Run, judged: SimpleNamespace, tmp_path: Path) -> None:
    other = load_head(judged.heads / "pjepa-causal-seed0.safetensors")
    changed = linear_head(other.steps, names=other.names, origin={**other.origin, "weights": "0" * 64})
    changed.save(tmp_path / "other.safetensors")
    np.save(tmp_path / "wide.npy", np.zeros((9, 7)))
    np.save(tmp_path / "nan.npy", np.full((9, 6), np.nan))
    cases = [
        (arguments(judged, tmp_path / "absent.npy"), "absent.npy: no such file or folder"),
        (arguments(judged, tmp_path / "wide.npy", "--source-rate", 2), "shape (9, 7); the model expects 6"),
        (arguments(judged, tmp_path / "nan.npy", "--source-rate", 2), "frame 0 of stream 0 holds NaN"),
        (
            arguments(judged, judged.video, "--source-rate", 4, "--on-gap", "jump"),
            "unknown --on-gap 'jump'; expected one of stop, bridge, restart",
        ),
        (
            arguments(judged, "-", "--source-rate", 4, "--input-format", "xml"),
            "unknown --input-format 'xml'; expected one of jsonl, float32",
        ),
        (arguments(judged, judged.video, "--source-rate", 3), "cannot be pooled to 2 Hz"),
        (arguments(judged, judged.video, "--source-rate", 4, "--hold", -1), "hold is -1.0; give seconds"),
        (["stream", judged.run, judged.video, "--head", tmp_path / "other.safetensors"], "fitted on another model"),
        (["stream", judged.run, judged.video, "--head", tmp_path / "wide.npy"], "not a whole safetensors file"),
    ]
    for command, line in cases:
        status, said, error = keystep(*command)
        assert status == 2 and line in error, (line, error)
        assert not said and "Traceback" not in error
