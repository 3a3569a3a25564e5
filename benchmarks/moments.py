"""How well and how fast `keystep serve` finds moments among many: 10 million vectors, 96 wide.

    python benchmarks/moments.py [--vectors 10000000] [--out benchmarks/results/moments.md]

The vectors are those of made videos of 25,000 slots at 5 Hz: steps of 5 to 60 s, each near one of 2,000 kinds, with a
part that belongs to the video, noise, and variances that fall as those of principal components do. Recall is measured
against comparing all, for vectors of the index that are moved by noise.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from keystep.serve.moments import COLUMNS, TRAINING, Vectors

HEAD = "# Finding moments among many\n\n`python benchmarks/moments.py`, two cores; data: see there.\n"
VIDEO, KINDS, QUERIES = 25_000, 2_000, 200


def video(number: int) -> np.ndarray:
    """(VIDEO, COLUMNS) unit vectors of one video."""
    scale = (1 / np.arange(1, COLUMNS + 1) ** 0.5).astype(np.float32)
    kinds = np.random.default_rng(0).normal(size=(KINDS, COLUMNS)).astype(np.float32)
    rng = np.random.default_rng([1, number])
    lengths = rng.integers(25, 300, VIDEO // 25)
    steps = np.repeat(rng.integers(KINDS, size=len(lengths)), lengths)[:VIDEO]
    rows = kinds[steps] + 0.4 * rng.normal(size=COLUMNS) + 0.5 * rng.normal(size=(VIDEO, COLUMNS))
    rows = (rows * scale).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blocks(total: int) -> Iterator[np.ndarray]:
    return (video(number) for number in range(total // VIDEO))


def measure(total: int) -> dict[str, float]:
    """What building and searching take."""
    stride = -(-total // TRAINING)
    sample = np.concatenate([block[::stride] for block in blocks(total)])
    building, begun = 0.0, time.monotonic()
    index = Vectors(sample, total)
    building += time.monotonic() - begun
    for block in blocks(total):
        begun = time.monotonic()
        index.add(block)
        building += time.monotonic() - begun
    rng = np.random.default_rng(2)
    queries = np.stack([video(int(n))[int(s)] for n, s in rng.integers([total // VIDEO, VIDEO], size=(QUERIES, 2))])
    queries = queries + 0.02 * rng.normal(size=queries.shape).astype(np.float32)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    seconds, found = [], []
    for query in queries:
        begun = time.monotonic()
        found.append(set(index.nearest(query, 10)[1].tolist()))
        seconds.append(time.monotonic() - begun)
    best = np.full((QUERIES, 10), -2.0, np.float32), np.full((QUERIES, 10), -1)
    for number, block in enumerate(blocks(total)):
        scores = np.concatenate([best[0], queries @ block.T], axis=1)
        names = np.concatenate([best[1], np.broadcast_to(np.arange(VIDEO) + number * VIDEO, (QUERIES, VIDEO))], axis=1)
        top = np.argpartition(-scores, 10, axis=1)[:, :10]
        best = np.take_along_axis(scores, top, axis=1), np.take_along_axis(names, top, axis=1)
    hits = sum(len(one & set(all_.tolist())) for one, all_ in zip(found, best[1], strict=True))
    return {
        "vectors": total,
        "building, s": building,
        "index, GiB": len(faiss.serialize_index(index._index)) / 2**30,
        "search, median ms": 1e3 * float(np.median(seconds)),
        "search, 99th percentile ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "recall@10": hits / (10 * QUERIES),
        "peak memory of the process, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options.vectors // VIDEO * VIDEO)
    lines = [
        f"| {name} | {value:,.3f} |" if value % 1 else f"| {name} | {value:,.0f} |" for name, value in found.items()
    ]
    text = "\n".join(["| measured | |", "|---|---|", *lines])
    print(text)
    if options.out:
        options.out.write_text(f"{HEAD}\n{text}\n")


if __name__ == "__main__":
    main()
