"""Temporal heads: CPU seconds of a training epoch, growth with the video, and of one frame on a stream.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/temporal_heads.py --videos 66 --frames 1000 --width 96 --threads 1

An epoch is its training steps (forward, loss, backward) over so many random videos, from one batch; growth is that of a
pass over one video of 1, 2 and 4 times the length. A stream takes one frame at a time, of causal heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from keystep.heads import PRESETS, Head, TrainingConfig, build_head, describe, head_config
from keystep.heads.config import CAUSAL_KINDS
from keystep.heads.training import HeadLoss
from keystep.stream import init, step
from measure import GEMM, gemm, gemm_rate, growth, interleaved, parser

BATCH = 4


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    heads = {preset: _head(preset, options) for preset in options.heads}
    heads |= {
        f"{preset}, causal": _head(preset, options, causal=True)
        for preset in options.heads
        if PRESETS[preset]["kind"] in CAUSAL_KINDS
    }
    cases = {name: _training_step(head, options.frames, options.classes) for name, head in heads.items()}
    measured = interleaved({GEMM: gemm(), **cases}, options.rounds)
    rate = gemm_rate(measured.pop(GEMM)) / 1e9
    print(
        f"{options.videos} videos x {options.frames} frames x {options.width}; matrix product {rate:.0f} GFLOP a CPU s"
    )
    print(f"{'':24}{'parameters':>12}{'CPU s an epoch':>16}{'GiB':>7}{'grows as T^':>13}{'CPU ms a live frame':>21}")
    for name, cost in measured.items():
        lengths = [options.frames, 2 * options.frames, 4 * options.frames]
        passes = {str(length): _scoring(heads[name], length) for length in lengths}
        costs = [cost.cpu for cost in interleaved(passes, options.rounds).values()]
        memory = "" if cost.extra_bytes is None else f"{cost.extra_bytes / 2**30:.2f}"
        live = "" if heads[name].delay is None else f"{_live_milliseconds(heads[name], options.rounds):.2f}"
        print(
            f"{name:24}{describe(heads[name]).parameters:12,}{cost.cpu * options.videos / BATCH:16.2f}{memory:>7}"
            f"{growth(lengths, costs):13.2f}{live:>21}"
        )


def _head(preset: str, options: argparse.Namespace, causal: bool = False) -> Head:
    settings = {"causal": True} if causal else {}
    return build_head(head_config(preset, settings), options.width, options.classes, seed=0)


def _training_step(head: Head, frames: int, classes: int) -> Callable[[], object]:
    features, labels = torch.randn(BATCH, frames, head.width), torch.randint(classes, (BATCH, frames))
    valid = torch.arange(frames) < frames - frames // 20 * torch.arange(BATCH)[:, None]
    loss_of = HeadLoss(TrainingConfig(), torch.ones(classes))

    def step() -> None:
        head.train()
        loss_of(head(features, valid), labels.masked_fill(~valid, -100), valid).backward()

    return step


def _scoring(head: Head, frames: int) -> Callable[[], object]:
    features = torch.randn(1, frames, head.width)
    return lambda: head.eval().probabilities(features)


def _live_milliseconds(head: Head, rounds: int, frames: int = 200) -> float:
    """CPU ms of a frame, behind as many frames as fill the memory or 2,000."""
    head.eval()
    features = torch.randn(1, 2000, head.width)
    state = step(head, features, init(head))[1]

    def stream() -> None:
        now = state
        for index in range(frames):
            _, now = step(head, features[:, index : index + 1], now)

    return 1000 * interleaved({"stream": stream}, rounds)["stream"].cpu / frames


def _options() -> argparse.Namespace:
    found = parser(__doc__, width=96, threads=1, rounds=3)
    found.add_argument("--heads", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    found.add_argument("--videos", type=int, default=66)
    found.add_argument("--frames", type=int, default=1000)
    found.add_argument("--classes", type=int, default=6)
    return found.parse_args()


if __name__ == "__main__":
    main()
