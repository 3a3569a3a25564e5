"""What an ordered list of steps without times is worth as a label: `keystep align` on VTS, fold 1.

    OMP_NUM_THREADS=1 python benchmarks/alignment.py DATA --models RUN [RUN ...] --source-rate 30 --rate 5 --split 1

The lists are the label sequences of the training and validation videos, their times taken away; no frame label is used.
*Listed videos*: frame accuracy of the aligned labels. Their edit score is 100 by construction, as the list is given.
*Test videos*: frame accuracy and edit of the read-out, one frame at a time, without any list. Controls: the same share
of the frames for every step, the same on raw features, and the read-out fitted to all labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.encoding import frame_vectors
from keystep.evals.aligning import AlignmentConfig, alternate, uniform_labels
from keystep.evals.probe import LinearProbe, fit_probe
from keystep.loading import load
from keystep.metrics import segmentation_scores, segments
from measure import parser

Labels = Mapping[str, np.ndarray]


def line(name: str, truth: Labels, listed: Labels | None, test: Labels | None) -> None:
    """Print a row of the table."""
    cells = []
    for found, scores in ((listed, ("accuracy",)), (test, ("accuracy", "edit"))):
        if found is None:
            cells += ["" for _ in scores]
            continue
        scored = segmentation_scores(list(found.values()), [truth[video] for video in found])
        cells += [f"{scored[score]:.1f}" for score in scores]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(name: str, folder: FeatureFolder, split: str, vectors: Labels, config: AlignmentConfig) -> None:
    """The rows of one representation. vectors: video -> (T, D)."""
    own = folder.split(split)
    listed = own.train + own.valid
    truth = {video: folder.labels(video) for video in vectors}
    lists = {video: segments(truth[video])[0] for video in listed}
    seen = {video: vectors[video] for video in listed}

    def tested(probe: LinearProbe) -> Labels:
        return {video: probe.predict(vectors[video]) for video in own.test}

    line("uniform alignment", truth, uniform_labels(seen, lists), None)
    for number, found in enumerate(alternate(seen, lists, len(folder.classes), config), start=1):
        line(f"{name}, {number} round{'s' * (number > 1)}", truth, found.labels, tested(found.probe))
    parts = [([vectors[video] for video in part], [truth[video] for video in part]) for part in (own.train, own.valid)]
    line(f"{name}, all labels", truth, None, tested(fit_probe(*parts[0], *parts[1], classes=len(folder.classes))))


def main() -> None:
    """Print the table."""
    arguments = parser(__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--models", nargs="*", default=[], help="runs")
    arguments.add_argument("--source-rate", type=Fraction, required=True)
    arguments.add_argument("--rate", type=Fraction)
    arguments.add_argument("--split", default="1")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    folder = open_dataset(given.data, source_rate=given.source_rate, rate=given.rate)
    own = folder.split(given.split)
    config = AlignmentConfig(rounds=given.rounds)
    print("| | listed videos: accuracy | test videos: accuracy | test videos: edit |\n|---|--:|--:|--:|", flush=True)
    for place, run in enumerate([None, *given.models]):
        vectors = frame_vectors(folder, own.train + own.valid + own.test, run and load(run))
        measure(f"latents, run {place}" if run else "raw features", folder, given.split, vectors, config)


if __name__ == "__main__":
    main()
