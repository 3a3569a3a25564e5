"""Does the tree still say what an older revision says? Both are run here and now, and every difference is named.

    make compare-before                    about 5 minutes on two cores
    make compare-before QUICK=1            about 2 minutes, without times and memory
    make compare-before BEFORE=<commit>    against another revision than `BASELINE`

The revision is unpacked beside the tree, and the steps of ``commands.yaml`` run once for each side: same Python, same
packages, one thread, only ``PYTHONPATH`` differs. What they leave (weights, latents, stream lines, result numbers,
report cells, ONNX outputs, weights of two processes, the authors' parity, a killed and resumed run) is compared fact by
fact, to the bit. A difference that is not in ``allowed.yaml`` makes it red. Frozen numbers would not do: they differ
from one processor to the next.

CPU seconds and peak memory are measured in turns (before, now, now, before, ...). A step is *slower* (or *larger*) if
it is so by more than 5 % both by the medians of all rounds and by the smallest values; if only one of the two says so,
more rounds are run, and if that does not settle it, the step is reported as undecided, which is not red.

``collect.py`` reads the facts, ``compare.py`` compares them, ``side.py`` is what a side does beyond its command line.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from collect import COLLECT
from compare import Allowed, Comparison, Difference, compare
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
BASELINE = "6d1e1b7"
"""The revision that the tree is compared with: that at the start of work that is to change no number. A commit, because
tags do not come with every clone."""
LIMIT = 1.05
"""A step may take so much more of time or memory."""
ROUNDS, MOST_ROUNDS = 3, 7
STEP_SECONDS = 1200
"""After so long a step is given up; on a busy machine everything takes many times as long."""
SHOWN = 12
"""Differences of a step that the terminal shows; the files have all."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
RUNNING: set[int] = set()
"""Process groups of the steps that are being done; they end with this process."""
Step = dict[str, Any]


class StepError(Exception):
    """A step could not be done; what depends on it cannot be either."""


@dataclass(frozen=True)
class Side:
    """One of the two revisions: its code, and where its steps write."""

    name: str
    code: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        threads = dict.fromkeys(THREADS, "1")
        plain = {"OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONHASHSEED": "0"}
        return {**os.environ, **threads, **plain, "PYTHONPATH": str(self.code / "src")}


def main() -> int:
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    console = Console(width=None if sys.stdout.isatty() else 140)
    out: Path = options.out.resolve()
    try:
        commands = yaml.safe_load((HERE / "commands.yaml").read_text(encoding="utf-8"))
        allowed = Allowed.read(yaml.safe_load(options.allowed.read_text(encoding="utf-8")))
        revision, code = unpacked(options.before, out)
    except (ValueError, StepError) as error:
        print(f"compare-before: {error}", file=sys.stderr)
        return 2
    sides = (Side("before", code, out / "before"), Side("now", TREE, out / "now"))
    for side in sides:
        shutil.rmtree(side.folder, ignore_errors=True)
        side.folder.mkdir(parents=True)
    console.print(f"before: {revision}   now: {TREE} ({_git('describe', '--always', '--dirty')})", soft_wrap=True)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        facts = list(pool.map(lambda side: run_steps(side, commands, options.only), sides))
    measured = [] if options.quick or options.only else measure(sides, commands, console)
    skipped = {"slower", "larger"} if not measured else set()
    result = compare(*facts, allowed, [found for entry in measured for found in entry.differences()])
    result.stale = [line for line in result.stale if not any(f"({kind}):" in line for kind in skipped)]
    if options.only:
        result.stale = []
    rows = list(table_rows(facts[0], facts[1], result, measured))
    show(console, rows, result)
    write(out, revision, rows, result, measured)
    console.print(f"{time.monotonic() - started:.0f} s   report: {out / 'compare.md'}", soft_wrap=True)
    return 1 if result.red else 0


def _stop(number: int, _frame: object) -> None:
    """End what was started, and this."""
    for group in list(RUNNING):
        os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


