"""``make fuzz``: damages every kind of file many times, prints what became of them, and keeps what was not handled.

    python tests/fuzz/run.py [--total 100000] [--seed 0] [--kind NAME ...]

Each kind gets the same number of files, at least 2,000 of 100,000. What ends in a traceback, hangs, says something
that is no single plain line, or changes silently is written to ``tests/fuzz/corpus/``, which `make test` reads again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
CORPUS = HERE / "corpus"
MEMORY = 6 << 30
"""Bytes of address space: a file that claims more must not get it."""


def main() -> int:
    """Run, print the table as Markdown, and say with the exit status whether anything was found."""
    from harness import Finding, Tally, fuzz
    from kinds import all_kinds

    parser = argparse.ArgumentParser(description="Damage every kind of file that keystep reads.")
    parser.add_argument("--total", type=int, default=100_000, help="files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only kinds whose names contain this; repeat as needed")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = all_kinds(Path(folder))
        chosen = [
            kind for name, kind in kinds.items() if not options.kind or any(part in name for part in options.kind)
        ]
        each = -(-options.total // len(chosen))
        print("| kind of file | files | read | refused | tracebacks | hangs | silent changes | slowest, s |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        total, began = Tally(), time.time()
        for kind in chosen:
            tally = fuzz(kind, each, options.seed)
            print(_row(kind.name, tally, kind.shown is not None), flush=True)
            total.outcomes += tally.outcomes
            total.slowest = max(total.slowest, tally.slowest)
            found += tally.findings
    print(_row("all", total, True))
    print(f"\n{total.count:,} files of {len(chosen)} kinds, seed {options.seed}, {time.time() - began:.0f} s")
    for finding in found:
        _keep(finding)
    return 1 if found else 0


def _row(name: str, tally: object, checksummed: bool) -> str:
    of = tally.outcomes  # type: ignore[attr-defined]
    silent = str(of["silent change"]) if checksummed else "–"
    bad = of["traceback"] + of["bad message"]
    cells = (name, f"{of.total():,}", f"{of['read']:,}", f"{of['refused']:,}", bad, of["hang"], silent)
    return f"| {' | '.join(map(str, cells))} | {tally.slowest:.1f} |"  # type: ignore[attr-defined]


def _keep(finding: object) -> None:
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / finding.name  # type: ignore[attr-defined]
    path.write_bytes(finding.data)  # type: ignore[attr-defined]
    print(f"\n{path.name}: {finding.what}", file=sys.stderr)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
