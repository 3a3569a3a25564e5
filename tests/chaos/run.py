"""``make chaos``: ends commands at random moments and fills their disks, and sees whether they keep their promises.

    python tests/chaos/run.py [--kills 100] [--seed 0] [--only NAME ...] [--record FILE]

The server gets all kills, the other commands share as many; each of these also gets a third as often a disk that is
full from the n-th of its writes on, and a file system too small for it (where this process may mount one), a quarter as
often starts of two at once, and clocks that jump. Prints a table as Markdown, and what should not have been. With
``--record``, a run that was stopped goes on behind the last command that it finished.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arena import Tally

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of workers: the toy backbone, and how full the disk is
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: children are forked, which threads do not survive

COMMANDS = ("serve", "live", "pretrain", "import", "extract", "encode", "stream", "eval", "run")
HEADS = (
    *("command", "kill -9", "before its end", "disk full at a write", "disk too small", "two at once"),
    *("clocks that jump", "faults"),
)


def main() -> int:
    """Run, print the table, and say with the exit status whether anything was found."""
    from arena import Tally, can_mount

    parser = argparse.ArgumentParser(description="Kill commands, fill their disks, start two at once.")
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=COMMANDS, help="only these; repeat as needed")
    parser.add_argument("--record", type=Path, help="file that keeps what each command did, for a call that goes on")
    options = parser.parse_args()
    began, faults = time.time(), list[str]()
    chosen = options.only or COMMANDS
    each = -(-options.kills // len(chosen))
    done = _recorded(options.record, options.seed, each)
    print(f"| {' | '.join(HEADS)} |\n|---|{'---:|' * (len(HEADS) - 1)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mounts = can_mount(root / "mounted")
        for name in chosen:
            if name not in done:
                kills = options.kills if name == "serve" else each
                command, tally = _tried(name, root, options.seed, kills, mounts)
                done[name] = {"command": command, **asdict(tally)}
                if options.record is not None:
                    with options.record.open("a") as file:
                        file.write(json.dumps({"name": name, "seed": options.seed, "each": each, **done[name]}) + "\n")
            record = dict(done[name])
            name, tally = record.pop("command"), Tally(**record)
            print(f"| {name} | {' | '.join(f'{number:,}' for number in tally.numbers)} |", flush=True)
            faults += [f"{name}: {fault}" for fault in tally.faults]
    print(f"\nseed {options.seed}, {time.time() - began:.0f} s")
    print("\n".join([*([] if mounts else ["no small disks: mounting one is not allowed here"]), *faults]))
    return 1 if faults else 0


def _tried(name: str, root: Path, seed: int, kills: int, mounts: bool) -> tuple[str, Tally]:
    """The command's name in the table, and what happened to it."""
    if name == "serve":
        from serving import Serving

        serving = Serving(root / name, seed)
        serving.kill(kills)
        return "serve, 3 people saving", serving.tally
    if name == "live":
        from streaming import Streaming

        streaming = Streaming(root / name, seed)
        streaming.kill(kills)
        return "serve, 3 live streams", streaming.tally
    from arena import Arena
    from victims import all_victims

    victim = next(all_victims(root / name, name))
    arena = Arena(victim, root / name / "arena", seed)
    arena.kill(kills)
    arena.fill_the_disk(-(-kills // 3))
    arena.shrink_the_disk(-(-kills // 3) if mounts else 0)
    arena.start_two(-(-kills // 4))
    arena.turn_the_clock(1)
    return victim.name, arena.tally


def _recorded(record: Path | None, seed: int, each: int) -> dict[str, dict[str, object]]:
    """Command -> what an earlier call with the same seed and as many kills found."""
    lines = record.read_text().splitlines() if record is not None and record.exists() else []
    found = [line for line in map(json.loads, lines) if (line.pop("seed"), line.pop("each")) == (seed, each)]
    return {line.pop("name"): line for line in found}


if __name__ == "__main__":
    sys.exit(main())