def unpacked(revision: str, out: Path) -> tuple[str, Path]:
    """(commit, folder with its code); the folder is kept for the next time."""
    revision = revision or BASELINE
    commit = _git("rev-parse", "--verify", "-q", f"{revision}^{{commit}}", check=False)
    if not commit:
        raise StepError(f"{revision}: no such revision in {TREE}; fetch the whole history, or give BEFORE=<commit>")
    folder = out / f"code-{commit[:12]}"
    if not folder.exists():
        part = out / f"code-{commit[:12]}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", TREE, "archive", commit, "src"], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", part], input=archive, check=True)
        part.rename(folder)
    return commit, folder


def _git(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", "-C", TREE, *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise StepError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def run_steps(side: Side, commands: dict[str, Any], only: list[str]) -> dict[str, Any]:
    """All steps in order; each gives its facts, and the claim that it could be done."""
    facts: dict[str, Any] = {}
    for name, step in commands["steps"].items():
        if only and name not in only:
            continue
        try:
            printed = run_step(side, name, step, commands["values"])
            found = COLLECT[step["facts"]](side.folder / name, printed)
            if not found:
                raise StepError("left nothing to compare")
            facts[f"{name}/claim: it works"] = True
        except Exception as error:  # whatever goes wrong on this side: the other steps are done all the same
            facts[f"{name}/claim: it works"] = f"{type(error).__name__}: {error}"[:300]
            continue
        for key, value in found.items():
            facts[f"{name}/{key}"] = value
        facts |= claims(name, step, found, facts)
    return facts


def claims(name: str, step: Step, found: dict[str, Any], facts: dict[str, Any]) -> dict[str, bool]:
    """What has to hold within one side."""
    if other := step.get("same_bits_as"):
        same = all(np.array_equal(value, facts.get(f"{other}/{key}")) for key, value in found.items())
        return {f"{name}/claim: the same bits as {other}": same}
    if near := step.get("near"):
        theirs = {key: facts.get(f"{near['step']}/{key}") for key in found}
        close = all(
            theirs[key] is not None and np.abs(value - theirs[key]).max() <= near["at_most"]
            for key, value in found.items()
        )
        return {f"{name}/claim: within {near['at_most']} of {near['step']}": close}
    return {}


def run_step(side: Side, name: str, step: Step, values: dict[str, str], out: Path | None = None) -> str:
    """Do it, and return what it printed."""
    out = out or side.folder / name
    command = step.get(side.name, step.get("run"))
    if pattern := step.get("killed_at"):
        for _attempt in range(3):
            if kill_at(side, words(side, command, values, out), out, pattern):
                break
            shutil.rmtree(out)
        else:
            raise StepError("was done before it could be killed; give it more steps")
        command = step["then"]
    return run(side, words(side, command, values, out), side.folder / f"{name}.log")[0]


def words(side: Side, command: str, values: dict[str, str], out: Path) -> list[str]:
    """The command as a list, for this side."""
    for key, value in values.items():
        command = command.replace(f"{{{key}}}", value)
    for key, path in (("data", side.folder / "data"), ("first", side.folder), ("out", out)):
        command = command.replace(f"{{{key}}}", str(path))
    kind, *rest = shlex.split(command)
    starts = {"keystep": ["-m", "keystep"], "side": [str(HERE / "side.py")]}
    if kind not in starts:
        raise StepError(f"{command!r} begins with none of {', '.join(starts)}")
    return [sys.executable, *starts[kind], *rest]


def run(side: Side, command: list[str], log: Path) -> tuple[str, float, float]:
    """(standard output, CPU seconds, MiB at most) of a command and what it started."""
    with log.open("w", encoding="utf-8") as errors, log.with_suffix(".out").open("w", encoding="utf-8") as output:
        errors.write(shlex.join(command) + "\n")
        errors.flush()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=side.environment, cwd=side.folder, start_new_session=True
        )
        RUNNING.add(process.pid)
        deadline = time.monotonic() + STEP_SECONDS
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        while not pid:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.01)
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    RUNNING.discard(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = log.with_suffix(".out").read_text(encoding="utf-8")
    if process.returncode:
        last = (log.read_text(encoding="utf-8").strip().splitlines() or [""])[-1]
        raise StepError(f"exit status {process.returncode}: {last}")
    return printed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def kill_at(side: Side, command: list[str], out: Path, pattern: str) -> bool:
    """Start it and kill it once a path of that pattern is there; False if it was done before."""
    log = side.folder / f"{out.name}.killed.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=side.environment, cwd=side.folder, start_new_session=True
        )
        RUNNING.add(process.pid)
        deadline = time.monotonic() + STEP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if any(out.glob(pattern)):
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        RUNNING.discard(process.pid)
        return killed


