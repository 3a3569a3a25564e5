"""Commands that are killed, run out of disk, meet each other and see clocks jump, each in a child of its own.

Children are forked from a process that has everything imported, so that a death costs a fraction of a second.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from full_disk import full_from

from keystep.cli import main

Content = dict[str, object]
NEVER = 1 << 62
PAGE = 4096
"""Bytes of which small disks are made."""


@dataclass(frozen=True)
class Victim:
    """A command.

    begin, go_on: its words, for an output. content: what must be the same however often it was ended.
    """

    name: str
    begin: Callable[[Path], list[str]]
    content: Callable[[Path], Content]
    resume: Callable[[Path], list[str]] | None = None

    def words(self, out: Path) -> list[str]:
        """What is typed, be there something of it or not."""
        return (self.resume or self.begin)(out)


@dataclass
class Tally:
    """What happened to one command. faults: what should never be."""

    kills: int = 0
    in_the_work: int = 0
    full: int = 0
    small: int = 0
    pairs: int = 0
    jumps: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> tuple[int, ...]:
        """A row of the table."""
        return self.kills, self.in_the_work, self.full, self.small, self.pairs, self.jumps, len(self.faults)


class Arena:
    """Where one command is tried; ``folder`` gets an output for each round."""

    def __init__(self, victim: Victim, folder: Path, seed: int) -> None:
        self.victim, self.folder, self.random = victim, folder, random.Random(seed)
        self.tally, self.rounds = Tally(), 0
        folder.mkdir(parents=True)
        whole, started = self._next(), time.monotonic()
        self._finish(whole, "the first run", self._full_from(NEVER, whole))
        self.seconds, self.whole = time.monotonic() - started, victim.content(whole)
        self.writes = self._log(whole).with_suffix(".count").stat().st_size
        self.pages = sum(1 + path.stat().st_size // PAGE for path in whole.parent.rglob("*"))

    def kill(self, times: int) -> None:
        """Kill it so often, at random moments, some outputs more than once, and see each of them through."""
        while times > 0:
            out = self._next()
            for _ in range(min(times, self.random.choice((1, 1, 2, 3)))):
                child = start(self.victim.words(out), self._log(out))
                time.sleep(self.random.uniform(0, self.seconds))
                os.killpg(child, signal.SIGKILL)
                self.tally.in_the_work += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0
                self.tally.kills += 1
                times -= 1
            self._see_through(out, "killed")

    def fill_the_disk(self, times: int) -> None:
        """Let the disk be full from some write on."""
        for _ in range(times):
            out, number = self._next(), self.random.randint(1, self.writes)
            what = f"full from write {number} of {self.writes} on"
            self.tally.full += self._runs_out(out, what, self._full_from(number, out))
            self._see_through(out, what)

    def shrink_the_disk(self, times: int) -> None:
        """Let the output be on a file system of its own that is too small for it, and then large enough."""
        for _ in range(times):
            out, pages = self._next(), self.random.randint(1, self.pages)
            place, what = str(out.parent), f"a disk of {pages} of {self.pages} pages"
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "none", place], check=True)
            try:
                self.tally.small += self._runs_out(out, what)
                subprocess.run(["mount", "-o", f"remount,size={2 * self.pages * PAGE + (64 << 20)}", place], check=True)
                self._see_through(out, what)
            finally:
                subprocess.run(["umount", place], check=True)

    def _full_from(self, number: int, out: Path) -> Callable[[], object]:
        return lambda: full_from(number, out.parent, self._log(out).with_suffix(".count"))

    def _runs_out(self, out: Path, what: str, before: Callable[[], object] | None = None) -> bool:
        """Whether the command ended for want of room; it may also have needed less."""
        child = start(self.victim.words(out), self._log(out), before)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = self._log(out).read_text()
        if status not in (0, 2) or (status == 2 and said.count("keystep: error:") != 1):
            self.tally.faults.append(f"{what}: status {status}: {said[-300:]}")
        return status == 2

    def start_two(self, times: int) -> None:
        """Two at once: one is refused, or comes when the other is through."""
        for _ in range(times):
            out = self._next()
            logs = [self._log(out).with_suffix(f".{number}") for number in (1, 2)]
            children = [start(self.victim.words(out), log) for log in logs]
            statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            said = [log.read_text() for log in logs]
            for status, text in zip(statuses, said, strict=True):
                if status and not any(words in text for words in ("is writing there", "not empty")):
                    self.tally.faults.append(f"two at once: {text[-300:]}")
            if all(statuses):
                self.tally.faults.append("two at once: both were refused")
            self.tally.pairs += 1
            self._compare(out, "two at once")

    def turn_the_clock(self, times: int) -> None:
        """Let the time of day jump by hours, both ways."""
        for _ in range(times):
            out, number = self._next(), self.random.random()
            self._finish(out, "clocks that jump", lambda number=number: jump(number))  # type: ignore[misc]
            self.tally.jumps += 1
            self._compare(out, "clocks that jump")

    def _next(self) -> Path:
        self.rounds += 1
        out = self.folder / f"{self.rounds:03d}" / "out"
        out.parent.mkdir()
        return out

    def _log(self, out: Path) -> Path:
        return self.folder / f"{out.parent.name}.log"

    def _see_through(self, out: Path, what: str) -> None:
        self._finish(out, what)
        self._compare(out, what)

    def _finish(self, out: Path, what: str, before: Callable[[], object] | None = None) -> None:
        child = start(self.victim.words(out), self._log(out), before)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            said = self._log(out).read_text()
            self.tally.faults.append(f"{what}: it does not go on: status {status}: {said[-500:]}")
        if "Traceback" in self._log(out).read_text():
            self.tally.faults.append(f"{what}: a traceback, {self._log(out)}")

    def _compare(self, out: Path, what: str) -> None:
        found = self.victim.content(out)
        other = [name for name in {**found, **self.whole} if found.get(name) != self.whole.get(name)]
        if other:
            self.tally.faults.append(f"{what}: other content than an uninterrupted run: {other[:3]}, {out}")
        left = [path for path in out.parent.rglob(".*") if path.suffix in (".part", ".old", ".lock")]
        if left:
            self.tally.faults.append(f"{what}: left behind: {left[:3]}")


def start(words: list[str], log: Path, before: Callable[[], object] | None = None) -> int:
    """Run a command in a process group of its own; its id. It is forked, which needs a process without threads."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if before is not None:
            before()
        sys.argv = ["keystep", *words]
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True)
    return mounted.returncode == 0 and subprocess.run(["umount", folder], check=True).returncode == 0


def jump(seed: float) -> None:
    """In this process, let the time of day be another one at each look."""
    drawn, now = random.Random(seed), time.time
    time.time = lambda: now() + drawn.uniform(-86_400, 86_400)
    time.time_ns = lambda: int(time.time() * 1e9)
