"""Draw a made-up run with mistakes: true steps, mistakes, announced steps, and the signals over time.

python benchmarks/mistakes_picture.py --data DIR/world0/data --model DIR/world0/seed0 --out docs/images/mistakes.png
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import keystep
from keystep.data.folder import open_dataset
from keystep.data.mistakes import read_mistakes
from keystep.evals.entrants import load_groups, make_entrants, open_judge
from keystep.evals.judging import judge_all
from keystep.evals.mistakes import judge_mistakes
from keystep.evals.palette import FAMILY_COLOURS, Palette
from keystep.evals.plots import clock_axis
from keystep.evals.protocol import EvalConfig
from measure import parser

RED = "#cc3311"


def main() -> None:
    found = parser(__doc__)
    found.add_argument("--data", type=Path, required=True)
    found.add_argument("--model", type=Path, required=True)
    found.add_argument("--video", help="by default, the test video with most kinds of mistakes")
    found.add_argument("--out", type=Path, required=True)
    asked = found.parse_args()
    judge = open_judge(open_dataset(asked.data), "1", EvalConfig())
    mistakes = {name: read_mistakes(judge.folder, name) or [] for name in judge.split.test}
    kinds = {name: len({mistake.kind for mistake in own}) for name, own in mistakes.items()}
    video = asked.video or max(kinds, key=lambda name: kinds[name])
    judge = replace(judge, split=replace(judge.split, test=(video,)))
    entrants = make_entrants(load_groups({"keystep": asked.model}))
    evaluation = judge_all(judge, entrants, modes=("causal",), quick=True)
    study = judge_mistakes(evaluation, entrants)
    folder, row = judge.folder, evaluation.find("keystep", "causal")
    assert row is not None
    features = folder.features(video)
    scores = row.runs[0].probe.scores(keystep.encode(entrants[0].model, features, mode="causal"))
    alarms = study.monitors["keystep", 0, ""].of_video(features, scores)
    palette, seconds = Palette(folder.classes), folder.times(video)
    labels = folder.labels(video)

    figure = Figure(figsize=(10, 4.2))
    FigureCanvasAgg(figure)
    strips, *panels = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": [1.2, 1, 1, 1], "hspace": 0.25})
    extent = (0.0, float(seconds[-1]))
    for place, ids in ((1.0, labels), (0.0, alarms.steps)):
        strips.imshow(palette.paint(ids), aspect="auto", extent=(*extent, place, place + 0.9))
    strips.set_ylim(0, 1.9)
    strips.set_yticks([0.45, 1.45], ["announced", "true steps"], fontsize=8)
    curves = {"predictor's error": alarms.error, "order": alarms.order, "both": alarms.both}
    for axes, (name, tail) in zip(panels, curves.items(), strict=True):
        axes.step(seconds, -np.log10(tail), where="post", color=FAMILY_COLOURS["learned"], linewidth=1.2)
        axes.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        axes.set_ylim(0, 3.6)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for mistake in study.mistakes[video]:
        start, stop = seconds[mistake.start], seconds[min(mistake.stop, len(seconds) - 1)]
        for axes in panels:
            axes.axvspan(start, max(stop, start + 0.3), color=RED, alpha=0.16, linewidth=0)
        text = f"{mistake.kind} {mistake.step}" if mistake.stop > mistake.start else f"{mistake.step} omitted"
        strips.text(start, 2.0, text, fontsize=7, color=RED, rotation=20, va="bottom")
    clock_axis(panels[-1], extent[1])
    panels[-1].set_xlabel(
        "time; curves: unusual at the announced step, 1: one in 10 correct frames, 3: one in 1,000", fontsize=8
    )
    title = f"{video}: shaded: mistakes; white: no step of the procedure"
    figure.text(0.01, 0.965, title, fontsize=8)
    figure.subplots_adjust(left=0.12, right=0.985, top=0.8, bottom=0.12)
    figure.savefig(asked.out, dpi=110)


if __name__ == "__main__":
    main()
