"""``keystep pretrain``: train one run, or several with different seeds."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.progress import progress_on
from keystep.config import RunConfig
from keystep.errors import InputError, Interrupted
from keystep.train.run import pretrain
from keystep.train.several import pretrain_several, vary_seed


def train(config: RunConfig, run: Path, *, seeds: int | None, resume: bool, console: Console) -> None:
    """Train a model in the folder ``run``, or one per seed in its subfolders, and print where the models are.

    Raises:
        InputError: if a new run's folder is not empty.
        Interrupted: if the training was stopped and can be resumed.
    """
    if seeds is None:
        model = pretrain(config, run, resume=resume, progress=progress_on(console))
        console.print(f"model: {model.origin.source}   metrics: {run / 'metrics.jsonl'}", soft_wrap=True)
        return
    if not resume and run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: not empty; resume with --resume {run} --seeds {seeds}, or choose another --out")
    runs = vary_seed(config, run, seeds)
    try:
        pretrain_several(runs, progress=progress_on(console))
    except Interrupted:
        raise Interrupted(f"stopped; resume with --resume {run} --seeds {seeds}") from None
    for each in runs:
        console.print(f"model: {each / 'model'}   metrics: {each / 'metrics.jsonl'}", soft_wrap=True)
