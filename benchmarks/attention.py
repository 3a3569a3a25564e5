"""Windowed attention against full attention and a matrix product: cost, memory and how they grow with the video.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/attention.py --lengths 1000 7200 54000 --threads 1

GEMM %: useful arithmetic (visible pairs only) a CPU second, as a share of a matrix product measured in the same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from keystep.config.attention import AttentionPattern
from keystep.nn import tiles
from keystep.nn.attention import attend
from keystep.nn.places import Places
from measure import GEMM, Cost, flops_per_cpu_second, gemm, gemm_rate, growth, interleaved, parser

PASSES = {"forward": 2, "forward + backward": 7}  # matrix products of T x W x d: 2, and 5 more behind them


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    tiles.TILE = options.tile
    windowed = _pattern(options)
    patterns = {"windowed": windowed, "full": AttentionPattern(kind="causal")}
    print(f"{windowed}; {options.heads} heads x {options.dim}, tiles of {tiles.TILE}, {options.threads} thread(s)")
    print(f"{'':30}{'T':>8}{'CPU s':>9}{'wall s':>9}{'GiB':>7}{'GEMM %':>8}")
    costs: dict[str, dict[int, float]] = {}
    for length in options.lengths:
        cases: dict[str, Callable[[], object]] = {GEMM: gemm()}
        for name, pattern in patterns.items():
            if name == "windowed" or length <= options.full_up_to:
                for what in PASSES:
                    cases[f"{name}, {what}"] = _work(pattern, length, options.heads, options.dim, what)
        measured = interleaved(cases, options.rounds)
        ceiling = gemm_rate(measured.pop(GEMM))
        for name, cost in measured.items():
            pattern, what = patterns[name.split(", ")[0]], name.split(", ")[1]
            flops = 2 * PASSES[what] * options.heads * options.dim * _pairs(pattern, length)
            _print_row(name, length, cost, flops_per_cpu_second(flops, cost) / ceiling)
            costs.setdefault(name, {})[length] = cost.cpu
        print(f"{GEMM:30}{length:>8}{ceiling / 1e9:9.0f} GFLOP a CPU second")
    for name, seconds in costs.items():
        print(f"{name:30} grows as T^{growth(list(seconds), list(seconds.values())):.2f}")


def _work(pattern: AttentionPattern, length: int, heads: int, dim: int, what: str) -> Callable[[], object]:
    """One pass over random queries, keys and values; places are new each time, so that planning is counted."""
    query, key, value, grad = (torch.randn(1, heads, length, dim, requires_grad=True) for _ in range(4))

    def forward() -> torch.Tensor:
        return attend(query, key, value, pattern, Places(torch.arange(length)[None]))

    def only_forward() -> object:
        with torch.no_grad():
            return forward()

    def both() -> object:
        return torch.autograd.grad(forward(), (query, key, value), grad.detach())

    return only_forward if what == "forward" else both


def _pairs(pattern: AttentionPattern, length: int) -> int:
    """Visible pairs of a causal pattern without gaps."""
    window = min(pattern.window or length, length)
    pairs = length * window - window * (window - 1) // 2
    if pattern.stride is not None and pattern.memory is not None:
        reach = range(window, min(pattern.memory, length))
        pairs += sum(length - distance for distance in reach) // pattern.stride
    return pairs


def _print_row(name: str, length: int, cost: Cost, share: float) -> None:
    extra = "-" if cost.extra_bytes is None else f"{cost.extra_bytes / 2**30:.2f}"
    print(f"{name:30}{length:>8}{cost.cpu:9.3f}{cost.wall:9.3f}{extra:>7}{100 * share:8.0f}", flush=True)


def _pattern(options: argparse.Namespace) -> AttentionPattern:
    return AttentionPattern(kind="causal", window=options.window, stride=options.stride, memory=options.memory)


def _options() -> argparse.Namespace:
    found = parser(__doc__, lengths=[1000, 7200, 54000], threads=1, rounds=3)
    found.add_argument("--full-up-to", type=int, default=7200, help="longest video for full attention")
    found.add_argument("--heads", type=int, default=8)
    found.add_argument("--dim", type=int, default=64, help="width of a head")
    found.add_argument("--window", type=int, default=512)
    found.add_argument("--stride", type=int, help="with --memory: strided keys beyond the window")
    found.add_argument("--memory", type=int)
    found.add_argument("--tile", type=int, default=tiles.TILE)
    return found.parse_args()


if __name__ == "__main__":
    main()
