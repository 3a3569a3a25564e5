"""Reads damaged files and says what became of each: read, refused in one line, a traceback, a hang, a silent change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import re
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keystep.errors import InputError, plain

CHUNK = 200
"""Files of a kind that are read by one process."""
SECONDS = 5
"""What takes more of the processor's time is a hang, or six times as long by the clock."""
Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    path: where the file lies in its folder. read: reads it, and uses what was read as far as any command does.
    mutate: damages its bytes. shown: what was read as bytes, where a checksum has to tell every change; None: the
    format has none, so that another number is another valid file.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    mutate: Mutate
    shown: Callable[[Any], bytes] | None = None


@dataclass
class Finding:
    """A damaged file that was not handled."""

    kind: str
    what: str
    data: bytes

    @property
    def name(self) -> str:
        """Of its corpus file."""
        return f"{corpus_name(self.kind)}-{hashlib.sha256(self.data).hexdigest()[:12]}"


def corpus_name(kind: str) -> str:
    """A kind as the beginning of a file's name."""
    return re.sub(r"\W+", "_", kind).strip("_")


@dataclass
class Tally:
    """Outcomes of one kind. slowest: seconds of the slowest file."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def count(self) -> int:
        """Files that were tried."""
        return self.outcomes.total()

    def add(self, other: Tally) -> None:
        """Count another one's files, too."""
        self.outcomes += other.outcomes
        self.findings += other.findings
        self.slowest = max(self.slowest, other.slowest)


class Hang(BaseException):
    """A file took too long."""


def fuzz(kind: Kind, count: int, seed: int, budget: float | None = None, first: int = 0) -> Tally:
    """Damage a file so many times (or until ``budget`` seconds of processor time are spent); put it back at the end.

    first: number of the first damaged file; each has its own.
    """
    sound, tally = kind.path.read_bytes(), Tally()
    found = kind.read()  # has to work
    expected, began = None if kind.shown is None else kind.shown(found), time.process_time()
    try:
        for number in range(first, first + count):
            if budget is not None and time.process_time() - began > budget:
                break
            data = _damaged(kind, sound, seed, number)
            try_file(kind, data, tally, expected)
    finally:
        kind.path.write_bytes(sound)
    return tally


def fuzz_apart(kind: Kind, count: int, seed: int) -> Tally:
    """As `fuzz`, by other processes: one that dies costs a single file, and is a finding."""
    sound, total = kind.path.read_bytes(), Tally()
    for first in range(0, count, CHUNK):
        chunk = range(first, min(first + CHUNK, count))
        part = _in_child(kind, len(chunk), seed, first)
        if part is not None:
            total.add(part)
            continue
        for number in chunk:
            kind.path.write_bytes(sound)
            total.add(_in_child(kind, 1, seed, number) or _death(kind, _damaged(kind, sound, seed, number)))
        kind.path.write_bytes(sound)
    return total


def _damaged(kind: Kind, sound: bytes, seed: int, number: int) -> bytes:
    return kind.mutate(sound, random.Random(f"{kind.name} {seed} {number}"))


def _death(kind: Kind, data: bytes) -> Tally:
    return Tally(Counter(["death"]), [Finding(kind.name, "death: the process that read it died", data)])


def _in_child(kind: Kind, count: int, seed: int, first: int) -> Tally | None:
    """What `fuzz` gives, in a forked process; None if that died."""
    theirs, ours = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), os.fdopen(ours, "wb") as pipe:
            pickle.dump(fuzz(kind, count, seed, first=first), pipe)
        os._exit(0)
    os.close(ours)
    with os.fdopen(theirs, "rb") as pipe:
        said = pipe.read()
    died = os.waitpid(child, 0)[1] != 0
    return None if died or not said else pickle.loads(said)


def replay(kind: Kind, data: bytes) -> Finding | None:
    """Read one damaged file; gives what was wrong."""
    sound, tally = kind.path.read_bytes(), Tally()
    expected = None if kind.shown is None else kind.shown(kind.read())
    try:
        try_file(kind, data, tally, expected)
    finally:
        kind.path.write_bytes(sound)
    return tally.findings[0] if tally.findings else None


def try_file(kind: Kind, data: bytes, tally: Tally, expected: bytes | None) -> None:
    """Read a file and count what became of it. expected: what `Kind.shown` gives of the sound one."""
    kind.path.write_bytes(data)
    began = time.perf_counter()
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # numpy's, which a user would see
            found = kind.read()
        changed = kind.shown is not None and kind.shown(found) != expected
        outcome, what = ("silent change", "") if changed else ("read", "")
    except InputError as error:
        text = str(error)
        clean = "\n" not in text and plain(text) == text
        outcome, what = ("refused", "") if clean else ("bad message", repr(text))
    except Hang:
        outcome, what = "hang", ""
    except BaseException:
        outcome, what = "traceback", traceback.format_exc(limit=-6)
    tally.slowest = max(tally.slowest, time.perf_counter() - began)
    tally.outcomes[outcome] += 1
    if outcome not in ("read", "refused"):
        tally.findings.append(Finding(kind.name, f"{outcome}: {what}", data))


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 6 * SECONDS))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