@dataclass
class Measured:
    """Times and memory of one step: a value a round for each side."""

    name: str
    seconds: tuple[list[float], list[float]]
    memory: tuple[list[float], list[float]]

    def parts(self) -> Iterator[tuple[str, str, str, tuple[list[float], list[float]]]]:
        yield "CPU seconds", "slower", "s", self.seconds
        yield "peak memory", "larger", "MiB", self.memory

    @property
    def undecided(self) -> bool:
        return any(verdict(values) is None for _, _, _, values in self.parts())

    def differences(self) -> Iterator[Difference]:
        for what, kind, unit, values in self.parts():
            if verdict(values):
                before, now = (f"{median(side):.2f} {unit}" for side in values)
                yield Difference(f"{what}/{self.name}", kind, before, now, ratios(values)[0])


def ratios(values: tuple[list[float], list[float]]) -> tuple[float, float]:
    """(by medians, by the smallest values): how much more now takes."""
    before, now = values
    return median(now) / median(before), min(now) / min(before)


def verdict(values: tuple[list[float], list[float]]) -> bool | None:
    """True: it takes more than `LIMIT`; False: it does not; None: the two ways of looking disagree."""
    more = {ratio > LIMIT for ratio in ratios(values)}
    return more.pop() if len(more) == 1 else None


def measure(sides: tuple[Side, Side], commands: dict[str, Any], console: Console) -> list[Measured]:
    """Rounds in turns, more of them where three do not tell."""
    entries = [Measured(name, ([], []), ([], [])) for name in commands["timed"]]
    for number in range(MOST_ROUNDS):
        open_ones = [entry for entry in entries if number < ROUNDS or entry.undecided]
        for entry in open_ones:
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                side, step = sides[index], commands["timed"][entry.name]
                out = side.folder / f"timed-{entry.name}"
                shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
                command = words(side, step.get(side.name, step.get("run")), commands["values"], out)
                try:
                    _, seconds, memory = run(side, command, side.folder / f"timed-{entry.name}.log")
                except StepError as error:
                    console.print(f"timed {entry.name}, {side.name}: {error}", style="red", markup=False)
                    seconds = memory = float("inf") if side.name == "now" else 1e-9
                entry.seconds[index].append(seconds)
                entry.memory[index].append(memory)
    return entries


Row = tuple[str, str, str, str, str]
"""What, before, now, verdict, style."""


def table_rows(
    before: dict[str, Any], now: dict[str, Any], result: Comparison, measured: list[Measured]
) -> Iterator[Row]:
    """A row a step, then a row a measured quantity."""
    for step in dict.fromkeys(name.partition("/")[0] for name in (*before, *now)):
        found = [entry for entry in result.differences if entry.what.partition("/")[0] == step]
        red = [entry for entry in found if entry.reason is None]
        if red:
            text, style = f"RED: {len(red)} differ", "red"
        elif found:
            text, style = f"{len(found)} differ as allowed", "yellow"
        else:
            text, style = f"the same ({result.compared.get(step, 0)})", "green"
        yield step, _digest(before, step), _digest(now, step), text, style
    for entry in measured:
        for what, kind, unit, values in entry.parts():
            name = f"{what}/{entry.name}"
            old, new = (f"{median(side):.2f} {unit} ({min(side):.2f}-{max(side):.2f})" for side in values)
            change = f"{100 * (ratios(values)[0] - 1):+.1f} %"
            found = [one for one in result.differences if one.what == name]
            if verdict(values) is None:
                yield name, old, new, f"{change}, undecided after {len(values[0])} rounds", "yellow"
            elif found:
                allowed = found[0].reason is not None
                text = f"{change}, {kind} as allowed" if allowed else f"RED: {change}, {kind}"
                yield name, old, new, text, "yellow" if allowed else "red"
            else:
                yield name, old, new, f"{change}, fine", "green"


