"""``keystep pretrain``: one run, or several that differ in their seed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.progress import progress_on
from keystep.config import RunConfig
from keystep.errors import InputError, Interrupted
from keystep.train.run import pretrain
from keystep.train.several import pretrain_several, seeds_of


def train(config: RunConfig, run: Path, *, seeds: int | None, resume: bool, console: Console) -> None:
    """Train in the folder ``run``, or so many seeds in folders of their own in it, and say where the models are."""
    if seeds is None:
        model = pretrain(config, run, resume=resume, progress=progress_on(console))
        console.print(f"model: {model.origin.source}   metrics: {run / 'metrics.jsonl'}", soft_wrap=True)
        return
    if not resume and run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: not empty; go on with --resume {run} --seeds {seeds}, or choose another --out")
    runs = seeds_of(config, run, seeds)
    try:
        pretrain_several(runs, progress=progress_on(console))
    except Interrupted:
        raise Interrupted(f"stopped; go on with --resume {run} --seeds {seeds}") from None
    for each in runs:
        console.print(f"model: {each / 'model'}   metrics: {each / 'metrics.jsonl'}", soft_wrap=True)
