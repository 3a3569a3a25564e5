"""Mistakes in made-up runs, found live by what is known of correct runs: three worlds, against controls.

    OMP_NUM_THREADS=1 python benchmarks/mistakes.py --work DIR --out benchmarks/results/mistakes

Each world is a procedure with 72 correct training runs, 16 correct validation runs, and 48 test runs, of which half
have one to three mistakes (`keystep.data.made_runs`). Models are trained with the defaults of `keystep pretrain`; data,
models and finished worlds in DIR are used again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keystep
from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.data.made_runs import RunsConfig, generate_runs
from keystep.evals.detection import MEASURES
from keystep.evals.entrants import load_groups, make_entrants, open_judge
from keystep.evals.judging import judge_all
from keystep.evals.mistakes import Intervals, judge_mistakes, missed, strongest
from keystep.evals.protocol import EvalConfig
from measure import parser

EXPLANATION = """All scores are live, with the delay of their row, and calibrated: as a quantile of correct validation
runs at the same announced step, except for the rows that say otherwise and the clock. ORACLE: the true steps, which no
stream knows. Means over worlds (and seeds); in brackets the lowest and the highest world. The strongest control of a
world and measure is chosen on its test videos. Intervals: 95 %, bootstrap over test videos and seeds.
"""


def world(number: int, work: Path, seeds: int, steps: int | None, quick: bool) -> dict[str, Any]:
    """Everything that is measured in a world."""
    folder = work / f"world{number}-{steps or 'default'}"
    if not (folder / "data").exists():
        generate_runs(folder / "data", RunsConfig(seed=number))
    for seed in range(seeds):
        if not (folder / f"seed{seed}" / "model").exists():
            settings = {"data": {"root": folder / "data", "split": "1"}, "train": {"seed": seed}}
            length = {} if steps is None else {"train": {"steps": steps}}
            keystep.pretrain(build(RunConfig, settings, length), out=folder / f"seed{seed}")
    judge = open_judge(open_dataset(folder / "data"), "1", EvalConfig(), folder / "probes")
    entrants = make_entrants(load_groups({"keystep": [folder / f"seed{seed}" for seed in range(seeds)]}))
    evaluation = judge_all(judge, entrants, modes=("causal",), quick=quick)
    study = judge_mistakes(evaluation, entrants)
    intervals = Intervals(study)
    rows = {
        row.name: {
            "delay": row.delay,
            "control": row.control,
            **{measure: [row.mean(measure), *intervals.of(row, measure)] for measure in MEASURES},
        }
        for row in study.rows.values()
    }
    gains = []
    for row in (row for row in study.rows.values() if not row.control):
        for measure in MEASURES:
            rival = strongest(study, measure)
            found = intervals.difference(row, rival, measure)
            gains.append([row.name, measure, rival.name, found.mean, found.low, found.high])
    omitted = {name: missed(study, name).scores() for name in study.missing}
    return {"world": number, "seeds": seeds, "quick": quick, "rows": rows, "gains": gains, "omitted": omitted}


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def markdown(worlds: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| | delay | {' | '.join(MEASURES)} |", "|---|---|" + "---|" * len(MEASURES)]
    for name, first in worlds[0]["rows"].items():
        cells = [spread([each["rows"][name][measure][0] for each in worlds]) for measure in MEASURES]
        lines.append(f"| {name} | {first['delay']:.2f} s | {' | '.join(cells)} |")
    lines += ["", "Gain over the strongest control:", "", "| | measure | world | strongest control | gain |"]
    lines.append("|---|---|---|---|---|")
    for each in worlds:
        for name, measure, rival, mean, low, high in each["gains"]:
            lines.append(
                f"| {name} | {measure} | {each['world']} | {rival} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) |"
            )
    lines += ["", "Omitted steps that are missing at the end of a run:", "", "| | precision | recall | F1 |"]
    lines.append("|---|---|---|---|")
    for name in worlds[0]["omitted"]:
        found = [
            [np.mean([run[measure] for run in each["omitted"][name]]) for each in worlds]
            for measure in ("precision", "recall", "F1")
        ]
        lines.append(f"| {name} | {' | '.join(spread([float(value) for value in values]) for values in found)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    found = parser(__doc__)
    found.add_argument("--worlds", type=int, default=3)
    found.add_argument("--seeds", type=int, default=1, help="models per world")
    found.add_argument("--steps", type=int, help="of each training; by default those of keystep pretrain")
    found.add_argument("--quick", action="store_true", help="probes without refinement, as in keystep eval --quick")
    found.add_argument("--work", type=Path, required=True, help="folder for data and models")
    found.add_argument("--out", type=Path, required=True, help="write OUT.md and OUT.json")
    asked = found.parse_args()
    worlds = []
    for number in range(asked.worlds):
        kept = asked.work / f"mistakes-world{number}-{asked.seeds}-{asked.steps}-{asked.quick}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(world(number, asked.work, asked.seeds, asked.steps, asked.quick), indent=1))
        worlds.append(json.loads(kept.read_text()))
    options = (f" --steps {asked.steps}" if asked.steps else "") + (" --quick" if asked.quick else "")
    command = f"python benchmarks/mistakes.py --worlds {asked.worlds} --seeds {asked.seeds}{options} --work DIR"
    text = f"# Mistakes in made-up runs\n\n    {command} --out {asked.out}\n\n{EXPLANATION}\n{markdown(worlds)}"
    asked.out.with_suffix(".md").write_text(text, encoding="utf-8")
    asked.out.with_suffix(".json").write_text(json.dumps(worlds, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
