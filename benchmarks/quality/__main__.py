"""Does the representation win? Variants screened on validation videos, or judged over folds and seeds.

    python benchmarks/quality DATA
    python benchmarks/quality DATA --source-rate 30 --rate 5 --name vts --confirm default ema-random --jobs 2
    python benchmarks/quality --tables

The first command asks one question: does keystep's default beat raw features and the strongest control on the test
videos of all folds that the folder has (``keystep split`` makes them), with three seeds?

1. *Screen* (``--screen``): the variants are trained on the first fold only, and everything is scored on its validation
   videos, by which variants may be chosen. The test part is not touched; what is found lies under ``--out``.
2. *Study*: the variants of ``--confirm`` are trained for every fold and seed and judged by `keystep eval`'s protocol on
   the test videos; with ``--shares 0.15`` also with few labels, with ``--robustness`` on damaged test videos, with
   ``--heads`` by temporal heads. Every finished piece leaves one JSON under ``--results``/<name>; what is there is not
   done again, so a study can be stopped, committed in parts, and gone on with on another machine. ``--out`` holds
   weights and probes, and is not needed afterwards.
3. *Tables* (``--tables``) reads nothing but these files.
"""

from __future__ import annotations

import argparse
import sys

from children import end_with_parent, side_by_side
from options import HERE, options_of
from plan import Study
from tables import write_tables

from keystep.errors import InputError, Interrupted
from keystep.stopping import interruptible


def main() -> None:
    options = options_of(sys.argv[1:], __doc__)
    try:
        with interruptible("stopped; the same command goes on"):
            _run(options)
    except InputError as error:
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        sys.exit(str(stopped))


def _run(options: argparse.Namespace) -> None:
    if options.tables:
        _tables(options)
    elif options.piece:
        _piece(options)
    else:
        _study(Study(options))


def _tables(options: argparse.Namespace) -> None:
    """Tables of one set or of all."""
    sets = [options.results / options.name] if options.name else sorted(options.results.glob("*/"))
    if not sets:
        raise InputError(f"{options.results}: no finished piece of a study")
    for folder in sets:
        write_tables(folder, ours=options.ours, chosen_on=options.chosen_on)


def _piece(options: argparse.Namespace) -> None:
    """One row of the study, in a child."""
    end_with_parent()
    from work import Worker

    study = Study(options)
    (name,) = (name for name in study.names() if str(name) == options.piece)
    Worker(study, name).work()


def _study(study: Study) -> None:
    study.check()
    missing = [name for name in study.names() if study.missing(name)]
    there = len(study.names()) - len(missing)
    print(study.question(), flush=True)
    print(f"{study.name}: {len(missing)} rows to make, {there} are there; pieces go to {study.results}", flush=True)
    commands = {str(name): [sys.executable, str(HERE), *sys.argv[1:], "--piece", str(name)] for name in missing}
    for done, name in enumerate(side_by_side(commands, study.options.jobs), start=1):
        print(f"{done} of {len(missing)}: {name} is finished", flush=True)
    write_tables(study.results, ours=study.options.ours)


if __name__ == "__main__":
    main()
