"""What a downloaded tree holds, what is missing of it, and how its counts compare with the published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

from keystep.data.problems import Problems
from keystep.errors import InputError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Missing:
    """A part of the tree that is not there, or that cannot be used.

    path: where it was looked for. source: where it officially comes from, in words. needed: whether nothing works
    without it. leaves_out: whether its video does not, so that it takes ``--on-error skip`` to go on.
    damage: what is wrong with a part that is there, a line that names the file.
    """

    path: Path
    source: str
    needed: bool = True
    leaves_out: bool = False
    damage: str = ""

    def __str__(self) -> str:
        return f"{self.damage or f'{self.path}: missing'}; it comes from {self.source}"


@dataclass(frozen=True)
class Ready:
    """A folder in the tree that keystep reads as it is, so that nothing has to be written.

    rate: its features a second, for ``--source-rate``. groups: the pattern that finds persons in its videos' names, for
    ``--groups``; None where a ``splits/groups.csv`` says whose they are, or nothing does.
    """

    folder: Path
    rate: Fraction
    groups: str | None = None


@dataclass(frozen=True)
class Survey:
    """What was found.

    counts: "videos", "frames", "segments", "classes" and the like, as found. published: the same, as the data set's
    authors state them; a name without a published number is left out. missing: what is not there.
    notes: what else a person should know, a line each. ready: what needs no preparation.
    """

    counts: Mapping[str, int]
    published: Mapping[str, int]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = field(default=())
    ready: Ready | None = None

    @property
    def lacking(self) -> tuple[Missing, ...]:
        """What is missing and needed."""
        return tuple(part for part in self.missing if part.needed)

    @property
    def leaving_out(self) -> tuple[Missing, ...]:
        """What is missing or damaged so that its videos have to be left out."""
        return tuple(part for part in self.missing if part.leaves_out and not part.needed)

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the counts that are not the published ones, or that could not be counted."""
        return tuple(name for name, number in self.published.items() if self.counts.get(name) != number)


class Looking(Problems):
    """Bad items of a survey: remembered, and not said to be left out, as nothing is done yet."""

    def __init__(self) -> None:
        super().__init__("skip")

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        """Run ``work``; None where it raises `InputError`."""
        try:
            return work()
        except InputError as error:
            self.skipped[name] = str(error)
            return None


class Preparer(Protocol):
    """One data set in its official layout, made with its options: ``__init__`` takes one frozen config, ``config``.

    name: as on the command line. title: for people. source: where it officially comes from.
    """

    name: str
    title: str
    source: str

    def survey(self, root: Path) -> Survey:
        """Look at a downloaded tree: names and headers, not every number.

        Raises:
            InputError: the root is no folder, or what lies there is damaged.
        """
        ...

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """Write a native feature folder with labels, classes and splits; finished videos are not done again.

        Each video goes through ``problems.attempt``, which also tells how far the work is.

        Raises:
            InputError: a needed part is missing, or something does not fit (unless ``problems`` skips it).
        """
        ...


def check_root(root: Path) -> None:
    """Refuse a root that is no folder."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give --root the folder that the data set was downloaded to")


def first_existing(root: Path, candidates: Sequence[str]) -> Path:
    """The first of the places below the root that exists; the first one where none does."""
    paths = [root / candidate for candidate in candidates]
    return next((path for path in paths if path.exists()), paths[0])


def require(survey: Survey) -> None:
    """Refuse to go on where something needed is missing."""
    if survey.lacking:
        raise InputError(str(survey.lacking[0]))


NAMED = 5
"""Parts of one kind that are listed one by one; of more, the number is said."""


def left_out(parts: Sequence[Missing], what: str) -> tuple[tuple[Missing, ...], tuple[str, ...]]:
    """The first few of what takes its video along, and a note that counts all of them. what: such as "files"."""
    few = tuple(replace(part, needed=False, leaves_out=True) for part in parts[:NAMED])
    return few, (f"{len(parts)} {what}, such as {parts[0].path.name}",) if len(parts) > NAMED else ()
