"""From pixels to steps on real kitchen videos: extraction, timeline against labels, linear probe, leave one video out.

    python benchmarks/kitchen.py VIDEOS --out kitchen [--backbone i3d] [--rate 3]

VIDEOS is a folder with ``videos/*.mp4``, ``groundTruth/*.txt`` (one line a frame), ``mapping.txt`` and perhaps
``label_known_mask/*.npy`` (which frames' labels are exactly known). Per backbone and window: features are extracted,
every label is checked against the source frame that it came from, and a linear probe is fitted on all videos but two:
one to choose by, one to test on; each video is tested once. Majority is the training videos' most frequent class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from keystep.data.annotation import IGNORED, read_lines
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.evals.probe import fit_probe
from keystep.extraction.run import extract
from keystep.progress import Lines
from measure import parser


def main() -> None:
    options = _options()
    print("| backbone | window | look-ahead | probe | on exactly known frames | majority | slots |")
    print("|---|---|---|---|---|---|---|")
    for name in options.backbone:
        for window in ("center", "right"):
            print(_row(name, window, options), flush=True)


def _row(name: str, window: str, options: argparse.Namespace) -> str:
    out = options.out / f"{name}-{window}"
    weights = options.weights if name == options.weights_of else None
    extract(
        options.videos / "videos",
        name,
        out=out,
        rate=options.rate,
        window=window,
        weights=weights,
        labels=options.videos,
        progress=Lines(lambda line: print(line, file=sys.stderr)),
    )
    folder = open_dataset(out)
    check_labels(folder, options.videos)
    right, known, major, frames = np.zeros(2), np.zeros(2), 0, 0
    for test in folder.videos:
        prediction, majority = _tested(folder, test)
        truth = folder.labels(test)
        seen = np.load(folder.root / "seen" / f"{test}.npy")[:, 1]
        mask_path = options.videos / "label_known_mask" / f"{test}.npy"
        exact = np.load(mask_path).astype(bool)[np.minimum(seen, len(truth_lines(options.videos, test)) - 1)]
        labelled = truth != IGNORED
        for chosen, total in ((labelled, right), (labelled & exact, known)):
            total += [(prediction == truth)[chosen].sum(), chosen.sum()]
        major, frames = major + (truth[labelled] == majority).sum(), frames + labelled.sum()
    ahead = float(folder.timeline.look_ahead)
    return (
        f"| {name} | {window} | {ahead:.2f} s | {100 * right[0] / right[1]:.1f} | {100 * known[0] / known[1]:.1f} | "
        f"{100 * major / frames:.1f} | {frames} |"
    )


def _tested(folder: FeatureFolder, test: str) -> tuple[np.ndarray, int]:
    """What a probe that never saw a video says of it, and the training videos' majority class."""
    names = list(folder.videos)
    valid = names[(names.index(test) + 1) % len(names)]
    train = [name for name in names if name not in (test, valid)]
    known = np.concatenate([folder.labels(name) for name in train])
    majority = int(np.bincount(known[known != IGNORED]).argmax())
    probe = fit_probe(
        [folder.features(name) for name in train],
        [folder.labels(name) for name in train],
        [folder.features(valid)],
        [folder.labels(valid)],
        classes=len(folder.classes),
    )
    return probe.predict(folder.features(test)), majority


def truth_lines(videos: Path, name: str) -> list[str]:
    return read_lines(videos / "groundTruth" / f"{name}.txt")


def check_labels(folder: FeatureFolder, videos: Path) -> None:
    """Every slot has the label of the source frame that was shown at its moment, or none behind the last label."""
    for name in folder.videos:
        lines = truth_lines(videos, name)
        shown = np.load(folder.root / "seen" / f"{name}.npy")[:, 1]
        for label, frame in zip(folder.labels(name), shown, strict=True):
            said = None if label == IGNORED else folder.classes[label]
            assert said == (lines[frame] if frame < len(lines) else None), (name, frame, said)


def _options() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("videos", type=Path)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--backbone", nargs="+", default=["efficientnet-lite0"])
    found.add_argument("--weights", type=Path)
    found.add_argument("--weights-of", default="i3d", help="The backbone that --weights belongs to.")
    found.add_argument("--rate", default="3")
    return found.parse_args()


if __name__ == "__main__":
    main()
