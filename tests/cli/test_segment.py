"""``keystep segment``, and the models that read what it wrote."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.boundaries import fitting
from keystep.cli.evaluation import open_judge
from keystep.data.folder import open_dataset
from keystep.data.timeline import parse_rate
from keystep.errors import InputError
from keystep.evals.protocol import EvalConfig
from keystep.pjepa import PJEPA
from keystep.stream import LiveSegments

Run = Callable[..., tuple[int, str, str]]
SMALL = (
    *("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=2", "--set", "target.clusters=8"),
    *("--set", "train.steps=4", "--set", "train.crop=32", "--set", "train.batch_size=2"),
)
QUICK = ("--set", "probe.epochs=1", "--set", "probe.min_steps=20", "--set", "probe.learning_rates=[0.01]")
SEGMENTS = ("--set", "model.attention.kind=segment_causal", "--set", "model.live_attention=null")
DISCOVERED = (*SEGMENTS, "--set", "model.boundaries=discovered")
FOUND = ("--set", "window=0.5", "--set", "shortest=1", "--set", "longest=5")


def segment(keystep: Run, data: Path, out: Path, *options: object) -> str:
    status, said, error = keystep("segment", data, "--source-rate", 4, "--split", 1, "--out", out, *FOUND, *options)
    assert status == 0, error
    return " ".join(said.split())


def pretrain(keystep: Run, data: Path, run: Path, *options: object) -> str:
    status, said, error = keystep("pretrain", data, "--source-rate", 4, "--split", 1, "--out", run, *SMALL, *options)
    assert status == 0, error
    return said


def test_boundaries_of_every_video_with_how_they_were_found(keystep: Run, data: Path, tmp_path: Path) -> None:
    said = segment(keystep, data, tmp_path / "found")
    assert "boundaries within 1 s of true ones, 1 validation videos: F1" in said and "3 test videos" in said
    assert "8 videos" in said and "look-ahead 1 s" in said and "equally spaced" in said
    record = json.loads((tmp_path / "found" / "segmenter.json").read_text())
    assert record["fitted_on"] == [f"video{index}" for index in range(4)] and record["look_ahead_seconds"] == 1.0
    folder = open_dataset(data, source_rate=parse_rate(4))
    assert record["data"]["fingerprint"] == folder.fingerprint() and record["settings"]["window"] == 0.5
    for name in folder.videos:
        lengths = [int(line) for line in (tmp_path / "found" / f"{name}.txt").read_text().split()]
        assert sum(lengths) == folder.length(name) and max(lengths) <= 20
    written = {path.name: path.read_bytes() for path in (tmp_path / "found").glob("*.txt")}
    segment(keystep, data, tmp_path / "found")
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "found").glob("*.txt")}


def test_labels_change_no_boundary_and_need_not_exist(keystep: Run, data: Path, tmp_path: Path) -> None:
    segment(keystep, data, tmp_path / "with")
    (data / "mapping.txt").unlink()
    for path in (data / "groundTruth").iterdir():
        path.unlink()
    (data / "store.json").write_text('{"time_axis": 1}')
    said = segment(keystep, data, tmp_path / "without")
    assert "true ones" not in said
    for name in ("video0.txt", "video7.txt"):
        assert (tmp_path / "with" / name).read_text() == (tmp_path / "without" / name).read_text()


@pytest.mark.parametrize("source", ["latents", "surprise"])
def test_a_model_finds_boundaries_too(keystep: Run, data: Path, tmp_path: Path, source: str) -> None:
    pretrain(keystep, data, tmp_path / "run", "--set", "target.kind=clusters", "--set", "target.offsets=[-1,0,1]")
    options = ("--model", tmp_path / "run", "--source", source, "--set", "span=1", "--set", "context=5")
    segment(keystep, data, tmp_path / "found", *options)
    record = json.loads((tmp_path / "found" / "segmenter.json").read_text())
    assert record["model"]["weights"] and record["clusters"] == (8 if source == "surprise" else None)
    model = PJEPA.from_pretrained(tmp_path / "run" / "model")
    found = fitting.load(tmp_path / "found" / "segmenter.json", model)
    lengths = found.segment(open_dataset(data, source_rate=parse_rate(4)).features("video6"))
    assert [str(length) for length in lengths] == (tmp_path / "found" / "video6.txt").read_text().split()


def test_surprise_needs_a_model_that_learned_what_to_say_of_visible_frames(
    keystep: Run, data: Path, tmp_path: Path
) -> None:
    silent = ("--set", "objective.visible_weight=0")
    pretrain(keystep, data, tmp_path / "latent", *silent)
    pretrain(keystep, data, tmp_path / "predictor", *silent, "--set", "model.visible_predictions=predictor")
    options = ("--source", "surprise", "--set", "span=1", "--set", "context=5")
    command = ("segment", data, "--source-rate", 4, "--out", tmp_path / "found", "--model", tmp_path / "latent")
    status, _, error = keystep(*command, *options)
    assert status == 2 and "never learned what to say of a frame it sees" in error
    assert len(error.strip().splitlines()) == 1 and not (tmp_path / "found").exists()
    segment(keystep, data, tmp_path / "found", "--model", tmp_path / "predictor", *options)


def test_a_model_of_discovered_boundaries_trains_encodes_is_judged_and_runs_live(
    keystep: Run, data: Path, tmp_path: Path
) -> None:
    found, run, out = tmp_path / "found", tmp_path / "run", tmp_path / "latents"
    for part, names in (("train", "video0\nvideo6"), ("test", "video1")):
        (data / "splits" / f"{part}.split2.bundle").write_text(names)
    segment(keystep, data, found)
    said = pretrain(keystep, data, run, *DISCOVERED, "--set", f"data.boundaries={found}")
    assert "ORACLE" not in said and "give eval and encode --boundaries DIR" in said
    for command in (("encode", run, data, "--out", out), ("eval", data, "--model", f"clip={run}", *QUICK)):
        status, _, error = keystep(*command, "--source-rate", 4)
        assert status == 2 and "attends by discovered boundaries; give --boundaries DIR" in error
    options = ("--source-rate", 4, "--boundaries", found)
    status, said, error = keystep("encode", run, data, "--out", out, *options)
    assert status == 0 and "ORACLE" not in said, error
    store = json.loads((out / "store.json").read_text())["provenance"]
    assert store["attention"] == "segment_causal (discovered boundaries)" and store["oracle"] == ""
    result = tmp_path / "result"
    status, said, error = keystep("eval", data, "--model", f"clip={run}", "--out", result, *options, *QUICK)
    assert status == 0 and "trained with other boundaries" not in said and "were fitted" not in said, error
    rows = {row["name"]: row for row in json.loads((result / "result.json").read_text())["rows"]}
    lengths = [int(n) for path in found.glob("*.txt") for n in path.read_text().split()]
    assert rows["clip"]["mode"] == "causal" and not rows["clip"]["oracle"]
    assert rows["clip"]["delay"] == rows["discovered segments' means"]["delay"] == (max(lengths) + 4) / 4
    segment(keystep, data, found, "--split", 2)
    status, said, error = keystep("eval", data, "--model", f"clip={run}", "--out", result, *options, *QUICK)
    assert status == 0 and "fitted, without labels, on 1 of the test videos" in said, error
    assert "model) was trained with other boundaries, or the data changed since" in said
    segment(keystep, data, found)
    head = result / "heads" / "clip-causal-seed0.safetensors"
    streamed = ("stream", run, data / "features" / "video5.npy", "--head", head)
    status, said, error = keystep(*streamed, "--boundaries", found)
    assert status == 0 and len(said.splitlines()) == 75, error
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["frame"] for line in lines] == list(range(75)) and all(line["final"] for line in lines)
    for options, line in (
        ((), "attends by discovered segments; give --boundaries DIR"),
        (("--boundaries", found, "--segmenter-model", run), "segmenter.json: needs no model: drop --segmenter-model"),
        (("--boundaries", found, "--state", out), "cannot be saved yet"),
    ):
        status, _, error = keystep(*streamed, *options)
        assert status == 2 and line in error
    status, _, error = keystep("segment", data, "--source-rate", 4, "--model", run, "--out", tmp_path / "own")
    assert status == 2 and "boundaries cannot be found with it" in error and not (tmp_path / "own").exists()
    live = LiveSegments(PJEPA.from_pretrained(run / "model"), fitting.load(found / "segmenter.json"))
    features = open_dataset(data, source_rate=parse_rate(4)).features("video5")
    latents = torch.cat([live.feed(features[:31]), live.feed(features[31:]), live.close()])
    np.testing.assert_allclose(latents, np.load(out / "features" / "video5.npy"), atol=1e-5)


def test_a_leak_through_the_model_behind_the_boundaries_is_told(keystep: Run, data: Path, tmp_path: Path) -> None:
    """Its pretraining saw all videos; the segmenter itself was fitted on training videos only."""
    everything = ("pretrain", data, "--source-rate", 4, "--out", tmp_path / "all", *SMALL)
    status, _, error = keystep(*everything)
    assert status == 0, error
    segment(keystep, data, tmp_path / "found", "--model", tmp_path / "all")
    pretrain(keystep, data, tmp_path / "run", *DISCOVERED, "--set", f"data.boundaries={tmp_path / 'found'}")
    judged = ("eval", data, "--model", f"clip={tmp_path / 'run'}", "--boundaries", tmp_path / "found", *QUICK)
    status, said, error = keystep(*judged, "--source-rate", 4, "--out", tmp_path / "result")
    assert status == 0 and "the boundaries, or their model, were fitted, without labels, on 3 of the test" in said, (
        error
    )
    notes = json.loads((tmp_path / "result" / "result.json").read_text())["data"]["notes"]
    assert any("on 3 of the test videos" in note for note in notes)


def test_videos_without_boundaries_show_before_anything_is_done(keystep: Run, data: Path, tmp_path: Path) -> None:
    found, out = tmp_path / "found", tmp_path / "out"
    segment(keystep, data, found)
    settings = (*SMALL, *DISCOVERED, "--set", f"data.boundaries={found}")
    pretrain(keystep, data, tmp_path / "run", *settings)
    for name in ("video1", "video4", "video6"):  # to train on, for the monitor, to test on
        lengths = (found / f"{name}.txt").read_text()
        (found / f"{name}.txt").unlink()
        line = f"no {name}.txt; run 'keystep segment' on all videos that are used"
        if name != "video6":
            status, _, error = keystep("pretrain", data, "--source-rate", 4, "--split", 1, "--out", out, *settings)
            assert status == 2 and line in error and len(error.strip().splitlines()) == 1 and not out.exists()
        folder = open_dataset(data, source_rate=parse_rate(4), boundaries=found)
        with pytest.raises(InputError, match=line):
            open_judge(folder, "1", EvalConfig())
        encoded = ("encode", tmp_path / "run", data, "--source-rate", 4, "--boundaries", found, "--out", out)
        status, _, error = keystep(*encoded)
        assert status == 2 and line in error and not out.exists()
        (found / f"{name}.txt").write_text(lengths)
    (found / "video1.txt").unlink()
    pretrain(keystep, data, out, *settings, "--on-error", "skip")
    state = json.loads(next(out.glob("checkpoints/*/state.json")).read_text())
    assert state["videos"] == ["video0", "video2", "video3"]


def test_the_commands_and_the_python_of_the_page_run(keystep: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    video = np.load(data / "features" / "video6.npy").T
    np.save("video.npy", video)
    names = {"DATA": data.name, "--source-rate 30 --rate 5": "--source-rate 4"}
    page = (Path(__file__).parents[2] / "docs" / "boundaries.md").read_text()
    quick = {"pretrain": SMALL, "eval": QUICK}
    for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            for word, own in names.items():
                line = line.replace(word, own)
            command = shlex.split(line)[1:]
            status, _, error = keystep(*command, *quick.get(command[0], ()))
            assert status == 0, f"{line}: {error}"
    (python,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(python, {"model": PJEPA.from_pretrained("runs/segments/model"), "frames": video})


def test_what_cannot_be_is_one_line_and_nothing_is_written(keystep: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(line: str, *options: object, command: str = "segment") -> None:
        status, _, error = keystep(command, data, "--source-rate", 4, "--out", out, *options)
        assert status == 2 and line in error and len(error.strip().splitlines()) == 1, error
        assert not out.exists()

    refused("--source latents needs --model RUN", "--source", "latents")
    refused("--source features uses no model", "--source", "features", "--model", tmp_path)
    refused("did you mean window?", "--set", "windows=3")
    refused("window: Input should be less than or equal to 86400", "--set", "window=1e300")
    for name in ("window", "shortest", "longest", "span", "context", "per_minute"):
        refused(f"{name}: Input should be a finite number, not inf", "--set", f"{name}=.inf")
    refused("--tolerance inf: give a number of seconds", "--tolerance", "inf")
    refused("--set source=latents: give --source latents instead", "--set", "source=latents")
    refused("source: Input should be 'features', 'latents' or 'surprise'", "--source", "sound")
    refused("make window smaller", "--set", "window=100", "--set", "longest=null")
    discovered = (*SMALL, *DISCOVERED)
    both = ("--set", "model.live_attention={kind: causal}", "--set", "data.boundaries=x")
    refused("set model.live_attention=null", *discovered, *both, command="pretrain")
    refused("need the folder that 'keystep segment' wrote", *discovered, command="pretrain")
    refused("nothing else reads one", *SMALL, "--set", "data.boundaries=x", command="pretrain")
    refused("x/segmenter.json: no such file", *discovered, "--set", "data.boundaries=x", command="pretrain")
    poisoned = np.load(data / "features" / "video1.npy")
    poisoned[0, 11] = np.inf
    np.save(data / "features" / "video1.npy", poisoned)
    refused("video1.npy: NaN or infinite value in frame 11")
    refused("no split '9'; splits/ has 1", "--split", 9)
    status, said, _ = keystep("segment", data, "--source-rate", 4, "--out", out, "--on-error", "skip")
    assert status == 0 and "left out" in said and "7 videos" in said and not (out / "video1.txt").exists()
