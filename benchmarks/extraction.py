"""Frames a second of decoding alone, of decoding with resizing, and of each backbone, from the same clip.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/extraction.py VIDEO --threads 2
    OMP_WAIT_POLICY=PASSIVE python benchmarks/extraction.py VIDEO --backbone i3d=i3d-kinetics400.safetensors --rate 4

Rows run in turn, round after round, in one process. "frames/s" are frames of the *video* a second of wall time;
decoding alone is the limit that no backbone can pass. "x real time": hours of video that an hour does at ``--rate``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch

from keystep.extraction.backbone import Picture
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.loading import load_extractor
from keystep.extraction.video import open_video
from keystep.plugins import allow, specs_in
from measure import GEMM, gemm, gemm_rate, interleaved, parser


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    video = open_video(options.video)
    count = sum(1 for _ in video.frames())
    info = video.info
    print(
        f"{info.width}x{info.height} {info.codec}, {count} frames at {float(info.rate or 0):.2f} Hz; torch "
        f"{torch.__version__}, {options.threads} thread(s); features at {options.rate} Hz"
    )
    cases: dict[str, Callable[[], object]] = {
        GEMM: gemm(),
        "decode alone": lambda: sum(1 for _ in video.frames()),
        "decode, resize every frame to 224": lambda: _resized(options.video),
    }
    for name, weights in [("efficientnet-lite0", None), *(_named(text) for text in options.backbone)]:
        for window in options.windows:
            cases[f"{name}, window {window}"] = _extraction(name, weights, window, options)
    costs = interleaved(cases, options.rounds)
    print(f"matrix product: {gemm_rate(costs[GEMM]) / 1e9:.0f} GFLOP per CPU second\n")
    print("| row | frames/s | CPU s | x real time | extra memory |\n|---|---|---|---|---|")
    seconds = count / float(info.rate or 25)
    for name, cost in list(costs.items())[1:]:
        memory = "?" if cost.extra_bytes is None else f"{cost.extra_bytes / 2**20:.0f} MiB"
        print(f"| {name} | {count / cost.wall:.0f} | {cost.cpu:.2f} | {seconds / cost.wall:.1f} | {memory} |")


def _resized(path: Path) -> int:
    picture = Picture(height=224, width=224, short=256)
    return sum(frame.rgb(picture).shape[0] for frame in open_video(path).frames())


def _extraction(name: str, weights: Path | None, window: str, options: argparse.Namespace) -> Callable[[], object]:
    allow(*specs_in(name))
    config = ExtractionConfig(backbone=name, rate=Fraction(options.rate), window=window)
    extractor = load_extractor(config, weights, "cpu")
    batch = max(1, 16 // extractor.pictures)
    return lambda: sum(len(made) for made in extractor.stream(open_video(options.video).frames(), batch=batch))


def _named(text: str) -> tuple[str, Path | None]:
    name, _, file = text.partition("=")
    return name, Path(file) if file else None


def _options() -> argparse.Namespace:
    found = parser(__doc__, threads=2, rounds=3)
    found.add_argument("video", type=Path)
    found.add_argument("--backbone", action="append", default=[], metavar="NAME=FILE")
    found.add_argument("--rate", default="4")
    found.add_argument("--windows", nargs="+", default=["center"])
    return found.parse_args()


if __name__ == "__main__":
    main()
