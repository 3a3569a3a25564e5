"""What a live step costs: keystep.stream, its torch.export program, ONNX Runtime and int8, in turn in one process.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/export.py --preset small --frames 1 --steps 1500

Every case gets the same random frames, one call each in turn, with full buffers (keys and values of the whole window),
on one thread. "in place": keys and values bound to one buffer for input and output. Memory floor: a matrix-vector
product over as many bytes as weights, keys and values have in float32, which a step of one frame has to read.

    python benchmarks/export.py --accuracy demo

What int8 costs the causal head of the model that `make demo` trains, on the test videos of its data set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from keystep import stream
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.config.presets import preset_settings
from keystep.data.folder import open_dataset
from keystep.export import ExportedStep, export_step
from keystep.export.artefact import limit_window
from keystep.export.check import video_trial
from keystep.export.onnx_files import OnnxStep
from keystep.heads import load_head
from keystep.metrics import segmentation_scores
from keystep.pjepa import PJEPA
from measure import parser

Step = Callable[[torch.Tensor], object]
FLOOR = "memory floor"


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    if options.accuracy is None:
        _time(options)
    else:
        _accuracy(options.accuracy, options.window)


def _time(options: argparse.Namespace) -> None:
    """Every case in turn, behind what the files are."""
    torch.manual_seed(0)
    settings = preset_settings(options.preset).get("model", {})
    model = PJEPA(build(ModelConfig, settings, {"input_dim": options.width})).eval()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "exported"
        record = export_step(model, out, frames=options.frames, torch_program=True, int8=True)
        step = ExportedStep(model, record["frames"])
        sizes = {name: (out / name).stat().st_size / 2**20 for name in record["files"]}
        cases = _cases(model, step, record, out)
    print(f"{options.preset}, {record['attention']}; {record['frames']} frame(s) a call, features {options.width} wide")
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, one thread, {options.steps} calls each")
    for name, checked in record["files"].items():
        differs = f"{checked['largest_difference']:.1e} at most, {checked['mean_difference']:.1e} on average"
        print(f"{name}: {sizes[name]:.1f} MiB; from {checked['compared_with']}: {differs}")
    times = _interleaved(cases, torch.randn(64, *step.input_shape), options.steps)
    print(f"{'ms a call':<34}{'p50':>8}{'p99':>8}{'per frame':>11}{'of floor':>10}")
    for name, samples in times.items():
        middle, high = statistics.median(samples), float(np.quantile(samples, 0.99))
        floor = middle / statistics.median(times[FLOOR])
        print(f"{name:<34}{1e3 * middle:8.2f}{1e3 * high:8.2f}{1e3 * middle / record['frames']:11.2f}{floor:10.2f}")


@torch.no_grad()
def _accuracy(demo: Path, window: int) -> None:
    """Scores of the causal head on every test video: without a window, with it in float32, and in int8."""
    model = PJEPA.from_pretrained(demo / "runs" / "pjepa" / "model").eval()
    head = load_head(demo / "report" / "heads" / "pjepa-causal-seed0.safetensors")
    folder = open_dataset(demo / "data")
    names = folder.split("1").test
    videos, truths = [folder.features(name) for name in names], [folder.labels(name) for name in names]
    pattern = model.config.stream_attention
    encoded = [model.encode(torch.from_numpy(video)[None], pattern=pattern)[0] for video in videos]
    steps = {f"keystep, {pattern}": [head.probabilities(latents).argmax(-1).numpy() for latents in encoded]}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "exported"
        record = export_step(model, out, window=window, int8=True, head=head, features=videos)
        step = ExportedStep(limit_window(model, window), record["frames"], 1, head)
        for name in ("step.onnx", "step.int8.onnx"):
            function = OnnxStep(out / name)
            runs = [video_trial(step, [video]).run(function, step.frames) for video in videos]
            steps[f"{name}, window {window}"] = [probabilities[0].argmax(-1).numpy() for _, probabilities in runs]
    baseline = np.concatenate(list(steps.values())[1])
    print(f"{len(videos)} test videos of split 1, {len(baseline)} frames, longest {max(map(len, videos))}")
    print(f"int8 on them: {json.dumps(record['files']['step.int8.onnx']['features'], indent=2)}")
    print(f"{'':<26}{'accuracy':>10}{'edit':>8}{'F1@10':>8}{'F1@25':>8}{'F1@50':>8}{'changed':>10}")
    for name, predictions in steps.items():
        scores = segmentation_scores(predictions, truths)
        row = "".join(f"{scores[key]:8.2f}" for key in ("edit", "f1@10", "f1@25", "f1@50"))
        changed = 100 * float((np.concatenate(predictions) != baseline).mean())
        print(f"{name:<26}{scores['accuracy']:10.2f}{row}{changed:8.2f} %")


def _interleaved(cases: dict[str, Step], features: torch.Tensor, steps: int) -> dict[str, list[float]]:
    """Wall seconds of each call, behind a tenth as many that warm up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-steps // 10, steps):
        for name, work in cases.items():
            start = time.perf_counter()
            work(features[number % len(features)])
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def _cases(model: PJEPA, step: ExportedStep, record: dict[str, Any], folder: Path) -> dict[str, Step]:
    return {
        "keystep.stream (eager)": _eager(model, step),
        "torch.export program": _program(step, folder / "step.pt2"),
        "ONNX Runtime": _onnx(record, folder / "step.onnx"),
        "ONNX Runtime, in place": _in_place(record, folder / "step.onnx"),
        "ONNX Runtime int8": _onnx(record, folder / "step.int8.onnx"),
        "ONNX Runtime int8, in place": _in_place(record, folder / "step.int8.onnx"),
        FLOOR: _floor(model, step),
    }


