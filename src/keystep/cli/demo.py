"""``keystep demo``: synthetic data, pretraining and evaluation in minutes, without a download."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.evaluation import show_report
from keystep.cli.progress import progress_on
from keystep.cli.training import train
from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.synthetic import SyntheticConfig, generate
from keystep.errors import InputError
from keystep.evals.evaluate import evaluate

SEEDS = 3
"""Number of seeds that a claim requires."""


def run_demo(out: Path, console: Console, world: int = 0) -> None:
    """Generate data, pretrain P-JEPA with three seeds like `keystep pretrain`, evaluate and report.

    Args:
        out: new or empty folder.
        console: for messages and tables.
        world: seed of the data.

    Raises:
        InputError: if ``out`` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; remove it or choose another --out")
    console.print("1. Synthetic procedures: the name of a step depends on what was done before it.")
    generate(out / "data", SyntheticConfig.demo().model_copy(update={"seed": world}))
    console.print("2. Pretraining P-JEPA on the features, without labels, with three seeds.")
    config = build(RunConfig, {"data": {"root": out / "data", "split": "1"}})
    train(config, out / "runs", seeds=SEEDS, resume=False, console=console)
    console.print("3. Evaluating live (causal), against raw features and every control that learns nothing.")
    data, report = open_dataset(out / "data"), out / "report"
    evaluate(data, {"keystep": out / "runs"}, modes=("causal",), out=report, progress=progress_on(console))
    show_report(out / "report", console)
