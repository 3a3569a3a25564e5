"""``keystep demo``: the whole way on made-up data, in minutes, without a download."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from keystep.cli.evaluation import judge_models, model_records, show_report
from keystep.cli.progress import progress_on
from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.synthetic import SyntheticConfig, generate
from keystep.errors import InputError
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.evals.results import curves_of, save_evaluation
from keystep.train.run import pretrain

SETTINGS = {
    "data": {"split": "1"},
    "target": {"smooth": 9},  # single frames are mostly noise here
    "train": {"steps": 400, "crop": 256, "monitor_every": 100, "save_every": 100},
}
PROBE = ProbeConfig(learning_rates=(1e-2,), weight_decays=(0.0, 0.1), epochs=10, min_steps=300)
"""A smaller grid and fewer passes than `keystep eval` takes, to be done in minutes."""
RECONSTRUCTION = {"target": {"offsets": [0], "smooth": 1}}


def run_demo(out: Path, console: Console) -> None:
    """Make data, pretrain P-JEPA and its reconstruction control, judge both, report."""
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty; remove it, or choose another --out")
    console.print("1. Made-up procedures: several tasks, steps that look alike and differ by what happened before.")
    generate(out / "data", SyntheticConfig.demo())
    folder = open_dataset(out / "data")
    groups = []
    for number, (name, change) in enumerate((("pjepa", {}), ("reconstruction", RECONSTRUCTION)), start=2):
        console.print(f"{number}. Pretraining {name} on features alone, no labels.")
        config = build(RunConfig, {"data": {"root": out / "data"}}, SETTINGS, change)
        groups.append((name, [pretrain(config, out / "runs" / name, progress=progress_on(console))]))
    console.print("4. Judging them against raw features and everything that smoothing gives for free.")
    evaluation = judge_models(folder, "1", groups, EvalConfig(probe=PROBE), console)
    runs = {f"{name}, seed 0": out / "runs" / name for name, _ in groups}
    save_evaluation(out / "report", evaluation, curves_of(runs), model_records(groups))
    show_report(out / "report", console)