def _eager(model: PJEPA, step: ExportedStep) -> Step:
    past = step.columns.reach // step.frames * step.frames + step.frames
    _, state = stream.step(model, torch.randn(1, past, step.input_shape[2]), stream.init(model))

    def work(features: torch.Tensor) -> None:
        nonlocal state
        _, state = stream.step(model, features, state)

    return work


def _program(step: ExportedStep, path: Path) -> Step:
    function, state = torch.export.load(path).module(), step.initial()

    @torch.no_grad()
    def work(features: torch.Tensor) -> None:
        nonlocal state
        _, *rest = function(features, *state)
        state = tuple(rest)

    return work


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx(record: dict[str, Any], path: Path) -> Step:
    """As in docs/export.md."""
    session = _session(path)
    state = {part["input"]: np.full(part["shape"], part["initial"], part["dtype"]) for part in record["state"]}

    def work(features: torch.Tensor) -> None:
        outputs = session.run(None, {"features": features.numpy(), **state})
        state.update(zip(state, outputs[len(record["outputs"]) :], strict=True))

    return work


def _in_place(record: dict[str, Any], path: Path) -> Step:
    """Keys and values in one buffer each; the other state tensors take turns between two."""
    session, value = _session(path), onnxruntime.OrtValue.ortvalue_from_numpy
    bindings = [session.io_binding(), session.io_binding()]
    frames = value(np.zeros(record["features"]["shape"], np.float32))
    latents = value(np.zeros(record["outputs"][0]["shape"], np.float32))
    for part in record["state"]:
        zeros = np.full(part["shape"], part["initial"], part["dtype"])
        old = value(zeros)
        new = old if part["shareable"] else value(zeros.copy())
        for binding, (before, after) in zip(bindings, [(old, new), (new, old)], strict=True):
            binding.bind_ortvalue_input(part["input"], before)
            binding.bind_ortvalue_output(part["output"], after)
    for binding in bindings:
        binding.bind_ortvalue_input("features", frames)
        binding.bind_ortvalue_output("latents", latents)

    def work(features: torch.Tensor) -> None:
        frames.update_inplace(features.numpy())
        session.run_with_iobinding(bindings[0])
        latents.numpy().copy()
        bindings.reverse()

    return work


def _floor(model: PJEPA, step: ExportedStep) -> Step:
    """Read as many numbers as weights, keys and values of the encoder once."""
    weights = sum(parameter.numel() for parameter in model.encoder.parameters())
    held = sum(tensor.initial().numel() for tensor in step.state if tensor.shareable)
    matrix, vector = torch.randn((weights + held) // 1024, 1024), torch.randn(1024)
    return lambda _: matrix @ vector


def _options() -> argparse.Namespace:
    found = parser(__doc__, preset="small", width=2048)
    found.add_argument("--frames", type=int, default=1, help="a call")
    found.add_argument("--steps", type=int, default=1500)
    found.add_argument("--accuracy", type=Path, metavar="DEMO", help="folder of 'keystep demo': scores, not times")
    found.add_argument("--window", type=int, default=512, help="of attention, with --accuracy")
    return found.parse_args()


if __name__ == "__main__":
    main()
