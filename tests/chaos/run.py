"""``make chaos``: ends commands at random moments and fills their disks, and sees whether they keep their promises.

    python tests/chaos/run.py [--kills 100] [--seed 0] [--only NAME ...]

Kills are shared among the commands; each also gets a disk that is full from the n-th write on (n drawn up to 60, a
third as often as kills), a quarter as many starts of two at once, and clocks that jump. Prints a table as Markdown,
and what should not have been.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: children are forked, which threads do not survive

COMMANDS = ("pretrain", "import", "extract", "encode", "stream", "eval")
MOST_WRITES = 60


def main() -> int:
    """Run, print the table, and say with the exit status whether anything was found."""
    from arena import Arena
    from victims import all_victims

    parser = argparse.ArgumentParser(description="Kill commands, fill their disks, start two at once.")
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=COMMANDS, help="only these; repeat as needed")
    options = parser.parse_args()
    drawn, began, faults = random.Random(options.seed), time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        heads = (
            "command",
            "kill -9",
            "before its end",
            "disk full at a write",
            "two at once",
            "clocks that jump",
            "faults",
        )
        print(f"| {' | '.join(heads)} |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        chosen = options.only or COMMANDS
        each = -(-options.kills // len(chosen))
        for victim in all_victims(root, lambda name: name in chosen):
            arena = Arena(victim, root / "arena" / victim.name, options.seed)
            arena.kill(each)
            arena.fill_the_disk([drawn.randint(1, MOST_WRITES) for _ in range(-(-each // 3))])
            arena.start_two(-(-each // 4))
            arena.turn_the_clock(1)
            tally = arena.tally
            numbers = (tally.kills, tally.in_the_work, tally.full, tally.pairs, tally.jumps, len(tally.faults))
            print(f"| {victim.name} | {' | '.join(f'{number:,}' for number in numbers)} |", flush=True)
            faults += [f"{victim.name}: {fault}" for fault in tally.faults]
        print(f"\nseed {options.seed}, {time.time() - began:.0f} s")
        for fault in faults:
            print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
