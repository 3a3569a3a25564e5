"""Checks and timings on a GPU, in minutes and without network.

    PYTHONPATH=src python benchmarks/gpu.py                       # everything; writes benchmarks/results/gpu-<card>.md
    PYTHONPATH=src python benchmarks/gpu.py --only attention,stream --out /tmp/gpu
    PYTHONPATH=src python benchmarks/gpu.py --small               # the same on the CPU, small: does the script work?

Sections:

    attention   every pattern, forward and backward, against `attend_reference` in float64; float32, bfloat16, float16
    model       encode on the GPU against the CPU; gradients of a padded batch under autocast are finite
    stream      `keystep.stream` against `PJEPA.encode`
    train       pretraining steps, 32-true and bf16-mixed, against the CPU; a resumed run against an unbroken one
    speed       encode, training steps, live frames and `pretrain` against the card's matrix product

Each section runs in a process of its own, so that a crash, a hang or a broken CUDA context costs that section alone. A
check whose packages are missing is reported as not run; a machine without network can be given them as wheels (images
for machine learning often lack pydantic, pydantic_core, annotated_types, typing_inspection and lightning_fabric). The
exit status is 1 if a check failed, a section died or nothing could be run, and 2 without a GPU. An error is the largest
difference over the reference's largest value.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from keystep.config import ModelConfig
    from keystep.config.attention import AttentionPattern
    from keystep.nn.places import Places
    from keystep.pjepa import PJEPA

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "pydantic", "safetensors", "huggingface_hub", "lightning_fabric", "scikit-learn", "scipy")
TENSORS = ("output", "query gradient", "key gradient", "value gradient")
TOLERANCES = {"float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}
"""Attention's errors. On an H200, float32 was within 9e-7 and bfloat16 within 5e-3."""
ENCODE_TOLERANCE = 1e-4
"""Latents of one model on two devices, or streamed and offline; 8e-6 on an H200."""
STEP_TOLERANCE = {"32-true": 1e-3, "bf16-mixed": 3e-2}
"""Losses on the GPU against those in float32 on the CPU."""
HIDDEN = 0.6


@dataclass
class Check:
    """What came of one claim. status: ``passed``, ``failed``, or ``not run`` with the reason in ``note``."""

    name: str
    status: str
    error: float | None = None
    tolerance: float | None = None
    note: str = ""


@dataclass
class Timing:
    """What one piece of work costs. share: of the card's matrix product in the same precision."""

    name: str
    milliseconds: float
    frames_per_second: float | None = None
    share: float | None = None
    peak_gib: float | None = None
    note: str = ""


class NotRun(Exception):
    """A check that this machine cannot do, and why."""


