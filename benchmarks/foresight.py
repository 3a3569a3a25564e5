"""Anticipation and time left on one data set: both tasks for several seeds of a model, on latents encoded once.

    python benchmarks/foresight.py DATA RUN [RUN ...] --out benchmarks/results/foresight/NAME.json [--picture FILE.png]

The numbers are those of ``keystep eval --task anticipate`` and ``--task remaining`` in causal mode, without the table
of segmentation. The best control is selected on validation videos as there; ``--probes`` takes the fitted probes of an
earlier evaluation. In addition to the gains over the strongest control, the file has those over the Markov chain that
is fed by the model's own steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from keystep.data.folder import FeatureFolder, open_dataset
from keystep.evals.entrants import check_models, load_groups, make_entrants, open_judge, training_rate
from keystep.evals.head_sources import sources
from keystep.evals.head_tables import markdown_plain, task_tables
from keystep.evals.judging import judge_controls
from keystep.evals.palette import FAMILY_COLOURS, Palette
from keystep.evals.plots import clock_axis
from keystep.evals.protocol import EvalConfig
from keystep.evals.results import data_record, provenance
from keystep.evals.study import Study
from keystep.evals.task import TaskStudy, VideoScores, find_task, task_gain
from keystep.files import write_json
from keystep.foresight import Forecast, Forecaster
from keystep.foresight.targets import next_steps, remaining_slots

TASKS = ("anticipate", "remaining")
SHOWN_HORIZON = 5.0
"""Seconds."""


def main() -> None:
    """Judge, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="+", help="trained models, the seeds of one recipe")
    parser.add_argument("--source-rate")
    parser.add_argument("--split", default="1")
    parser.add_argument("--probes", type=Path, help="folder of fitted probes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, help="what the first model foresees in the middle test video")
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = load_groups({"keystep": options.runs})
    folder = open_dataset(options.data, source_rate=options.source_rate, rate=training_rate(groups))
    for line in check_models(groups, folder, options.split):
        print(f"warning: {line}")
    judge = open_judge(folder, options.split, EvalConfig(), options.probes)
    study = Study(judge)
    judge_controls(study, ("causal",))
    tasks = {name: find_task(name) for name in TASKS}
    judged = [TaskStudy(name, task, study.evaluation) for name, task in tasks.items() if task is not None]
    for source in sources(judge, make_entrants(groups), "causal", 1, study.evaluation.best_control["causal"].control):
        representation = source.made()
        print(f"{source.name}, seed {source.seed}", flush=True)
        for one in judged:
            one.judge(source, representation)
        if options.picture is not None and source.family == "learned":
            name = sorted(judge.split.test, key=folder.length)[len(judge.split.test) // 2]
            forecaster = next(iter(judged[0].forecasters.values()))
            draw(folder, name, forecaster, forecaster.forecast(representation[name])).savefig(options.picture, dpi=110)
            options.picture = None
    tables = [one.table() for one in judged]
    record = {
        **provenance(),
        "data": data_record(judge),
        "best_control": study.evaluation.best_control["causal"].control.name,
        "task_tables": [table.to_json() for table in tables],
        "over_markov_chain": over_markov_chain(judged[0]),
    }
    write_json(options.out, record)
    print("\n".join(map(markdown_plain, task_tables(record))))
    for line in record["over_markov_chain"]:
        print(f"{line['claim']}: {line['mean']:+.2f}, {line['low']:+.2f} to {line['high']:+.2f}, {line['verdict']}")


def over_markov_chain(study: TaskStudy) -> list[dict[str, object]]:
    """Gains over the Markov chain of the model's own steps, in every measure."""
    rows = {row.name: row for row in study.rows}
    ours, chain = rows["keystep"], rows["Markov chain, keystep"]
    lines = [
        task_gain(ours, chain, measure, study.evaluation.judge)
        for measure, score in ours.scores[0].items()
        if isinstance(score, VideoScores)
    ]
    return [line.to_json() for line in lines]


def draw(folder: FeatureFolder, name: str, forecaster: Forecaster, forecast: Forecast) -> Figure:
    """The steps of a video beside those foreseen before, and the time until the next step and the end."""
    labels, rate, palette = folder.labels(name), forecaster.rate, Palette(folder.classes)
    seconds, classes = np.arange(len(labels)) / rate, len(folder.classes)
    place = min(range(len(forecaster.horizons)), key=lambda index: abs(forecaster.horizons[index] - SHOWN_HORIZON))
    horizon = forecaster.horizons[place]
    ahead = round(horizon * rate)
    late = np.full(ahead, -1)
    lines = {
        "true steps": labels,
        f"foreseen {horizon:g} s before": np.concatenate([late, forecast.later[place, :-ahead, :classes].argmax(1)]),
        f"recognised {horizon:g} s before": np.concatenate([late, forecast.now[:-ahead].argmax(1)]),
    }
    figure = Figure((10, 6.4), layout="constrained")
    ribbons, start, left = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.2, 1.2))
    for row, steps in enumerate(lines.values()):
        ribbons.imshow(
            palette.paint(steps), aspect="auto", extent=(0, seconds[-1], row + 0.9, row), interpolation="nearest"
        )
    ribbons.set(yticks=np.arange(3) + 0.45, yticklabels=list(lines), ylim=(3, 0))
    ribbons.set_title(f"What is foreseen in {name}, a synthetic procedure of the test part", loc="left", fontsize=10)
    truths = (next_steps(labels, classes).slots / rate, remaining_slots(len(labels)) / rate)
    titles = ("seconds until the next step", "seconds left")
    for axes, truth, interval, title in zip(
        (start, left), truths, (forecast.start, forecast.remaining), titles, strict=True
    ):
        axes.fill_between(seconds, interval.low, interval.high, color=FAMILY_COLOURS["learned"], alpha=0.15, lw=0)
        axes.plot(seconds, interval.expected, color=FAMILY_COLOURS["learned"], lw=1.2, label="forecast, 90 % interval")
        axes.plot(seconds, truth, color="#222222", lw=1.2, ls="--", label="true")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylim(0, 1.6 * np.nanmax(truth))
    left.plot(
        seconds,
        forecaster.clock.remaining(seconds),
        color=FAMILY_COLOURS["control"],
        lw=1.2,
        label="elapsed time alone",
    )
    left.legend(fontsize=9, frameon=False)
    clock_axis(left, seconds[-1])
    return figure


if __name__ == "__main__":
    main()
