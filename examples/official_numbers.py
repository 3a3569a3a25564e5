"""The authors' encoder and linear head on a folder of features: frame accuracy, edit and F1 under their metrics.

    keystep import official ARCHIVE --manifest train.csv --manifest test.csv --sequence segments --out DATA
    python examples/official_numbers.py ENCODER HEAD.pt DATA --background background

ENCODER is one of their files, or a folder that `keystep convert official` made. What true segments shaped, be it the
folder or the encoder, is marked ORACLE: such scores are no forecast of what a live system would do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from keystep import PJEPA, InputError
from keystep.data.folder import open_dataset
from keystep.encoding import encode_videos
from keystep.evals.metrics import segmentation_scores
from keystep.interop import official


def main() -> None:
    options = _options()
    folder = open_dataset(options.data)
    encoder = PJEPA.from_pretrained if options.encoder.is_dir() else official.load
    model = encoder(options.encoder)
    unknown = sorted(set(options.background) - set(folder.classes))
    if unknown:
        raise InputError(f"--background {unknown[0]!r} is none of the {len(folder.classes)} classes of {options.data}")
    background = [folder.classes.index(name) for name in options.background]
    head = official.load_head(options.head, background=background[0] if background else 0)
    if head.classes != len(folder.classes):
        raise InputError(f"{options.head}: tells {head.classes} classes; {options.data} has {len(folder.classes)}")
    predictions, truths = [], []
    for name, latents in encode_videos(model, folder, folder.split(options.split).part(options.part)):
        predictions.append(head.predict(torch.from_numpy(latents)).numpy())
        truths.append(folder.labels(name))
    scores = segmentation_scores(predictions, truths, background, protocol="official")
    print(f"{len(truths)} videos{', ORACLE' if model.config.oracle or folder.oracle else ''}")
    print("  ".join(f"{name} {score:.1f}" for name, score in scores.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="1")
    parser.add_argument("--part", default="test")
    parser.add_argument("--background", nargs="*", default=[], help="classes that are no step")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
