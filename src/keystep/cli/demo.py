"""``keystep demo``: the whole way on made-up data, in minutes, without a download."""

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
"""As many as a claim needs."""


def run_demo(out: Path, console: Console, world: int = 0) -> None:
    """Generate data, pretrain P-JEPA three times as `keystep pretrain` would, evaluate and report.

    world: seed of the data.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; remove it, or choose another --out")
    console.print("1. Made-up procedures: what a step is called depends on what was done before, at times minutes ago.")
    generate(out / "data", SyntheticConfig.demo().model_copy(update={"seed": world}))
    console.print("2. Pretraining P-JEPA on features alone, no labels, from three random beginnings.")
    config = build(RunConfig, {"data": {"root": out / "data", "split": "1"}})
    train(config, out / "runs", seeds=SEEDS, resume=False, console=console)
    console.print("3. Judging it live, against raw features and everything that can be had without learning.")
    data, report = open_dataset(out / "data"), out / "report"
    evaluate(data, {"keystep": out / "runs"}, modes=("causal",), out=report, progress=progress_on(console))
    show_report(out / "report", console)
