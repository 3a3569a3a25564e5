"""The study's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DEFAULT = "default"
"""The variant that changes nothing: what `keystep pretrain` does."""
HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "study"


def options_of(words: Sequence[str], description: str = "") -> argparse.Namespace:
    """What was asked for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="quality", description=description, formatter_class=raw)
    add = parser.add_argument
    add("data", type=Path, nargs="?", help="a feature folder with labels and splits")
    add("--name", help="what the data are called in the results; by default as their folder")
    add("--results", type=Path, default=RESULTS, help="finished pieces: one JSON each")
    add("--out", type=Path, default=Path("runs/quality"), help="weights and probes, not needed afterwards")
    add("--variants", type=Path, default=HERE / "variants.yaml")
    add("--source-rate", help="features a second on disk, where store.json does not say")
    add("--rate", help="work at this rate")
    add("--folds", nargs="+", help="by default all that the folder knows")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--jobs", type=int, default=1, help="pieces at once, one thread each")
    add("--set", dest="settings", action="append", default=[], help="for all runs: train.steps=1500")
    add("--screen", action="store_true", help="only choose, on validation videos of the first fold")
    add("--confirm", nargs="+", metavar="VARIANT", help="these variants; by default `default`, for --screen all")
    add("--once", nargs="*", default=[], metavar="VARIANT", help="these with the first seed only")
    add("--untrained", nargs="*", default=[DEFAULT], metavar="VARIANT", help="judge fresh weights of these too")
    add("--shares", nargs="*", type=float, default=[], help="also with labels for these shares of the videos: 0.15")
    add("--draws", type=int, default=1, help="draws of the labelled videos for each share")
    add("--robustness", action="store_true", help="also judge on damaged test videos")
    add("--heads", nargs="*", default=[], metavar="HEAD", help="also train temporal heads: mstcn-small context-small")
    add("--no-heads", nargs="*", default=[], metavar="VARIANT", help="no heads on these")
    add("--keep-older", action="store_true", help="count in finished pieces that were made with other settings")
    add("--tables", action="store_true", help="only write tables of what is finished")
    add("--ours", default=DEFAULT, metavar="VARIANT", help="--tables: the variant that is compared with all others")
    add("--chosen-on", metavar="FOLD", help="--tables: also leave out the videos of this fold that chose the variant")
    add("--piece", help=argparse.SUPPRESS)
    options = parser.parse_args(list(words))
    if options.data is None and not options.tables:
        parser.error("DATA is missing: a feature folder with labels and splits")
    return options
