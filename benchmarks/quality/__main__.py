"""Does the representation win? Variants screened on validation videos, the winner judged over folds and seeds.

    python benchmarks/quality DATA --out runs/quality --source-rate 30 --rate 5 --folds 1 2 3 4 5 --seeds 0 1 2 --jobs 2

1. *Screen*: every variant of ``variants.yaml`` is trained once on the first fold, and a linear probe on its training
   videos is scored on its validation videos. The test part is not touched. How many variants were tried is printed.
2. *Confirm*: the variant that is best there (or ``--confirm NAME``) and masked reconstruction are trained for every
   fold and seed, and judged by `keystep eval`'s protocol on the test videos, over all folds together.

Everything is kept under ``--out`` and nothing is done twice: a stopped study goes on with the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from folds import Line, Score, mean_scores, pooled_gate
from pictures import draw_gate, draw_screen
from rich.console import Console
from runs import Job, side_by_side
from screening import CONTROLS, MODES, Scores, Screen, best_variant

from keystep.cli.evaluation import judge_models, model_records
from keystep.cli.models import find_model
from keystep.data.folder import FeatureFolder, open_folder
from keystep.data.timeline import parse_rate
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.evals.report import write_report
from keystep.evals.results import curves_of, load_result, save_evaluation
from keystep.files import write_json
from keystep.settings import assignments

RECONSTRUCTION = "reconstruction"
VARIANTS = Path(__file__).with_name("variants.yaml")


class Study:
    """Where everything lies, and what a job is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.variants: dict[str, dict] = yaml.safe_load(options.variants.read_text())
        self.common = assignments(options.settings)

    def folder(self) -> FeatureFolder:
        source = None if self.options.source_rate is None else parse_rate(self.options.source_rate)
        rate = None if self.options.rate is None else parse_rate(self.options.rate)
        return open_folder(self.options.data, source_rate=source, rate=rate)

    def job(self, variant: str, fold: str, seed: int) -> Job:
        data = {"root": self.options.data, "source_rate": self.options.source_rate, "rate": self.options.rate}
        layers = ({"data": {**data, "split": fold}}, self.common, self.variants[variant], {"train": {"seed": seed}})
        return Job(variant, fold, seed, self.out / "runs" / f"{variant}-fold{fold}-seed{seed}", layers)

    def screen(self) -> dict[str, Scores]:
        """Validation accuracies of controls and variants on the first fold, first seed."""
        fold, seed = self.options.folds[0], self.options.seeds[0]
        jobs = [self.job(name, fold, seed) for name in self.variants]
        screen = Screen(self.folder(), fold, self.out / "screen", ProbeConfig())
        scores = screen.controls()

        def scored(job: Job) -> Scores:
            job.run()
            return screen.model(job)

        for job, found in side_by_side(scored, jobs, self.options.jobs):
            scores[job.variant] = found
            alone = ", ".join(f"{mode} {values['alone']:.1f}" for mode, values in found.items())
            print(f"  {len(scores) - len(CONTROLS)} of {len(jobs)}: {job.variant}: {alone}", flush=True)
        write_json(self.out / "screen.json", scores)
        (self.out / "screen.md").write_text(screen_table(scores, len(jobs), fold))
        draw_screen(self.out / "screen.png", scores, CONTROLS)
        print((self.out / "screen.md").read_text())
        return scores

    def confirm(self, variant: str) -> None:
        """Every fold and seed of one variant and of its reconstruction twin, judged on test videos."""
        names, options = [variant, RECONSTRUCTION], self.options
        jobs = [self.job(n, f, s) for f in options.folds for s in options.seeds for n in names]
        for number, (job, _) in enumerate(side_by_side(Job.run, jobs, options.jobs), start=1):
            print(f"  trained {number} of {len(jobs)}: {job.variant}, fold {job.fold}, seed {job.seed}", flush=True)
        results = []
        for fold, result in side_by_side(lambda fold: self._judged(fold, names), options.folds, options.jobs):
            results.append(result)
            print(f"  judged fold {fold}", flush=True)
        lines, scores = pooled_gate(results), mean_scores(results)
        videos = sum(len(result["data"]["test_videos"]) for result in results)
        text = confirm_table(scores, lines, variant, len(options.folds), len(options.seeds), videos)
        (self.out / "confirm.md").write_text(text)
        draw_gate(self.out / "confirm.png", lines)
        print(text)

    def _judged(self, fold: str, names: list[str]) -> dict:
        place = self.out / "judged" / f"fold{fold}-{names[0]}"
        if not (place / "result.json").exists():
            groups = [
                (name, [find_model(str(self.job(name, fold, seed).folder)) for seed in self.options.seeds])
                for name in names
            ]
            evaluation = judge_models(self.folder(), fold, groups, EvalConfig(), Console(quiet=True))
            runs = {f"{n}, seed {s}": self.job(n, fold, s).folder for n in names for s in self.options.seeds}
            save_evaluation(place, evaluation, curves_of(runs), model_records(groups))
            write_report(place)
        return load_result(place)[0]


