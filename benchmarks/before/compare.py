"""Two sets of facts, and what is allowed to differ between them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf
from typing import Any

import numpy as np

Facts = Mapping[str, Any]
"""``step/name`` -> array, number, text or bool; a name with ``claim:`` has to be True now, whatever it was before."""
KINDS = ("changed", "gone", "new", "slower", "larger")
CLAIM = "claim:"
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """One fact that is not what it was.

    size: largest absolute difference of numbers, ratio of times; infinite where shapes, types or words differ.
    """

    what: str
    kind: str
    before: str
    now: str
    size: float
    reason: str | None = None
    """Why it is allowed; None: it is not."""


@dataclass(frozen=True)
class Allowance:
    """Differences that are meant. what: pattern of names, as in a shell; at_most: the largest difference (ratio)."""

    what: str
    reason: str
    kind: str = "changed"
    at_most: float = inf

    def covers(self, found: Difference) -> bool:
        return fnmatchcase(found.what, self.what) and found.kind == self.kind and found.size <= self.at_most


@dataclass(frozen=True)
class Rename:
    """A fact that has another name now: a regular expression, and what takes its place."""

    old: str
    new: str
    reason: str


@dataclass(frozen=True)
class Allowed:
    """The content of ``allowed.yaml``."""

    differences: Sequence[Allowance] = ()
    renames: Sequence[Rename] = ()
    never_compared: Sequence[Allowance] = ()
    """Of another kind each time, such as the speed of a machine."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Allowed:
        """From YAML; an unknown key, an unknown kind or a missing reason is a ValueError."""
        unknown = set(record) - {"differences", "renames", "never_compared"}
        if unknown:
            raise ValueError(f"allowed.yaml: unknown key {min(unknown)!r}")
        parts: dict[str, list[Any]] = {}
        for key, kind in (("differences", Allowance), ("renames", Rename), ("never_compared", Allowance)):
            try:
                parts[key] = [kind(**entry) for entry in record.get(key) or ()]
            except TypeError as error:
                raise ValueError(f"allowed.yaml: {key}: {error}") from None
        for entry in parts["differences"]:
            if entry.kind not in KINDS:
                raise ValueError(f"allowed.yaml: {entry.what}: kind {entry.kind!r} is none of {', '.join(KINDS)}")
        for entry in (*parts["differences"], *parts["renames"], *parts["never_compared"]):
            if not str(entry.reason).strip():
                raise ValueError(f"allowed.yaml: {entry}: no reason")
        return cls(**parts)


@dataclass
class Comparison:
    """What came out."""

    differences: list[Difference] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    """Step -> facts that both sides have."""
    stale: list[str] = field(default_factory=list)
    """Entries of the list that met nothing."""

    @property
    def red(self) -> list[Difference]:
        return [found for found in self.differences if found.reason is None]


def compare(before: Facts, now: Facts, allowed: Allowed, more: Sequence[Difference] = ()) -> Comparison:
    """Every fact of either side. more: differences that were measured elsewhere, such as times, to be allowed alike."""
    used: set[int] = set()
    before = {_renamed(name, allowed.renames, used): value for name, value in before.items()}
    result = Comparison()
    for name in dict.fromkeys((*before, *now)):
        if any(fnmatchcase(name, entry.what) for entry in allowed.never_compared):
            continue
        if name in before and name in now:
            step = name.partition("/")[0]
            result.compared[step] = result.compared.get(step, 0) + 1
        found = _difference(name, before, now)
        if found is not None:
            result.differences.append(_judged(found, allowed, used))
    result.differences += [_judged(found, allowed, used) for found in more]
    result.stale = [
        f"{entry.what} ({entry.kind}): {entry.reason}" for entry in allowed.differences if id(entry) not in used
    ]
    result.stale += [
        f"{entry.old} -> {entry.new}: {entry.reason}" for entry in allowed.renames if id(entry) not in used
    ]
    return result


def distance(before: Any, now: Any) -> float:
    """0 where both are the same to the bit; else the largest difference, infinite where that means nothing."""
    if isinstance(before, str) and isinstance(now, str):
        return _words_apart(before, now)
    old, new = np.asarray(before), np.asarray(now)
    if old.dtype != new.dtype or old.shape != new.shape:
        return inf
    if old.tobytes() == new.tobytes():
        return 0.0
    if old.dtype.kind not in "fiu":
        return inf
    alike = (old == new) | (np.isnan(old) & np.isnan(new)) if old.dtype.kind == "f" else old == new
    apart = np.where(alike, 0.0, np.abs(old.astype(np.float64) - new.astype(np.float64)))
    largest = float(apart.max(initial=0.0))
    return inf if np.isnan(largest) else max(largest, 5e-324)  # 0 and -0 are not the same bits


def shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.ndim == 0:
        return str(array[()])
    return f"{array.dtype} {'x'.join(map(str, array.shape))}, mean {array.mean():.6g}"


def _difference(name: str, before: Facts, now: Facts) -> Difference | None:
    if CLAIM in name:
        value = now.get(name, False)
        if isinstance(value, str) or not bool(value):
            return Difference(name, "changed", shown(before.get(name, "-")), shown(now.get(name, "gone")), inf)
        return None
    if name not in now:
        return Difference(name, "gone", shown(before[name]), "-", 0.0)
    if name not in before:
        return Difference(name, "new", "-", shown(now[name]), 0.0)
    size = distance(before[name], now[name])
    return Difference(name, "changed", shown(before[name]), shown(now[name]), size) if size else None


def _judged(found: Difference, allowed: Allowed, used: set[int]) -> Difference:
    """With the reason of the first entry that covers it."""
    for entry in allowed.differences:
        if entry.covers(found):
            used.add(id(entry))
            return Difference(found.what, found.kind, found.before, found.now, found.size, entry.reason)
    return found


def _renamed(name: str, renames: Sequence[Rename], used: set[int]) -> str:
    for entry in renames:
        changed = re.sub(entry.old, entry.new, name)
        if changed != name:
            used.add(id(entry))
            name = changed
    return name


def _words_apart(before: str, now: str) -> float:
    """Of texts that differ in their numbers only, by how much."""
    if before == now:
        return 0.0
    if _NUMBER.sub("#", before) != _NUMBER.sub("#", now):
        return inf
    numbers = [
        [float(text.replace(",", "").replace("−", "-")) for text in _NUMBER.findall(side)] for side in (before, now)
    ]
    return max((abs(old - new) for old, new in zip(*numbers, strict=True)), default=0.0) or 5e-324
