"""What a downloaded tree holds, what is missing of it, and how its counts compare with the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from keystep.data.problems import Problems
from keystep.errors import InputError


@dataclass(frozen=True)
class Missing:
    """A part of the tree that is not there.

    path: where it was looked for. source: where it officially comes from, in words. needed: whether nothing works
    without it.
    """

    path: Path
    source: str
    needed: bool = True


@dataclass(frozen=True)
class Ready:
    """A folder in the tree that keystep reads as it is, so that nothing has to be written.

    rate: its features a second, for ``--source-rate``.
    """

    folder: Path
    rate: Fraction


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
    def differing(self) -> tuple[str, ...]:
        """Names of the counts that are not the published ones."""
        return tuple(name for name, number in self.published.items() if self.counts.get(name, number) != number)


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
        part = survey.lacking[0]
        raise InputError(f"{part.path}: missing; it comes from {part.source}")