def screen_table(scores: dict[str, Scores], variants: int, fold: str) -> str:
    """Markdown; the best first, by the mean over modes of what a variant reads alone."""

    def cell(name: str, mode: str, read: str) -> str:
        value = scores[name].get(mode, {}).get(read)
        return "–" if value is None else f"{value:.1f}"

    def rank(name: str) -> float:
        values = [scores[name][mode]["alone"] for mode in MODES if mode in scores[name]]
        return -sum(values) / max(1, len(values))

    heads = ["row", *(f"{mode}, {read}" for mode in MODES for read in ("alone", "beside smoothing"))]
    lines = [
        f"{variants} variants tried, one seed each, fold {fold}; frame accuracy on *validation* videos, which chose.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for name in sorted(scores, key=rank):
        marked = f"*{name}* (control)" if name in CONTROLS else name
        cells = [cell(name, mode, read) for mode in MODES for read in ("alone", "beside")]
        lines.append(f"| {' | '.join([marked, *cells])} |")
    return "\n".join(lines) + "\n"


def confirm_table(scores: list[Score], lines: list[Line], variant: str, folds: int, seeds: int, videos: int) -> str:
    """Markdown: rows, then the gate."""
    text = [
        f"`{variant}` over {folds} folds x {seeds} seeds, {videos} test videos. Mean over folds and seeds, ± deviation",
        "over seeds. Widths and probe settings were chosen on validation videos.",
        "",
        "| representation | mode | accuracy | edit | F1@50 |",
        "|---|---|---|---|---|",
    ]
    for score in scores:
        cells = [f"{score.mean[m]:.1f}" + (f" ± {score.spread[m]:.1f}" if score.spread[m] else "") for m in score.mean]
        text.append(f"| {score.name} | {score.mode} | {' | '.join(cells)} |")
    text += ["", "| mode | claim | difference | 95 % interval | |", "|---|---|---|---|---|"]
    for line in lines:
        d = line.difference
        verdict = "**holds**" if line.holds else "does not hold"
        rivals = ", ".join(sorted(set(line.rivals)))
        cells = [line.mode, f"{line.first} {line.claim} ({rivals})", f"{d.mean:+.1f}", f"{d.low:+.1f} to {d.high:+.1f}"]
        text.append(f"| {' | '.join([*cells, verdict])} |")
    return "\n".join(text) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a feature folder with labels and splits")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--variants", type=Path, default=VARIANTS)
    parser.add_argument("--source-rate", help="features a second on disk, where store.json does not say")
    parser.add_argument("--rate", help="work at this rate")
    parser.add_argument("--folds", nargs="+", default=["1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, one thread each")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="for all runs: train.steps=1500")
    parser.add_argument("--screen-only", action="store_true", help="leave the test part alone")
    parser.add_argument("--confirm", help="judge this variant instead of the best one of the screen")
    return parser.parse_args()


def main() -> None:
    options = _options()
    study = Study(options)
    variant = options.confirm
    if variant is None:
        variant = best_variant(study.screen(), [name for name in study.variants if name != RECONSTRUCTION])
        print(f"best on validation: {variant}")
    if not options.screen_only:
        study.confirm(variant)


if __name__ == "__main__":
    main()
