"""``make fuzz-guided``: lets atheris damage files, which keeps what reaches code that no file before it has reached.

    python tests/fuzz/guided.py [--seconds 30] [--kind NAME ...]

An extra run for machines that have it (``pip install atheris``: Linux, CPython); never part of the tests. Each kind
gets so many seconds in a process of its own. What is not handled is kept in ``tests/fuzz/corpus/``, as by run.py.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
COUNT = np.dtype(np.int64)


def main() -> int:
    """Run, say for each kind how many files were tried and found, and with the exit status whether any was."""
    import atheris

    with atheris.instrument_imports(include=["keystep"]):
        from kinds import all_kinds
    from run import MEMORY

    parser = argparse.ArgumentParser(description="Damage every kind of file that keystep reads, led by coverage.")
    parser.add_argument("--seconds", type=int, default=30, help="for each kind")
    parser.add_argument("--kind", action="append", help="only kinds whose names contain this; repeat as needed")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    failed, counts = False, mmap.mmap(-1, 2 * COUNT.itemsize)  # which parent and children share
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in all_kinds(Path(folder)).items():
            if options.kind and not any(part in name for part in options.kind):
                continue
            counts[:] = bytes(len(counts))
            child = os.fork()
            if not child:
                _guided(kind, Path(folder) / "seeds" / str(os.getpid()), options.seconds, counts)
            died = os.waitpid(child, 0)[1] != 0
            files, bad = np.frombuffer(counts, COUNT).tolist()
            print(f"{name}: {files:,} files, {bad} not handled{', and it died' if died else ''}", flush=True)
            failed |= died or bad > 0
    return int(failed)


def _guided(kind: object, seeds: Path, seconds: int, counts: mmap.mmap) -> None:
    """Fuzz one kind, count files and findings, and leave the process: libFuzzer never returns."""
    import atheris
    from harness import Tally, try_file
    from run import keep

    seeds.mkdir(parents=True)
    (seeds / "sound").write_bytes(kind.path.read_bytes())  # type: ignore[attr-defined]  # a module found at run time
    tally = Tally()

    def one(data: bytes) -> None:
        known = len(tally.findings)
        try_file(kind, data, tally, None)  # type: ignore[arg-type]
        for finding in tally.findings[known:]:
            keep(finding)
        counts[:] = np.array([tally.count, len(tally.findings)], COUNT).tobytes()

    limits = [f"-max_total_time={seconds}", "-timeout=0", "-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, str(seeds)], one, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
