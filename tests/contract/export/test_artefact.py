"""The files that `export_step` writes: read back, they give the numbers of `keystep.stream`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import keystep
from keystep.errors import InputError
from keystep.export import ExportedStep, artefact, check, export_step, onnx_files, step
from keystep.export.artefact import limit_window
from keystep.heads import Affine, linear_head

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'; make test-all has it")

MakeModel = Callable[..., keystep.PJEPA]
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "export.md").read_text()
MEMORY = {"kind": "causal", "window": 5, "stride": 3, "memory": 17}
PLAIN = {"input_norm": "layer", "centring": False, "readout": "last"}


class Exported(NamedTuple):
    model: keystep.PJEPA
    step: ExportedStep
    folder: Path
    record: dict


HEAD = linear_head(Affine(torch.randn(3, 16), torch.randn(3)), names=("wait", "cut", "tie"))
CASES: dict[str, tuple[dict, dict, dict]] = {
    "causal": ({"kind": "causal", "window": 7}, PLAIN, {}),
    "causal, head": ({"kind": "causal", "window": 7}, PLAIN, {"head": HEAD}),
    "memory": (
        MEMORY,
        {"rotary": "tiled"},
        {"streams": 2, "head": HEAD},
    ),
    "block": ({"kind": "block_causal", "block": 4, "window": 9}, {"dim": 18, "rotary": "tiled"}, {"frames": 8}),
    "bands": ({"kind": "causal", "window": 7}, {"readout_dim": 24, "tau": 2.5}, {"streams": 2, "frames": 4}),
    "hours": ({"kind": "causal", "window": 7}, {"depth": 1, "tau": 6.0}, {"frames": 240, "torch_program": False}),
}
"""Name: pattern, model, export."""


@pytest.fixture(scope="module")
def exported(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The artefact of a case, made once."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            pattern, changes, options = CASES[name]
            model, folder = make_model(pattern, **changes), tmp_path_factory.mktemp("exports") / name
            record = export_step(model, folder, **{"torch_program": True, "source": name, "rate": "5/2", **options})
            block = pattern.get("block", 1)
            step = ExportedStep(model, options.get("frames", block), options.get("streams", 1), options.get("head"))
            made[name] = Exported(model, step, folder, record)
        return made[name]

    return get


def random_features(streams: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(streams, frames, 5, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(
    function: check.StepFunction, features: torch.Tensor, frames: int, state: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Latents (and probabilities) of all frames."""
    parts = []
    for chunk in torch.split(features, frames, dim=1):
        outputs = function(chunk, *state)
        parts.append(outputs[: len(outputs) - len(state)])
        state = outputs[-len(state) :]
    return [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", ["causal", "memory", "block", "bands"])
def test_both_files_give_the_latents_of_the_stream_from_its_first_frame(
    exported: Callable[[str], Exported], name: str
) -> None:
    model, step, folder, _ = exported(name)
    features = random_features(step.streams, 320)
    state, parts = keystep.stream.init(model, step.streams), []
    for chunk in features.split(step.frames, dim=1):
        latents, state = keystep.stream.step(model, chunk, state)
        parts.append(latents)
    expected = torch.cat(parts, dim=1)
    program = torch.export.load(folder / "step.pt2").module()
    for function in (program, onnx_files.OnnxStep(folder / "step.onnx")):
        latents, *rest = run(function, features, step.frames, step.initial())
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
        if step.head is not None:
            torch.testing.assert_close(rest[0], HEAD.probabilities(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame", [10_000_000, 2_000_000_000])
def test_positions_stay_exact_after_ten_million_frames(exported: Callable[[str], Exported], frame: int) -> None:
    """A stream taken over there goes on as one taken over early does: distances alone matter."""
    model, step, folder, _ = exported("causal")
    past, following = random_features(1, 30), random_features(1, 40, seed=2)
    function = onnx_files.OnnxStep(folder / "step.onnx")
    latents = []
    for begin in (0, frame):
        state = replace(keystep.stream.init(model), frames=(begin,))
        _, state = keystep.stream.step(model, past, state)
        latents.append(run(function, following, 1, step.taken_over(state))[0])
    torch.testing.assert_close(latents[1], latents[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(latents[1], keystep.stream.step(model, following, state)[0], atol=1e-4, rtol=0)


def test_running_sums_stay_exact_over_144_000_frames(exported: Callable[[str], Exported]) -> None:
    """Eight hours at 5 a second, with features far from zero, so that the sums are large."""
    model, step, folder, _ = exported("hours")
    function, state = onnx_files.OnnxStep(folder / "step.onnx"), step.initial()
    expected, generator = keystep.stream.init(model), torch.Generator().manual_seed(0)
    for _ in range(144_000 // 240):
        features = 20 + torch.randn(1, 240, 5, generator=generator)
        latents, *rest = function(features, *state)
        state = tuple(rest)
        right, expected = keystep.stream.step(model, features, expected)
    assert int(state[0]) == 144_000
    torch.testing.assert_close(latents, right, atol=1e-5, rtol=0)
    named = dict(zip((tensor.name for tensor in step.state), state, strict=True))
    for name in ("total", "around.sums", "memory.sums"):
        torch.testing.assert_close(named[name] / 144_000, expected.memory.states[name] / 144_000, atol=1e-7, rtol=0)


def test_keys_and_values_may_be_written_over_their_old_ones(exported: Callable[[str], Exported]) -> None:
    """What ``shareable`` promises, as docs/export.md does it: one buffer for input and output, and the same bits."""
    _, step, folder, record = exported("memory")
    features = random_features(2, 600)
    function = onnx_files.OnnxStep(folder / "step.onnx")
    expected = run(function, features, 1, step.initial())[0]
    session, value = function.session, onnxruntime.OrtValue.ortvalue_from_numpy
    bindings, frames, latents = [session.io_binding(), session.io_binding()], value(features[:, :1].numpy()), []
    for part in record["state"]:
        old = value(np.full(part["shape"], part["initial"], part["dtype"]))
        new = old if part["shareable"] else value(np.full(part["shape"], part["initial"], part["dtype"]))
        for binding, (before, after) in zip(bindings, [(old, new), (new, old)], strict=True):
            binding.bind_ortvalue_input(part["input"], before)
            binding.bind_ortvalue_output(part["output"], after)
    for binding in bindings:
        binding.bind_ortvalue_input("features", frames)
        for output in record["outputs"]:
            binding.bind_output(output["name"])
    for number, chunk in enumerate(features.split(1, dim=1)):
        frames.update_inplace(chunk.contiguous().numpy())
        session.run_with_iobinding(bindings[number % 2])
        latents.append(torch.from_numpy(bindings[number % 2].copy_outputs_to_cpu()[-2]))
    assert torch.equal(torch.cat(latents, dim=1), expected)


def test_the_record_says_all_that_a_runner_needs(exported: Callable[[str], Exported]) -> None:
    model, _, folder, record = exported("memory")
    assert sorted(path.name for path in folder.iterdir()) == ["step.json", "step.onnx", "step.pt2"]
    assert json.loads((folder / "step.json").read_text()) == record
    assert record["rate"] == "5/2" and record["attention"] == "causal, window 5, every 3 to 17"
    assert (record["frames"], record["streams"], record["delay_frames"]) == (1, 2, 0)
    assert record["weights"] == keystep.persistence.weights_signature(model)
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    inputs = [(value.name, value.shape) for value in session.get_inputs()]
    outputs = [(value.name, value.shape) for value in session.get_outputs()]
    state = record["state"]
    assert inputs == [("features", record["features"]["shape"])] + [(part["input"], part["shape"]) for part in state]
    named = [(output["name"], output["shape"]) for output in record["outputs"]]
    assert outputs == named + [(part["output"], part["shape"]) for part in state]
    for checked in record["files"].values():
        assert checked["compared_with"] == "keystep.stream" and 0 < checked["largest_difference"] < 1e-5
        probabilities = checked["probabilities"]
        assert 0 < probabilities["mean_difference"] < probabilities["largest_difference"] < 1e-5
        assert probabilities["changed"] == 0


@torch.no_grad()
def test_int8_is_measured_on_the_given_videos_and_what_it_moves_is_recorded(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """Against runs of both files over the same videos, each from its first frame, the last half call left out."""
    model = make_model({"kind": "causal", "window": 7})
    head = linear_head(Affine(torch.randn(30, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(30)))
    videos = [3 * random_features(1, frames, seed)[0].numpy() for frames, seed in ((401, 5), (200, 6))]
    record = export_step(model, tmp_path / "out", frames=2, int8=True, head=head, features=videos)
    said = record["files"]["step.int8.onnx"]["features"]
    assert (said["videos"], said["frames"]) == (2, 600)
    fine, rough = (onnx_files.OnnxStep(tmp_path / "out" / name) for name in ("step.onnx", "step.int8.onnx"))
    initial = ExportedStep(model, 2, 1, head).initial()
    runs = [[run(step, torch.tensor(x[None, : len(x) // 2 * 2]), 2, initial) for x in videos] for step in (rough, fine)]
    (latents, probabilities), right = ([torch.cat(part, dim=1) for part in zip(*run, strict=True)] for run in runs)
    apart = (latents - right[0]).abs()
    assert (said["largest_difference"], said["mean_difference"]) == pytest.approx(
        (float(apart.max()), float(apart.mean()))
    )
    apart, of_classes = (probabilities - right[1]).abs(), said["probabilities"]
    assert of_classes["largest_difference"] == pytest.approx(float(apart.max())) and apart.max() > 1e-3
    assert of_classes["mean_difference"] == pytest.approx(float(apart.mean()))
    changed = (probabilities.argmax(-1) != right[1].argmax(-1)).double().mean()
    assert of_classes["changed"] == pytest.approx(float(changed), abs=1e-6) and 0 < changed < 0.5
    alone = export_step(model, tmp_path / "out", frames=2, int8=True, features=videos[0])["files"]["step.int8.onnx"]
    assert alone["features"]["frames"] == 400 and "probabilities" not in alone["features"]


BROKEN = np.ones((8, 5), np.float32)
BROKEN[6, 2] = np.nan
UNSUITED = [
    (np.ones((8, 4)), r"features 1: shape \(8, 4\); expected \(T, 5\) with T >= 2"),
    ([np.ones((8, 5)), np.ones((1, 5))], r"features 2: shape \(1, 5\)"),
    (BROKEN, "features 1: NaN or infinite value in frame 6"),
]


@pytest.mark.parametrize(("features", "line"), UNSUITED)
def test_videos_that_cannot_be_measured_on_are_refused(
    make_model: MakeModel, tmp_path: Path, features: np.ndarray, line: str
) -> None:
    model = make_model(MEMORY)
    with pytest.raises(InputError, match=line):
        export_step(model, tmp_path / "out", frames=2, int8=True, features=features)
    with pytest.raises(InputError, match="only used to measure the error of int8; add --int8"):
        export_step(model, tmp_path / "out", frames=2, features=features)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["step.pt2", "step.onnx"])
def test_a_file_with_wrong_probabilities_is_never_written(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Its latents are right: a head that went into the program with its classes swapped."""
    run = step.ExportedStep._run

    def swapped(self: ExportedStep, *inputs: object) -> tuple:
        (latents, probabilities), contexts = run(self, *inputs)
        return (latents, probabilities.flip(-1)), contexts

    monkeypatch.setattr(step.ExportedStep, "_run", swapped)
    options = {"onnx": broken == "step.onnx", "torch_program": broken == "step.pt2"}
    with pytest.raises(InputError, match=rf"{broken} differs from keystep\.stream: probabilities differ"):
        export_step(make_model(MEMORY), tmp_path / "out", head=HEAD, **options)
    assert not (tmp_path / "out").exists()


def test_a_steep_head_is_no_reason_to_refuse_right_files() -> None:
    """It turns the rounding of latents into large differences of probabilities; the record says how large."""
    head = linear_head(Affine(1e3 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(3)))
    latents = 1e-3 * random_features(1, 64).repeat(1, 1, 4)[..., :16]
    moved = latents + 5e-5 * latents.sign()
    right, got = ((x, head.probabilities(x)) for x in (latents, moved))
    trial = check.Trial([(latents, ())])
    said = artefact._check_step("step.onnx", got, check.Reference(trial, right, head, (keystep.stream.init(head),)))
    assert said["probabilities"]["largest_difference"] > check.TOLERANCE > said["largest_difference"]


def test_a_window_given_at_export_limits_the_attention(make_model: MakeModel) -> None:
    """Its latents are those of the same weights with that window, and no longer those of the model."""
    model = make_model({"kind": "bidirectional"}, live_attention={"kind": "causal"})
    twin, features = limit_window(model, 6), random_features(1, 40)
    step = ExportedStep(twin, 40)
    with torch.no_grad():
        latents = step(features, *step.initial())[0]
    windowed = model.config.live_attention.model_copy(update={"window": 6})
    torch.testing.assert_close(latents, model.encode(features, pattern=windowed), atol=1e-5, rtol=0)
    unlimited = model.encode(features, pattern=model.config.live_attention)
    assert (latents - unlimited).abs().max() > 1e-3
    with pytest.raises(InputError, match=r"already has a window.*; remove --window 3"):
        limit_window(twin, 3)
    with pytest.raises(InputError, match="--window must be at least 1, not 0"):
        limit_window(model, 0)


def test_the_folder_is_complete_or_absent(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong numbers, a full disk, somebody else's files: what was there before is there still."""
    model, folder = make_model(MEMORY), tmp_path / "out"
    options = {"onnx": False, "torch_program": True}
    export_step(model, folder, **options)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(check, "TOLERANCE", 0.0)
        with pytest.raises(InputError, match=r"step\.pt2 differs from keystep\.stream.*nothing was written"):
            export_step(model, folder, **options)
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InputError, match="No space left on device; nothing was changed"):
            export_step(model, tmp_path / "new", **options)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt'"):
        export_step(model, folder, **options)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.name != "notes.txt"} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_missing_package_and_an_empty_choice_are_one_line(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"needs onnxscript: pip install 'keystep\[export\]'"):
        export_step(make_model(MEMORY), tmp_path / "out")
    with pytest.raises(InputError, match="nothing to export"):
        export_step(make_model(MEMORY), tmp_path / "out", onnx=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["causal, head", "block"])
def test_the_example_streams_where_torch_cannot_be_imported(
    exported: Callable[[str], Exported], tmp_path: Path, name: str
) -> None:
    model, step, folder, _ = exported(name)
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "torch.py").write_text("raise ImportError('no torch here')\n")
    features = random_features(1, 101)
    np.save(tmp_path / "features.npy", features[0].numpy())
    script = [sys.executable, ROOT / "examples" / "stream_without_torch.py"]
    command = [*script, folder, tmp_path / "features.npy", tmp_path / "latents.npy"]
    command += [tmp_path / "steps.txt"] if step.head is not None else []
    environment = {"PYTHONPATH": str(tmp_path / "shim"), "OMP_NUM_THREADS": "1"}
    refused = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "no torch here" in refused.stderr
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    latents = torch.from_numpy(np.load(tmp_path / "latents.npy"))
    whole = 101 // step.frames * step.frames
    torch.testing.assert_close(latents, model.encode(features[:, :whole])[0], atol=1e-5, rtol=0)
    if step.head is not None:
        best = HEAD.probabilities(latents[None])[0].argmax(1)
        assert (tmp_path / "steps.txt").read_text().splitlines() == [HEAD.name(int(index)) for index in best]


def test_the_lines_in_the_docs_are_those_of_the_example() -> None:
    example = (ROOT / "examples" / "stream_without_torch.py").read_text().split('"""', 2)[2].strip()
    assert example.replace("  # noqa: PTH123", "") in PAGE


def test_the_commands_in_the_docs_write_what_they_say_and_how_exact_it_is(
    make_model: MakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from keystep.cli import main

    monkeypatch.chdir(tmp_path)
    make_model({"kind": "bidirectional"}, live_attention={"kind": "causal"}).save_pretrained("runs/pjepa")
    linear_head(HEAD.steps, names=HEAD.names, origin={"rate": "5/2", "mode": "causal"}).save("head.safetensors")
    np.save("video.npy", random_features(1, 60)[0].numpy().T)

    def run_command(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", command.split())
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    status, _, error = run_command("keystep export runs/pjepa --out exported")
    assert status == 2 and error.count("\n") == 1 and "--window N" in error
    status, said, _ = run_command("keystep export runs/pjepa --out short --torch --window 6 --frames 2")
    assert status == 0 and "causal, window 6; 2 frames of 1 stream per call, the first delayed by 1 frame" in said
    for command in re.findall(r"^keystep export [^#\n]*", PAGE, flags=re.MULTILINE):
        status, said, error = run_command(command)
        assert status == 0 and error == "", f"{command}: {error}"
        out = command.split("--out ")[1].split()[0]
        assert f"{out}/step.onnx: " in said and "latents differ from those without a window" in said
        record = json.loads(Path(out, "step.json").read_text())
        assert record["rate"] == ("5/2" if "--head" in command else None)
        assert ("with --features FILE.npy" in said) == ("--int8" in command and "--features" not in command)
        assert said.count("probabilities by at most") == (3 if "--head" in command else 0)  # onnx, int8, int8 on video
        assert ("int8 on 1 video of yours: latents differ by" in said) == ("--features" in command)
        measured = record["files"].get("step.int8.onnx", {}).get("features", {"frames": 0})
        assert measured["frames"] == (60 if "--features" in command else 0)
    written = {path.name for folder in ("exported", "with-head", "with-torch") for path in Path(folder).iterdir()}
    assert written == set(artefact.FILES)
    record = json.loads(Path(out, "step.json").read_text())
    assert record["limited_to_window"] == 512 and record["model"] == "runs/pjepa"
    int8 = record["files"]["step.int8.onnx"]
    assert int8["compared_with"] == "step.onnx" and 0 < int8["mean_difference"] < int8["largest_difference"] < 0.5
