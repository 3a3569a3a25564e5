"""What a piece of work costs: CPU seconds, wall seconds and peak extra memory, beside the machine's own ceiling.

The machine is shared and drifts, so the cases of one table are measured in turn, round after round, in one process,
together with a matrix product; report medians, ratios and fractions of that product, never absolute times of two days.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

GEMM_SIZE = 2048
GEMM = "matrix product"


OPTIONS: dict[str, dict[str, Any]] = {
    "preset": {"help": "of the model"},
    "width": {"type": int, "help": "of the features"},
    "lengths": {"type": int, "nargs": "+", "help": "frames of a video"},
    "threads": {"type": int, "help": "of the CPU"},
    "rounds": {"type": int, "help": "measured, behind one that warms up"},
}
"""What several benchmarks can be told, and how."""


def parser(text: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser of the command line. text: the module's, shown as it is; defaults: of those `OPTIONS` that it has."""
    found = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, default in defaults.items():
        found.add_argument(f"--{name}", default=default, **OPTIONS[name])
    return found


@dataclass(frozen=True)
class Cost:
    """Median CPU and wall seconds of a call, and the most memory it holds beyond what was held before.

    extra_bytes: None where the kernel does not let a process reset its peak.
    """

    cpu: float
    wall: float
    extra_bytes: int | None


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int = 3) -> dict[str, Cost]:
    """Every case once a round, in turn, behind a round that warms up and measures memory."""
    extra = {name: peak_extra(work) for name, work in cases.items()}
    samples: dict[str, list[Cost]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, work in cases.items():
            samples[name].append(once(work))
    return {
        name: Cost(statistics.median(c.cpu for c in costs), statistics.median(c.wall for c in costs), extra[name])
        for name, costs in samples.items()
    }


def peak_extra(work: Callable[[], object]) -> int | None:
    """Bytes that one call needs at its peak; None where the kernel cannot say.

    The allocator first gives back what earlier work freed: taken from there, memory would seem to cost nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return once(work).extra_bytes


def once(work: Callable[[], object]) -> Cost:
    """One call as it comes; its memory leaves out what it could take from earlier calls' freed memory."""
    before = _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    extra = None if before is None else max(0, _status("VmHWM") - before)
    del result  # held until here: it is part of the peak
    return Cost(cpu, wall, extra)


def gemm() -> Callable[[], object]:
    """A matrix product to put among the cases: what this machine can do now."""
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE).unbind()
    return lambda: a @ b


def flops_per_cpu_second(flops: float, cost: Cost) -> float:
    return flops / cost.cpu


def gemm_rate(cost: Cost) -> float:
    """FLOP per CPU second of the product measured by `gemm`."""
    return flops_per_cpu_second(2 * GEMM_SIZE**3, cost)


def growth(lengths: list[int], costs: list[float]) -> float:
    """Least-squares exponent p of ``cost = c * length ** p``: 1 is linear, 2 quadratic. NaN for one length."""
    if len(lengths) < 2:
        return math.nan
    slope, _ = statistics.linear_regression([math.log(n) for n in lengths], [math.log(c) for c in costs])
    return slope


def _reset_peak() -> int | None:
    """Forget the process's peak resident memory; the bytes resident now, or None where the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
