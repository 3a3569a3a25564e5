"""``keystep run``: run a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keystep.cli.data import show_lines
from keystep.cli.progress import progress_on
from keystep.recipe import plan, read_recipe
from keystep.stopping import interruptible


def run_recipe(file: Path, root: Path, out: Path, models: Sequence[str], console: Console, **given: Any) -> None:
    """Validate a recipe, print a survey of the data, and run the parts that are not finished."""
    recipe = read_recipe(file)
    planned = plan(recipe, root, out, models=models, **given)
    show_lines(planned.warnings, console)
    if planned.survey is not None:
        from keystep.cli.preparation import print_survey

        print_survey(planned.survey, console)
    with interruptible("stopped; run the same command to resume"):
        done = planned.run(progress_on(console))
    show_lines(done.warnings, console)
    if done.results is not None:
        from keystep.cli.evaluation import show_report

        show_report(done.results, console)
