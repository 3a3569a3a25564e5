"""What float16 and int8 features cost in accuracy: a linear probe on raw features and on a model's latents.

    python benchmarks/compression.py DATA --source-rate 30 --split 1 --model RUN --out benchmarks/results/compression.md

Each type is written by ``keystep compress``. The model was trained on the original features.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from keystep import load
from keystep.data.compression import compress
from keystep.data.folder import open_dataset
from keystep.encoding import encode_videos
from keystep.evals.entrants import open_judge
from keystep.evals.protocol import EvalConfig
from keystep.evals.representation import Computed, stored
from keystep.evals.study import with_bands
from keystep.types import parse_rate

KINDS = ("float32", "float16", "int8")
METRICS = ("accuracy", "edit", "f1@50")


def main() -> None:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("data", type=Path)
    found.add_argument("--source-rate")
    found.add_argument("--split", default="1")
    found.add_argument("--model", required=True)
    found.add_argument("--out", type=Path)
    given = found.parse_args()
    model, source = load(given.model), None if given.source_rate is None else parse_rate(given.source_rate)
    original = open_dataset(given.data, source_rate=source)
    lines = [
        f"`{' '.join(['python', 'benchmarks/compression.py', *sys.argv[1:]])}`",
        "",
        f"| type | MiB | largest error, deviations | | {' | '.join(METRICS)} | differing test slots, % |",
        f"|---|---|---|---|{'---|' * (len(METRICS) + 1)}",
    ]
    first: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            done = compress(original, Path(scratch) / kind, kind)
            folder = open_dataset(done.root, rate=model.origin.rate)
            judge = open_judge(folder, given.split, EvalConfig())
            name = judge.split.test[0]
            before = original.features(name)
            apart = np.abs(open_dataset(done.root).features(name) - before).max(0) / np.maximum(before.std(0), 1e-12)
            latents = stored(encode_videos(model, folder, judge.videos), None)
            rows = {
                "raw features": Computed(judge.videos, folder.vectors),
                "latents": with_bands(latents, model.bands(None)),
            }
            for row, representation in rows.items():
                run = judge.run(representation)
                said = np.concatenate([run.predictions[video] for video in judge.split.test])
                differ = 100 * np.mean(said != first.setdefault(row, said))
                scores = " | ".join(f"{run.scores[metric]:.2f}" for metric in METRICS)
                lines.append(
                    f"| {kind} | {done.size / 2**20:.1f} | {apart.max():.1e} | {row} | {scores} | {differ:.2f} |"
                )
                print(lines[-1], flush=True)
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
