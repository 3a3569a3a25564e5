"""Does the representation win? Variants screened on validation videos, the winner judged over folds and seeds.

    python benchmarks/quality DATA --out runs/quality --source-rate 30 --rate 5 --folds 1 2 3 4 5 --seeds 0 1 2 --jobs 2

1. *Screen*: every variant of ``variants.yaml`` is trained once on the first fold, and a linear probe on its training
   videos is scored on its validation videos. The test part is not touched. How many variants were tried is printed.
2. *Confirm*: the variant that is best there (or those of ``--confirm NAME...``) and masked reconstruction are trained
   for every fold and seed, and judged by `keystep eval`'s protocol on the test videos, over all folds together; with
   ``--shares 0.15 0.33``, also with labels for that share of the videos only.

Everything is kept under ``--out`` and nothing is done twice: a stopped study goes on with the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from folds import mean_scores, pooled_gate
from pictures import draw_gate, draw_screen, draw_shares
from rich.console import Console
from runs import Job, side_by_side
from screening import CONTROLS, Scores, Screen, best_variant
from tables import confirm_table, gate_table, screen_table, shares_table

from keystep.cli.evaluation import judge_models, model_records
from keystep.config.base import assignments
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError
from keystep.evals.probe import ProbeConfig
from keystep.evals.protocol import EvalConfig
from keystep.evals.report import write_report
from keystep.evals.results import curves_of, load_result, save_evaluation
from keystep.files import write_json
from keystep.loading import load
from keystep.types import parse_rate

RECONSTRUCTION = "reconstruction"
REFERENCES = (RECONSTRUCTION, "reconstruction-l1", "clusters", "ema-random")
"""What a winner is compared with, so it cannot be the winner."""
SCREEN_PROBE = ProbeConfig(learning_rates=(3e-3, 1e-2), weight_decays=(0.0, 0.3), max_frames=600_000)
"""A smaller grid and fewer passes than `keystep eval` takes: enough to choose by."""
VARIANTS = Path(__file__).with_name("variants.yaml")


class Study:
    """Where everything lies, and what a job is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.variants: dict[str, dict] = yaml.safe_load(options.variants.read_text())
        self.common = assignments(options.settings)

    def check(self) -> None:
        """Refuse what would fail after hours.

        Raises:
            InputError: an unknown variant or split, a share that is none.
        """
        unknown = sorted({*(self.options.confirm or ()), RECONSTRUCTION} - set(self.variants))
        if unknown:
            raise InputError(
                f"{self.options.variants}: no variant {unknown[0]!r}; there are {', '.join(self.variants)}"
            )
        wrong = [share for share in self.options.shares if not 0 < share < 1]
        if wrong:
            raise InputError(f"--shares {wrong[0]:g}: give shares between 0 and 1, such as 0.15")
        folder = self.folder()
        for fold in self.options.folds:
            folder.split(fold)

    def folder(self) -> FeatureFolder:
        source = None if self.options.source_rate is None else parse_rate(self.options.source_rate)
        rate = None if self.options.rate is None else parse_rate(self.options.rate)
        return open_dataset(self.options.data, source_rate=source, rate=rate)

    def job(self, variant: str, fold: str, seed: int) -> Job:
        settings = self.variants[variant]
        data = {"root": self.options.data, "source_rate": self.options.source_rate, "rate": self.options.rate}
        layers = ({"data": {**data, "split": fold}}, self.common, settings, {"train": {"seed": seed}})
        return Job(variant, fold, seed, self.out / "runs" / f"{variant}-fold{fold}-seed{seed}", layers)

    def screen(self) -> dict[str, Scores]:
        """Validation accuracies of controls and variants on the first fold, first seed."""
        fold, seed = self.options.folds[0], self.options.seeds[0]
        jobs = [self.job(name, fold, seed) for name in self.variants]
        screen = Screen(self.folder(), fold, self.out / "screen" / f"fold{fold}", SCREEN_PROBE)
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

    def confirm(self, variants: Sequence[str]) -> None:
        """Every fold and seed of these variants and of masked reconstruction, judged on test videos together."""
        names, options = [*dict.fromkeys([*variants, RECONSTRUCTION])], self.options
        jobs = [self.job(n, f, s) for f in options.folds for s in options.seeds for n in names]
        for number, (job, _) in enumerate(side_by_side(Job.run, jobs, options.jobs), start=1):
            print(f"  trained {number} of {len(jobs)}: {job.variant}, fold {job.fold}, seed {job.seed}", flush=True)
        results = self._judged(names, 1.0)
        lines, scores = pooled_gate(results), mean_scores(results)
        videos = [name for result in results for name in result["data"]["test_videos"]]
        text = confirm_table(scores, lines, variants, len(options.folds), len(options.seeds), len(videos))
        chosen_by = set(self.folder().split(options.folds[0]).valid) & set(videos)
        if 0 < len(chosen_by) < len(set(videos)) - 1:
            text += (
                f"\nThe variant was chosen by {len(chosen_by)} videos that are test videos of another fold. "
                "Without them:\n\n" + gate_table(pooled_gate(results, without=chosen_by))
            )
        (self.out / "confirm.md").write_text(text)
        draw_gate(self.out / "confirm.png", lines)
        print(text)
        if options.shares:
            fewer = {share: self._judged(names, share) for share in options.shares}
            by_share = {share: mean_scores(found) for share, found in fewer.items()} | {1.0: scores}
            text = shares_table(by_share)
            for share, found in fewer.items():
                text += f"\n{share:.0%} of the videos labelled:\n\n{gate_table(pooled_gate(found))}"
            (self.out / "shares.md").write_text(text)
            draw_shares(self.out / "shares.png", by_share)
            print(text)

    def _judged(self, names: Sequence[str], share: float) -> list[dict]:
        """The result of each fold with so many of its training videos labelled."""
        results = []
        for fold, result in side_by_side(
            lambda fold: self._judged_fold(fold, names, share), self.options.folds, self.options.jobs
        ):
            results.append(result)
            print(f"  judged fold {fold}, {share:.0%} of the videos labelled", flush=True)
        return results

    def _judged_fold(self, fold: str, names: Sequence[str], share: float) -> dict:
        seeds = ".".join(map(str, self.options.seeds))
        place = self.out / "judged" / f"fold{fold}-labels{100 * share:g}-seeds{seeds}-{'-'.join(names)}"
        if not (place / "result.json").exists():
            jobs = {name: [self.job(name, fold, seed) for seed in self.options.seeds] for name in names}
            groups = [(name, [load(job.folder) for job in seeds]) for name, seeds in jobs.items()]
            config = EvalConfig(label_share=share)
            evaluation = judge_models(self.folder(), fold, groups, config, Console(quiet=True))
            runs = {f"{job.variant}, seed {job.seed}": job.folder for seeds in jobs.values() for job in seeds}
            save_evaluation(place, evaluation, curves_of(runs), model_records(groups))
            write_report(place)
        return load_result(place)[0]


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
    parser.add_argument("--confirm", nargs="+", help="judge these variants instead of the best one of the screen")
    parser.add_argument("--shares", nargs="*", type=float, default=[], help="also with labels for these shares: 0.15")
    return parser.parse_args()


def main() -> None:
    options = _options()
    try:
        _run(options)
    except InputError as error:
        sys.exit(f"error: {error}")


def _run(options: argparse.Namespace) -> None:
    study = Study(options)
    study.check()
    variants = options.confirm
    if variants is None:
        variants = [best_variant(study.screen(), [name for name in study.variants if name not in REFERENCES])]
        print(f"best on validation: {variants[0]}")
    if not options.screen_only:
        study.confirm(variants)


if __name__ == "__main__":
    main()