@dataclass
class Record:
    """All that a section found out, written to ``path`` after every check, so that a crash loses none of it."""

    section: str
    small: bool
    path: str
    environment: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    seconds: float = 0.0
    begun: float = field(default_factory=time.time)

    def check(self, name: str, claim: Callable[[], tuple[float, float, str]]) -> None:
        """Run one claim, which gives (error, tolerance, note); whatever goes wrong in it is written down."""
        begin = time.perf_counter()
        with self._catching(name):
            error, tolerance, note = claim()
            self._add(Check(name, "passed" if error <= tolerance else "failed", error, tolerance, note), begin)

    def time(self, name: str, measure: Callable[[], Timing]) -> Timing | None:
        """Take one timing; one that cannot be taken is a failed check."""
        timing: Timing | None = None
        with self._catching(name):
            timing = measure()
            self.timings.append(timing)
            print("  " + "  ".join(cell for cell in _cells(timing) if cell), flush=True)
        _release()
        self.save()
        return timing

    @contextlib.contextmanager
    def _catching(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        except (ModuleNotFoundError, NotRun) as reason:
            missing = isinstance(reason, ModuleNotFoundError)
            self._add(Check(name, "not run", note=f"needs {reason.name}" if missing else str(reason)), begin)
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            note = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._add(Check(name, "failed", note=note), begin)

    def _add(self, check: Check, begin: float) -> None:
        self.checks.append(check)
        figures = "" if check.error is None else f" error {check.error:.1e}, allowed {check.tolerance:.0e};"
        seconds = time.perf_counter() - begin
        print(f"  {check.status:8}{check.name}:{figures} {check.note} ({seconds:.1f} s)", flush=True)
        self.save()

    def save(self) -> None:
        """Write all that is known by now."""
        self.seconds = time.time() - self.begun
        Path(self.path).write_text(json.dumps(asdict(self)))


def main() -> None:
    options = _options()
    chosen = options.only.split(",") if options.only else list(SECTIONS)
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        sys.exit(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if options.child is not None:
        _run_section(chosen[0], options.small, options.child)
        return
    if not options.small and _device() == "cpu":
        print("torch sees no CUDA device; --small runs the same checks on the CPU", file=sys.stderr)
        sys.exit(2)
    records = run_all(chosen, options.small, options.minutes)
    out = options.out or (None if options.small else RESULTS)
    if out is not None:
        write(records, out)
    print("\n" + markdown(records))
    failed = [check for record in records for check in record.checks if check.status == "failed"]
    passed = any(check.status == "passed" for record in records for check in record.checks)
    sys.exit(1 if failed or not (passed or any(record.timings for record in records)) else 0)


def run_all(sections: Sequence[str], small: bool, minutes: float) -> list[Record]:
    """Each section in a process of its own; what a dead one had found out by then is kept."""
    begin = time.perf_counter()
    records = []
    for section in sections:
        left = 60 * minutes - (time.perf_counter() - begin)
        print(f"{section} ({left:.0f} s left)", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "record.json"
            command = [sys.executable, "-u", __file__, "--only", section, "--child", str(path)] + ["--small"] * small
            hidden = {"CUDA_VISIBLE_DEVICES": ""} if small else {}
            try:
                status: object = subprocess.run(command, timeout=max(1.0, left), env=os.environ | hidden).returncode
            except subprocess.TimeoutExpired:
                status = "out of time"
            record = _load(path) if path.exists() else Record(section, small, str(path))
        if status:
            record.checks.append(Check(section, "failed", note=f"the section's process ended early: {status}"))
            print(f"  failed  {section}: its process ended early: {status}", flush=True)
        records.append(record)
    return records


def _run_section(section: str, small: bool, path: Path) -> None:
    record = Record(section, small, str(path))
    record.environment = environment()
    record.save()
    with record._catching(section):
        SECTIONS[section](record)
    record.save()


def attention(record: Record) -> None:
    """Forward and backward of `attend` against the reference, one check a pattern, precision and shape of heads."""
    from keystep.config.attention import AttentionPattern

    patterns = [
        AttentionPattern(),
        AttentionPattern(window=96),
        AttentionPattern(kind="causal"),
        AttentionPattern(kind="causal", window=96),
        AttentionPattern(kind="causal", window=64, stride=32, memory=512),
        AttentionPattern(kind="block_causal", block=64),
        AttentionPattern(kind="block_causal", block=64, window=100),
        AttentionPattern(kind="segment_causal"),
        AttentionPattern(kind="segment_causal", window=96),
    ]
    heads = {(2, 16): [200]} if record.small else {(4, 88): [64, 200, 256, 1000, 1024], (6, 64): [200, 1024]}
    for precision in TOLERANCES:
        record.check(f"attention, two videos of 200 and 100 frames, {precision}", partial(_padded_case, precision))
        for backend in [] if record.small else ["MATH", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"]:
            record.check(f"the same, kernel {backend}, {precision}", partial(_padded_case, precision, backend))
        for pattern in patterns:
            for shape, lengths in heads.items():
                record.check(
                    f"attention, {pattern}, {shape[0]} x {shape[1]}, {precision}",
                    partial(_worst_attention, pattern, shape, precision, lengths),
                )


def _padded_case(precision: str, kernel: str | None = None) -> tuple[float, float, str]:
    """The batch whose queries' gradient was NaN at rows 100 to 191 of the shorter video, in bf16 and fp16 on a GPU."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from keystep.config.attention import AttentionPattern

    pattern = AttentionPattern(kind="block_causal", block=64)
    chosen = contextlib.nullcontext() if kernel is None else sdpa_kernel(getattr(SDPBackend, kernel))
    try:
        with chosen:
            error, note = _attention_error(pattern, (4, 88), precision, _places(200, "cut to half"))
    except RuntimeError as refused:
        if kernel is None or "kernel" not in str(refused).lower():
            raise
        raise NotRun("torch has no such kernel for these tensors") from refused
    return error, TOLERANCES[precision], note


def _worst_attention(
    pattern: AttentionPattern, shape: tuple[int, int], precision: str, lengths: Sequence[int]
) -> tuple[float, float, str]:
    """The worst of all lengths and paddings; a failing one is printed with what differs."""
    tolerance, worst, where = TOLERANCES[precision], 0.0, ""
    failures = 0
    for length in lengths:
        for padding in ("none", "cut to half", "one frame left", "gaps", "a row without frames"):
            error, note = _attention_error(pattern, shape, precision, _places(length, padding))
            if not error <= tolerance:
                failures += 1
                print(f"    T {length}, padding {padding}: error {error:.1e}, {note}", flush=True)
            if math.isnan(error) or error > worst:
                worst, where = error, f"T {length}, padding {padding}, {note}"
    failed = f"{failures} of {5 * len(lengths)} cases fail; " if failures else ""
    return worst, tolerance, failed + "worst: " + where


def _places(length: int, padding: str) -> Places:
    """Two videos, as the encoder lays them out: frames left out are closed up, what is left over is padding."""
    import torch

    from keystep.nn.places import Packing, lay_out

    valid = torch.ones(2, length, dtype=torch.bool)
    keep = valid.clone()
    if padding == "cut to half":
        valid[1, length // 2 :] = False
    elif padding == "one frame left":
        valid[1, 1:] = False
    elif padding == "a row without frames":
        keep[1] = False
    elif padding == "gaps":
        keep = torch.rand(2, length, generator=torch.Generator().manual_seed(length)) < torch.tensor([[0.9], [0.4]])
        keep[:, 0] = True
    frames = valid.sum(1)
    first = (frames // 3).clamp(min=1)
    segments = torch.stack([first, frames - first], dim=1)
    valid, keep, segments = (x.to(_device()) for x in (valid, keep, segments))
    return Packing(keep & valid).places(lay_out(valid, segments))


def _attention_error(
    pattern: AttentionPattern, shape: tuple[int, int], precision: str, places: Places
) -> tuple[float, str]:
    """The largest error of output and gradients, and where it is."""
    import torch

    from keystep.nn.attention import attend, attend_reference

    heads, width = shape
    batch, rows = places.positions.shape
    generator = torch.Generator(_device()).manual_seed(rows + heads)
    dtype = getattr(torch, precision)
    drawn = torch.randn(4, batch, heads, rows, width, generator=generator, device=_device()).to(dtype)
    given = [part.clone().requires_grad_() for part in drawn[:3]]
    wide = [part.double().requires_grad_() for part in drawn[:3]]
    out = attend(*given, pattern, places)  # type: ignore[arg-type]
    wanted = attend_reference(*wide, pattern, places)  # type: ignore[arg-type]
    found = (out, *torch.autograd.grad(out, given, drawn[3]))
    expected = (wanted, *torch.autograd.grad(wanted, wide, drawn[3].double()))
    worst, note = -1.0, ""
    for name, a, b in zip(TENSORS, found, expected, strict=True):
        error = relative(a, b)
        if math.isnan(error):
            video, head, row, _ = (~a.isfinite()).nonzero()[0].tolist()
            bad = int((~a.isfinite()).any(-1).sum())
            return error, f"{name} is not finite in {bad} rows, first: video {video}, head {head}, row {row}"
        if error > worst:
            worst, note = error, name
    return worst, note


def model(record: Record) -> None:
    """Whole models: on this device against float64 on the CPU, and gradients of what pads."""
    for name in ["tiny"] if record.small else ["tiny", "small", "paper"]:
        for length in [70] if record.small else [200, 1000]:
            record.check(f"encode, {name}, T {length}, against the CPU", partial(_encode_error, name, length))
        record.check(f"encode, {name}, bfloat16 autocast, against float32", partial(_autocast_error, name))
    for name in ["tiny", "blocks"] if record.small else ["tiny", "blocks", "small", "paper"]:
        for precision in ("bfloat16", "float16"):
            record.check(
                f"gradients of a padded batch, {name}, {precision} autocast",
                partial(_gradients, name, precision),
            )


def _encode_error(name: str, length: int) -> tuple[float, float, str]:
    import torch

    offline = _pjepa(name).cpu()
    features = torch.randn(2, length, 48, generator=torch.Generator().manual_seed(1))
    valid = torch.arange(length) < torch.tensor([[length], [length // 2]])
    patterns = [offline.config.attention, offline.config.live_attention]
    errors = []
    for pattern in patterns:
        if pattern is None:
            continue
        wanted = offline.encode(features, valid, pattern=pattern)
        found = offline.to(_device()).encode(features, valid, pattern=pattern).cpu()
        offline.cpu()
        if bool(found[~valid].any()):
            return math.inf, ENCODE_TOLERANCE, f"{pattern}: padding is not zero"
        errors.append(relative(found, wanted))
    return max(errors, key=_badness), ENCODE_TOLERANCE, f"{len(errors)} patterns"


def _autocast_error(name: str) -> tuple[float, float, str]:
    import torch

    pjepa = _pjepa(name)
    features = torch.randn(2, 500, 48, generator=torch.Generator().manual_seed(1)).to(_device())
    valid = (torch.arange(500) < torch.tensor([[500], [250]])).to(_device())
    wanted = pjepa.encode(features, valid)
    with torch.autocast(_device(), torch.bfloat16):
        found = pjepa.encode(features, valid)
    return relative(found, wanted), 5e-2, "largest difference"


def _gradients(name: str, precision: str) -> tuple[float, float, str]:
    """How many parameters get a gradient that is not finite where heads or a training see whole, padded videos."""
    import torch

    from keystep.batch import SequenceBatch

    pjepa = _pjepa(name).train()
    features = torch.randn(2, 200, 48, generator=torch.Generator().manual_seed(2))
    valid = torch.arange(200) < torch.tensor([[200], [100]])
    batch = SequenceBatch(features, valid).to(_device())
    hidden = torch.zeros_like(batch.valid)
    hidden[:, 40:60] = True
    with torch.autocast(_device(), getattr(torch, precision)):
        output = pjepa(batch, hidden)
        whole = pjepa.encoder(batch, batch.valid, pjepa.config.attention)
    loss = output.predictions[batch.valid].float().square().mean() + whole[batch.valid].float().square().mean()
    loss.backward()
    named = [(name, p.grad) for name, p in pjepa.named_parameters()]
    bad = [name for name, grad in named if grad is not None and not bool(grad.isfinite().all())]
    note = f"loss {loss.item():.3f}; not finite: {', '.join(bad[:3])}" if bad else f"loss {loss.item():.3f}"
    return float(len(bad)), 0.0, note


def stream(record: Record) -> None:
    """Chunk by chunk against the whole video."""
    from keystep.config.attention import AttentionPattern

    patterns = [
        AttentionPattern(kind="causal"),
        AttentionPattern(kind="causal", window=50),
        AttentionPattern(kind="causal", window=32, stride=16, memory=128),
        AttentionPattern(kind="block_causal", block=64),
        AttentionPattern(kind="block_causal", block=16, window=50),
    ]
    length = 90 if record.small else 400
    for pattern in patterns:
        record.check(f"stream = offline, {pattern}", partial(_stream_error, pattern, length))


def _stream_error(pattern: AttentionPattern, length: int) -> tuple[float, float, str]:
    import torch

    import keystep

    pjepa = _pjepa("tiny", attention=pattern, live_attention=None)
    features = torch.randn(2, length, 48, generator=torch.Generator().manual_seed(3)).to(_device())
    wanted = pjepa.encode(features)
    state = keystep.stream.init(pjepa, 2)
    found, begin = [], 0
    with torch.no_grad():
        for size in [1, 7, 64, 33, 2] * length:
            if begin >= length:
                break
            latents, state = keystep.stream.step(pjepa, features[:, begin : begin + size], state)
            found.append(latents)
            begin += size
        latents, state = keystep.stream.finish(pjepa, state)
    whole = torch.cat([*found, latents], dim=1)
    if whole.shape != wanted.shape:
        return math.inf, ENCODE_TOLERANCE, f"{tuple(whole.shape)} instead of {tuple(wanted.shape)}"
    return relative(whole, wanted), ENCODE_TOLERANCE, f"{len(found)} chunks"


def train(record: Record) -> None:
    """`pretrain` itself: a few steps in each precision, and a resume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_features(folder / "data", [150, 290, 200, 64, 100, 201], 48)
        for preset in ["blocks"] if record.small else ["tiny", "blocks"]:
            for precision in ["bf16-mixed"] if record.small else STEP_TOLERANCE:
                record.check(
                    f"pretrain, {preset}, {precision}, against the CPU",
                    partial(_training_error, folder, preset, precision),
                )
        record.check("resume = unbroken", partial(_resume_error, folder))


def _training_error(folder: Path, name: str, precision: str) -> tuple[float, float, str]:
    """Losses of three steps, here and in float32 on the CPU."""
    from keystep.train.records import read_metrics

    settings = {"steps": 3, "precision": precision}
    here = _pretrain(folder, f"{name}-{precision}", name, {**settings, "accelerator": _device()})
    there = _pretrain(folder, f"{name}-{precision}-cpu", name, {**settings, "precision": "32-true"})
    found, wanted = ([line for line in read_metrics(run / "metrics.jsonl") if "loss" in line] for run in (here, there))
    bad = [key for line in found for key, value in line.items() if not math.isfinite(value)]
    if bad or len(found) != 3:
        return math.inf, STEP_TOLERANCE[precision], f"{len(found)} of 3 steps; not finite: {', '.join(bad) or 'none'}"
    errors = [abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(found, wanted, strict=True)]
    losses = " ".join(f"{line['loss']:.4f}" for line in found)
    return max(errors), STEP_TOLERANCE[precision], f"losses {losses}"


def _resume_error(folder: Path) -> tuple[float, float, str]:
    """Weights of a run that went on from its third step against one that did six at once, and of a mere repeat."""
    from keystep.config import run_config
    from keystep.train.run import pretrain

    settings = {"steps": 6, "save_every": 3, "accelerator": _device()}
    whole = _pretrain(folder, "whole", "tiny", settings)
    again = _pretrain(folder, "again", "tiny", settings)
    resumed = folder / "resumed"
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoints" / "step-00000006")
    pretrain(run_config(resumed), resumed, resume=True)
    weights = [_weights(run / "model") for run in (whole, again, resumed)]
    repeat, error = (max(relative(w[k], weights[0][k]) for k in w) for w in weights[1:])
    note = f"a repeat differs by {repeat:.1e}" if repeat else "a repeat is equal to the bit"
    return error, max(1e-6, 10 * repeat) if _device() == "cuda" else 0.0, note


def speed(record: Record) -> None:
    """What the card gives, and what keystep makes of it."""
    peaks, size = {}, 512 if record.small else 8192
    for precision in ("float32", "bfloat16"):
        timing = record.time(f"matrix product, {precision}", partial(_gemm, precision, size))
        if timing is not None:
            peaks[precision] = 2 * size**3 / timing.milliseconds * 1e3
    record.time("copy in device memory", partial(_copy, 2**24 if record.small else 2**31))
    lengths = [500] if record.small else [7200, 54000]
    encodes = [("small", None), ("paper", None), ("paper", 4096), ("paper", 512)]
    for name, window in [("tiny", None)] if record.small else encodes:
        for length in lengths:
            for precision in ("float32", "bfloat16"):
                label = f"encode, {name}{'' if window is None else f', window {window}'}, T {length}, {precision}"
                record.time(label, partial(_encode_cost, label, name, window, length, precision, peaks))
    for name in ["tiny"] if record.small else ["small", "paper"]:
        for precision in ("float32", "bfloat16"):
            label = f"training step, {name}, {precision}"
            shape = (2, 128) if record.small else (24, 2048)
            record.time(label, partial(_step_cost, label, name, shape, precision, peaks))
    for name, chunk in [("tiny", 1)] if record.small else [("small", 1), ("paper", 64)]:
        label = f"live, {name}, {chunk} frames a call"
        record.time(label, partial(_live_cost, label, name, chunk, record.small))
    for name in ["tiny"] if record.small else ["small", "paper"]:
        for precision in ["32-true"] if record.small else ["32-true", "bf16-mixed"]:
            label = f"pretrain, {name}, {precision}"
            record.time(label, partial(_pretrain_cost, label, name, precision, record.small))


def _gemm(precision: str, size: int) -> Timing:
    import torch

    a, b = torch.randn(2, size, size, device=_device(), dtype=getattr(torch, precision)).unbind()
    seconds, _ = _timed(lambda: a @ b)
    return Timing(f"matrix product, {precision}", 1e3 * seconds, note=f"{2 * size**3 / seconds / 1e12:.3f} TFLOP/s")


def _copy(size: int) -> Timing:
    import torch

    source = torch.empty(size, dtype=torch.uint8, device=_device())
    target = torch.empty_like(source)
    seconds, _ = _timed(lambda: target.copy_(source))
    return Timing("copy in device memory", 1e3 * seconds, note=f"{2 * size / seconds / 1e12:.2f} TB/s read and written")


def _encode_cost(
    label: str, name: str, window: int | None, length: int, precision: str, peaks: dict[str, float]
) -> Timing:
    """One video; in bfloat16 under autocast."""
    import torch

    from model import forward_flops

    config = _config(name, 2048, window)
    pjepa = _built(config)
    features = torch.randn(1, length, 2048, device=_device())
    with torch.autocast(_device(), torch.bfloat16, enabled=precision == "bfloat16"):
        seconds, peak = _timed(lambda: pjepa.encode(features))
    flops = forward_flops(config, config.attention, config.depth, length, 1.0) + 2 * length * 2048 * config.dim
    share = flops / seconds / peaks[precision] if precision in peaks else None
    return Timing(label, 1e3 * seconds, length / seconds, share, peak)


def _step_cost(label: str, name: str, shape: tuple[int, int], precision: str, peaks: dict[str, float]) -> Timing:
    """Forward, backward and AdamW on whole crops with 60 % of the frames hidden; targets are given."""
    import numpy as np
    import torch

    from keystep.batch import SequenceBatch
    from keystep.config import MaskingConfig
    from keystep.masking import draw_hidden
    from model import forward_flops

    config = _config(name, 2048)
    pjepa = _built(config).train()
    crops, length = shape
    optimizer = torch.optim.AdamW(pjepa.parameters(), lr=1e-4)
    features, targets = torch.randn(*shape, 2048), torch.randn(*shape, config.dim, device=_device())
    masking = MaskingConfig(kind="spans", ratio=HIDDEN, shortest=4, longest=32)
    drawn = np.stack([draw_hidden(length, masking, np.random.default_rng(i)) for i in range(crops)])
    batch = SequenceBatch(features, torch.ones(shape, dtype=torch.bool)).to(_device())
    hidden = torch.from_numpy(drawn).to(_device())

    def step() -> None:
        with torch.autocast(_device(), torch.bfloat16, enabled=precision == "bfloat16"):
            predictions = pjepa(batch, hidden).predictions
        (predictions.float() - targets)[hidden].abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds, peak = _timed(step)
    flops = forward_flops(config, config.attention, config.depth, length, 1 - HIDDEN)
    flops += 2 * length * (1 - HIDDEN) * 2048 * config.dim
    flops += forward_flops(config, config.predictor_attention, config.predictor_depth, length, 1.0)
    share = 3 * crops * flops / seconds / peaks[precision] if precision in peaks else None
    return Timing(label, 1e3 * seconds, crops * length / seconds, share, peak, f"{crops} crops of {length} frames")


def _live_cost(label: str, name: str, chunk: int, small: bool) -> Timing:
    """Calls of a stream whose window is full, or that has seen ten blocks."""
    import torch

    import keystep

    pjepa = _built(_config(name, 2048))
    frames = torch.randn(1, chunk, 2048, device=_device())
    state = keystep.stream.init(pjepa)
    seconds = []
    with torch.no_grad():
        for call in range(30 if small else max(20, 600 // chunk) + 100):
            _synchronize()
            begin = time.perf_counter()
            _, state = keystep.stream.step(pjepa, frames, state)
            _synchronize()
            if call >= (10 if small else max(20, 600 // chunk)):
                seconds.append(time.perf_counter() - begin)
    median, slow = statistics.median(seconds), sorted(seconds)[-max(1, len(seconds) // 100)]
    return Timing(label, 1e3 * median, chunk / median, note=f"p99 {1e3 * slow:.2f} ms")


def _pretrain_cost(label: str, name: str, precision: str, small: bool) -> Timing:
    """The real loop, with its data, statistics, log and checkpoint; frames a second as metrics.jsonl has them."""
    from keystep.train.records import read_metrics

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _write_features(folder / "data", [150] * 4 if small else [2400] * 24, 512)
        steps = 4 if small else 12
        train: dict[str, Any] = {"steps": steps, "precision": precision, "accelerator": _device(), "log_every": 1}
        begin = time.perf_counter()
        run = _pretrain(folder, "run", name, train)
        whole = time.perf_counter() - begin
        lines = [line for line in read_metrics(run / "metrics.jsonl") if "frames_per_second" in line]
    speeds = [line["frames_per_second"] for line in lines[steps // 3 :]]
    return Timing(label, 1e3 * whole, statistics.median(speeds), note=f"the time is that of {steps} steps and all else")


def _config(name: str, width: int, window: int | None = None, **changes: object) -> ModelConfig:
    """A preset's model; ``blocks`` is ``tiny`` with the paper's attention in blocks of 64."""
    from keystep.config import ModelConfig

    config = ModelConfig(**{**_preset(name).get("model", {}), "input_dim": width, **changes})
    if window is None:
        return config
    return config.model_copy(update={"attention": config.attention.model_copy(update={"window": window})})


def _preset(name: str) -> dict[str, Any]:
    from keystep.config.presets import preset_settings

    if name == "blocks":
        return {"model": {"attention": {"kind": "block_causal", "block": 64}, "live_attention": None}}
    return preset_settings(name)


def _pjepa(name: str, **changes: object) -> PJEPA:
    return _built(_config(name, 48, **changes))


def _built(config: ModelConfig) -> PJEPA:
    """Random weights, the same each time."""
    import torch

    from keystep.pjepa import PJEPA

    torch.manual_seed(0)
    return PJEPA(config).eval().to(_device())


def _pretrain(folder: Path, run: str, name: str, train: dict[str, Any]) -> Path:
    """The folder of a finished run on ``folder/data``."""
    from keystep.config import RunConfig
    from keystep.train.run import pretrain

    preset = _preset(name)
    settings = {
        **preset,
        "data": {"root": folder / "data", "source_rate": 5},
        "train": {"accelerator": "cpu", "log_every": 1, **preset.get("train", {}), **train},
    }
    if name == "blocks":
        settings["target"] = {"kind": "ema", "offsets": (0,)}
    pretrain(RunConfig(**settings), folder / run)
    return folder / run


def _write_features(root: Path, lengths: Sequence[int], width: int) -> None:
    """Slowly moving random features, one file a video."""
    import numpy as np

    (root / "features").mkdir(parents=True)
    (root / "store.json").write_text(json.dumps({"time_axis": 1}))
    rng = np.random.default_rng(0)
    for index, length in enumerate(lengths):
        frames = rng.normal(size=(length // 20 + 1, width)).repeat(20, 0)[:length] + rng.normal(size=(length, width))
        np.save(root / "features" / f"video{index}.npy", np.ascontiguousarray(frames.T.astype(np.float32)))


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the reference's largest value; NaN where something found is not finite."""
    found, wanted = found.detach(), wanted.detach()
    if not bool(found.isfinite().all()):
        return math.nan
    scale = wanted.double().abs().max().clamp(min=1e-12)
    return float((found.double() - wanted.double()).abs().max() / scale)


def _badness(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _timed(work: Callable[[], object]) -> tuple[float, float | None]:
    """(median seconds of a call, GiB held at its peak), behind a call that warms up; about two seconds in all."""
    import torch

    work()
    _synchronize()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < 2.0 and len(seconds) < 50):
        begin = time.perf_counter()
        work()
        _synchronize()
        seconds.append(time.perf_counter() - begin)
    peak = torch.cuda.max_memory_allocated() / 2**30 if _device() == "cuda" else None
    return statistics.median(seconds), peak


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _synchronize() -> None:
    import torch

    if _device() == "cuda":
        torch.cuda.synchronize()


def _release() -> None:
    """Give memory back, so that one timing's peak is not another's."""
    import gc

    import torch

    gc.collect()
    if _device() == "cuda":
        torch.cuda.empty_cache()


def environment() -> dict[str, str]:
    """The machine and the versions, for the results' heading."""
    import torch

    cuda = _device() == "cuda"
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    found = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "date": datetime.date.today().isoformat(),
        "commit": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        **versions,
        "torch": torch.__version__,
    }
    if cuda:
        found["cuda"] = str(torch.version.cuda)
        found["memory"] = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    return found


def _load(path: Path) -> Record:
    data = json.loads(path.read_text())
    data["checks"] = [Check(**check) for check in data["checks"]]
    data["timings"] = [Timing(**timing) for timing in data["timings"]]
    return Record(**data)


def write(records: Sequence[Record], out: Path) -> None:
    """``gpu-<card>.json`` and ``.md``."""
    device = next((record.environment["device"] for record in records if record.environment), "unknown")
    name = "gpu-" + "".join(letter if letter.isalnum() else "-" for letter in device.split(",")[0].lower())
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps([asdict(record) for record in records], indent=2) + "\n")
    (out / f"{name}.md").write_text(markdown(records))
    print(f"wrote {out / name}.json and .md")


def markdown(records: Sequence[Record]) -> str:
    """Failures first, then the timings, then every check."""
    found = next((record.environment for record in records if record.environment), {})
    checks = [check for record in records for check in record.checks]
    counts = ", ".join(f"{sum(c.status == s for c in checks)} {s}" for s in ("passed", "failed", "not run"))
    times = ", ".join(f"{record.section} {record.seconds:.0f} s" for record in records)
    lines = [
        f"# Checks and timings on {found.get('device', 'an unknown device')}",
        "",
        "    PYTHONPATH=src python benchmarks/gpu.py" + (" --small" if any(r.small for r in records) else ""),
        "",
        "; ".join(f"{key} {value}" for key, value in found.items() if key != "device"),
        "",
        f"{counts}. {times}.",
        "",
    ]
    for status in ("failed", "not run"):
        chosen = [check for check in checks if check.status == status]
        if chosen:
            lines += [f"## {status.capitalize()}", "", *(f"- {_check_text(check)}" for check in chosen), ""]
    timings = [timing for record in records for timing in record.timings]
    if timings:
        lines += ["## Timings", "", "| work | time | frames/s | of the matrix product | peak memory | |"]
        lines += ["|---|---|---|---|---|---|", *("| " + " | ".join(_cells(t)) + " |" for t in timings), ""]
    lines += ["## Checks", "", "| check | | error | allowed | |", "|---|---|---|---|---|"]
    for check in checks:
        error, allowed = (
            "" if value is None else f"{value:.1e}" if value else "0" for value in (check.error, check.tolerance)
        )
        lines.append(f"| {check.name} | {check.status} | {error} | {allowed} | {check.note} |")
    return "\n".join(lines) + "\n"


def _check_text(check: Check) -> str:
    figures = "" if check.error is None else f" error {check.error:.1e}, allowed {check.tolerance:.0e};"
    return f"{check.name}:{figures} {check.note}"


def _cells(timing: Timing) -> list[str]:
    return [
        timing.name,
        f"{timing.milliseconds:,.2f} ms",
        "" if timing.frames_per_second is None else f"{timing.frames_per_second:,.0f}",
        "" if timing.share is None else f"{100 * timing.share:.0f} %",
        "" if timing.peak_gib is None else f"{timing.peak_gib:.2f} GiB",
        timing.note,
    ]


SECTIONS: dict[str, Callable[[Record], None]] = {
    "attention": attention,
    "model": model,
    "stream": stream,
    "train": train,
    "speed": speed,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"sections, with commas between them: {', '.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, help=f"folder of the results; default: {RESULTS}; with --small: none")
    parser.add_argument("--small", action="store_true", help="a small version of everything, on the CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="what is not done by then is given up")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