def _digest(facts: dict[str, Any], step: str) -> str:
    """How many facts, and a hash of their bits."""
    mine = {name: value for name, value in facts.items() if name.partition("/")[0] == step and "claim:" not in name}
    digest = sha256()
    for name in sorted(mine):
        value = mine[name]
        digest.update(name.encode())
        digest.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
    return f"{len(mine)} facts, {digest.hexdigest()[:8]}" if mine else "nothing"


def show(console: Console, rows: list[Row], result: Comparison) -> None:
    """Table, differences, stale entries, one line at the end."""
    table = Table(title="before and now, on this machine")
    for name in ("what", "before", "now", "verdict"):
        table.add_column(name, overflow="fold")
    for *texts, style in rows:
        table.add_row(*map(escape, texts[:3]), f"[{style}]{escape(texts[3])}[/]")
    console.print(table)
    count: dict[str, int] = {}
    for found in sorted(result.differences, key=lambda entry: entry.reason is not None):
        step = found.what.partition("/")[0]
        count[step] = count.get(step, 0) + 1
        if count[step] <= SHOWN:
            console.print(_line(found), style="red" if found.reason is None else "yellow", soft_wrap=True, markup=False)
    for step, number in count.items():
        if number > SHOWN:
            console.print(f"{step}: {number - SHOWN} more in compare.md", style="dim")
    for line in result.stale:
        console.print(
            f"allowed, but does not occur (take it out): {line}", style="yellow", soft_wrap=True, markup=False
        )
    allowed = len(result.differences) - len(result.red)
    summary = (
        f"{sum(result.compared.values())} facts compared; {len(result.red)} unexpected differences, {allowed} allowed"
    )
    console.print(("RED: " if result.red else "green: ") + summary, style="bold red" if result.red else "bold green")


def _line(found: Difference) -> str:
    size = f", by {found.size:.3g}" if 0 < found.size < float("inf") else ""
    reason = f"; allowed: {found.reason}" if found.reason else ""
    return f"{found.what}: {found.kind}{size}: {found.before} -> {found.now}{reason}"


def write(out: Path, revision: str, rows: list[Row], result: Comparison, measured: list[Measured]) -> None:
    """compare.json and compare.md."""
    record = {
        "before": revision,
        "now": _git("describe", "--always", "--dirty"),
        "compared": result.compared,
        "differences": [asdict(found) for found in result.differences],
        "stale": result.stale,
        "measured": [asdict(entry) for entry in measured],
    }
    (out / "compare.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {revision[:12]} and {record['now']}", "", "| what | before | now | verdict |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(texts[:4])} |" for texts in rows]
    lines += ["", *(f"- {_line(found)}" for found in result.differences)]
    lines += ["", *(f"- stale: {line}" for line in result.stale)]
    (out / "compare.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("compare-before", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", default="", help=f"revision; by default {BASELINE}")
    parser.add_argument("--quick", action="store_true", help="no times and no memory")
    parser.add_argument("--out", type=Path, default=TREE / "runs" / "compare-before", help="folder for everything")
    parser.add_argument("--allowed", type=Path, default=HERE / "allowed.yaml")
    parser.add_argument("--only", nargs="*", default=[], metavar="STEP", help="these steps; for work on the list")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
