"""What a live stream costs: milliseconds a step beside the floor of reading weights and cache once, and over hours.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/streaming.py steps --preset small
    OMP_WAIT_POLICY=PASSIVE python benchmarks/streaming.py hours --preset small --hours 10

``steps``: rows are timed in turn, round after round, in one process, with the window full (without a window: with
``--seen`` frames behind). The floor is one product that reads as many numbers as the encoder has weights, keys and
values, once; "the products alone" multiplies each weight matrix, and the kept keys and values, and does nothing else.
Peers: a GRU 1024 wide with carried state, and four stages of ten causal dilated convolutions of 64 maps, which, as
published, runs again over the last ``--seen`` frames for each new one. Compare ratios, not milliseconds of two days.

``hours``: one stream, frame after frame; median and 99th percentile of each hour, and the process's memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import keystep
from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.config.presets import preset_settings
from measure import parser
from peers import GRU, CausalTCN

Step = Callable[[], object]
FLOOR = "floor: memory read once"


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model = _model(options)
    pattern = model.config.stream_attention
    print(f"{options.preset}, {pattern}, {options.width}-wide; torch {torch.__version__}, {options.threads} thread(s)")
    with torch.inference_mode():
        steps(model, options) if options.work == "steps" else hours(model, options)


def steps(model: keystep.PJEPA, options: argparse.Namespace) -> None:
    pattern = model.config.stream_attention
    assert pattern is not None
    one = pattern.block or 1
    rows: dict[str, tuple[Step, int]] = {
        FLOOR: (_memory_floor(model, options), one),
        "the products alone": (_products(model, options), one),
        f"keystep, {one} frame(s) a step": (_stream(model, one, options), one),
    }
    if one == 1:
        rows["keystep, 8 frames a step"] = (_stream(model, 8, options), 8)
        rows["GRU 1024, carried state"] = (_gru(options), 1)
        rows[f"causal TCN, again over {options.seen} frames"] = (_tcn(options), 1)
    times: dict[str, list[float]] = {name: [] for name in rows}
    cpu: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.rounds):
        for name, (step, _) in rows.items():
            count = max(3, min(options.steps, int(options.steps * 0.01 / _once(step))))
            began = time.process_time()
            times[name] += [_once(step) for _ in range(count)]
            cpu[name].append((time.process_time() - began) / count)
    print(f"{'':40}{'p50 ms':>9}{'p99 ms':>9}{'p99/p50':>9}{'CPU ms':>9}{'ms a frame':>12}{'x floor':>9}")
    floor = float(np.median(times[FLOOR]))
    for name, (_, frames) in rows.items():
        p50, p99 = np.percentile(times[name], [50, 99])
        print(
            f"{name:40}{1e3 * p50:9.2f}{1e3 * p99:9.2f}{p99 / p50:9.2f}{1e3 * np.median(cpu[name]):9.2f}"
            f"{1e3 * p50 / frames:12.2f}{p50 / floor:9.2f}"
        )


def hours(model: keystep.PJEPA, options: argparse.Namespace) -> None:
    frames_an_hour = 3600 * options.rate
    state = keystep.stream.init(model)
    frames = torch.randn(64, options.chunk, options.width)
    titles = ("hour", "p50 ms", "p99 ms", "mean ms", "CPU s", "state MiB", "RSS MiB", "peak MiB")
    print("".join(f"{title:>11}" for title in titles))
    for hour in range(1, options.hours + 1):
        taken, cpu = [], time.process_time()
        for number in range(frames_an_hour // options.chunk):
            started = time.perf_counter()
            _, state = keystep.stream.step(model, frames[None, number % 64], state)
            taken.append(time.perf_counter() - started)
        p50, p99 = 1e3 * np.percentile(taken, [50, 99])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(
            f"{hour:11}{p50:11.2f}{p99:11.2f}{1e3 * np.mean(taken):11.2f}{time.process_time() - cpu:11.1f}"
            f"{state.size_bytes / 2**20:11.2f}{_resident():11.0f}{peak:11.0f}",
            flush=True,
        )


def _stream(model: keystep.PJEPA, count: int, options: argparse.Namespace) -> Step:
    """A stream that has seen enough to have its window full, ``count`` frames at a time."""
    pattern = model.config.stream_attention
    assert pattern is not None
    behind = options.seen if pattern.window is None else pattern.window + (pattern.memory or 0)
    _, state = keystep.stream.step(model, torch.randn(1, -(-behind // count) * count, options.width), _fresh(model))
    frames = torch.randn(16, 1, count, options.width)
    number = 0

    def step() -> None:
        nonlocal state, number
        number += 1
        _, after = keystep.stream.step(model, frames[number % 16], state)
        if pattern.window is not None:
            state = after  # without a window the cost would grow: the same step is taken again
        else:
            state.memory.reclaim(after.memory)

    return step


def _fresh(model: keystep.PJEPA) -> keystep.stream.StreamState:
    return keystep.stream.init(model)


def _kept(model: keystep.PJEPA, options: argparse.Namespace) -> int:
    """Frames whose keys and values a step reads."""
    pattern = model.config.stream_attention
    assert pattern is not None
    return (pattern.window or options.seen) + (pattern.block or 1) - 1


def _memory_floor(model: keystep.PJEPA, options: argparse.Namespace) -> Step:
    weights = sum(p.numel() for p in model.encoder.parameters())
    numbers = weights + 2 * model.config.depth * model.config.dim * _kept(model, options)
    matrix, vector = torch.randn(numbers // 1024, 1024), torch.randn(1024)
    return lambda: matrix @ vector


def _products(model: keystep.PJEPA, options: argparse.Namespace) -> Step:
    pattern, config = model.config.stream_attention, model.config
    assert pattern is not None
    count, kept = pattern.block or 1, _kept(model, options)
    weights = [p for p in model.encoder.parameters() if p.ndim == 2]
    inputs = {weight.shape[1]: torch.randn(count, weight.shape[1]) for weight in weights}
    width = config.dim // config.heads
    cache = [torch.randn(config.heads, kept, width) for _ in range(2 * config.depth)]
    query, shares = torch.randn(config.heads, count, width), torch.randn(config.heads, count, kept)

    def products() -> None:
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)
        for keys, values in zip(cache[::2], cache[1::2], strict=True):
            torch.matmul(query, keys.transpose(1, 2))
            torch.matmul(shares, values)

    return products


def _gru(options: argparse.Namespace) -> Step:
    network, frame = GRU(options.width), torch.randn(1, 1, options.width)
    state = torch.zeros(1, 1, 1024)

    def step() -> None:
        nonlocal state
        _, state = network(frame, state)

    return step


def _tcn(options: argparse.Namespace) -> Step:
    network = CausalTCN(options.width)
    seen = torch.randn(1, options.seen, options.width)
    return lambda: network(seen)


def _once(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _resident() -> float:
    """MiB of memory that the process has now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 2**20


def _model(options: argparse.Namespace) -> keystep.PJEPA:
    config = build(ModelConfig, preset_settings(options.preset).get("model", {}), {"input_dim": options.width})
    if options.window is not None:
        pattern = config.stream_attention
        assert pattern is not None
        windowed = AttentionPattern(**pattern.model_dump() | {"window": options.window})
        config = config.model_copy(update={"attention": windowed, "live_attention": None})
    return keystep.PJEPA(config).eval()


def _options() -> argparse.Namespace:
    found = parser(__doc__, preset="small", width=2048, threads=1, rounds=3)
    found.add_argument("work", choices=["steps", "hours"])
    found.add_argument("--window", type=int, help="frames; default: the preset's")
    found.add_argument("--steps", type=int, default=300, help="of a row and round; fewer where a step takes long")
    found.add_argument("--seen", type=int, default=7200, help="frames behind, for what has no window")
    found.add_argument("--hours", type=int, default=10)
    found.add_argument("--rate", type=int, default=4, help="frames a second of the stream")
    found.add_argument("--chunk", type=int, default=1, help="frames a step")
    return found.parse_args()


if __name__ == "__main__":
    main()
