"""``make fuzz``: damages every kind of file many times, prints what became of them, and keeps what was not handled.

    python tests/fuzz/run.py [--total 100000] [--least 2000] [--seed 0] [--kind NAME ...] [--record FILE]

Each kind gets the same number of files, 2,000 or more. What ends in a traceback, kills its process, hangs, says
something that is no single plain line, or changes silently is written to ``tests/fuzz/corpus/``, which `make test`
reads again. With ``--record``, a run that was stopped goes on behind the last kind that it finished.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
CORPUS = HERE / "corpus"
MEMORY = 6 << 30
"""Bytes of address space: a file that claims more must not get it."""


def main() -> int:
    """Run, print the table as Markdown, and say with the exit status whether anything was found."""
    from harness import Tally, fuzz_apart
    from kinds import all_kinds

    parser = argparse.ArgumentParser(description="Damage every kind of file that keystep reads.")
    parser.add_argument("--total", type=int, default=100_000, help="files in all")
    parser.add_argument("--least", type=int, default=2000, help="files of each kind, even if these are more than total")
    parser.add_argument("--record", type=Path, help="file that keeps what each kind gave, for a call that goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only kinds whose names contain this; repeat as needed")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        kinds = all_kinds(Path(folder))
        chosen = [
            kind for name, kind in kinds.items() if not options.kind or any(part in name for part in options.kind)
        ]
        each = max(options.least, -(-options.total // len(chosen)))
        print("| kind of file | files | read | refused | tracebacks | hangs | silent changes | slowest, s |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        total, began, done = Tally(), time.time(), _recorded(options.record, options.seed, each)
        for kind in chosen:
            tally = Tally(*done[kind.name]) if kind.name in done else fuzz_apart(kind, each, options.seed)
            print(_row(kind.name, tally, kind.shown is not None), flush=True)
            for finding in tally.findings:
                keep(finding)
            if options.record is not None and kind.name not in done:
                line = {"kind": kind.name, "seed": options.seed, "files": each, "slowest": tally.slowest}
                with options.record.open("a") as file:
                    file.write(json.dumps({**line, "outcomes": tally.outcomes}) + "\n")
            total.add(tally)
    print(_row("all", total, True))
    print(f"\n{total.count:,} files of {len(chosen)} kinds, seed {options.seed}, {time.time() - began:.0f} s")
    return 0 if set(total.outcomes) <= {"read", "refused"} else 1


def _recorded(record: Path | None, seed: int, files: int) -> dict[str, tuple[Counter[str], list[object], float]]:
    """Kind -> what an earlier call with the same seed and as many files found."""
    lines = record.read_text().splitlines() if record is not None and record.exists() else []
    found = [line for line in map(json.loads, lines) if (line["seed"], line["files"]) == (seed, files)]
    return {line["kind"]: (Counter(line["outcomes"]), [], line["slowest"]) for line in found}


def _row(name: str, tally: object, checksummed: bool) -> str:
    of = tally.outcomes  # type: ignore[attr-defined]
    silent = str(of["silent change"]) if checksummed else "–"
    bad = of["traceback"] + of["bad message"] + of["death"]
    cells = (name, f"{of.total():,}", f"{of['read']:,}", f"{of['refused']:,}", bad, of["hang"], silent)
    return f"| {' | '.join(map(str, cells))} | {tally.slowest:.1f} |"  # type: ignore[attr-defined]


def keep(finding: object) -> None:
    """Write a finding to the corpus, and what was wrong to standard error."""
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / finding.name  # type: ignore[attr-defined]
    path.write_bytes(finding.data)  # type: ignore[attr-defined]
    print(f"\n{path.name}: {finding.what}", file=sys.stderr)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
