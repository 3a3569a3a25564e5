"""Survey of a download: content, missing parts, and published counts; and the protocol of data sets."""

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
    """A missing or unusable part of a download.

    Attributes:
        path: its expected path.
        source: where it is published, as text.
        needed: whether nothing can be converted without it.
        leaves_out: whether its video cannot be converted, which requires ``--on-error skip``.
        damage: the problem with an existing part, one line that names the file; empty if it is missing.
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
    """A folder of a download that keystep reads directly, without conversion.

    Attributes:
        folder: the feature folder.
        rate: slots per second, for ``--source-rate``.
        groups: pattern that matches persons in video names, for ``--groups``. None: ``splits/groups.csv`` states them,
            or they are unknown.
    """

    folder: Path
    rate: Fraction
    groups: str | None = None


@dataclass(frozen=True)
class Survey:
    """Content of a download.

    Attributes:
        counts: number of "videos", "frames", "segments", "classes" and so on, as found.
        published: the published numbers among them.
        missing: missing or unusable parts.
        notes: one line each.
        ready: a folder that needs no conversion. None: there is none.
    """

    counts: Mapping[str, int]
    published: Mapping[str, int]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = field(default=())
    ready: Ready | None = None

    @property
    def lacking(self) -> tuple[Missing, ...]:
        """Missing parts that are necessary."""
        return tuple(part for part in self.missing if part.needed)

    @property
    def leaving_out(self) -> tuple[Missing, ...]:
        """Missing or damaged parts whose videos have to be left out."""
        return tuple(part for part in self.missing if part.leaves_out and not part.needed)

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the counts that are missing or differ from the published ones."""
        return tuple(name for name, number in self.published.items() if self.counts.get(name) != number)


class SurveyProblems(Problems):
    """Collects the bad items of a survey, without reporting them as skipped."""

    def __init__(self) -> None:
        super().__init__("skip")

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        """Run ``work`` and return its result. None: it raised `InputError`, which is recorded under ``name``."""
        try:
            return work()
        except InputError as error:
            self.skipped[name] = str(error)
            return None


class Preparer(Protocol):
    """Protocol of a data set. Its ``__init__`` takes its options, ``config``, a class derived from `Config`.

    Attributes:
        name: on the command line.
        title: for display.
        source: where it is published.
    """

    name: str
    title: str
    source: str

    def survey(self, root: Path) -> Survey:
        """Survey a download, reading names and headers, but not all numbers.

        Args:
            root: the folder of the download.

        Raises:
            InputError: the root is not a folder, or a necessary part is damaged.
        """
        ...

    def write(self, root: Path, out: Path, problems: Problems) -> None:
        """Write a native feature folder with labels, classes and splits; finished videos are not written again.

        Args:
            root: the folder of the download.
            out: the feature folder.
            problems: each video is written through its ``attempt``, which skips bad videos and reports progress.

        Raises:
            InputError: a necessary part is missing, or a video is invalid (unless skipped).
        """
        ...


def check_root(root: Path) -> None:
    """Raise InputError if the root is not a folder."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give --root the folder that the data set was downloaded to")


def first_existing(root: Path, candidates: Sequence[str]) -> Path:
    """The first of the paths below the root that exists, or the first one if none does."""
    paths = [root / candidate for candidate in candidates]
    return next((path for path in paths if path.exists()), paths[0])


def require(survey: Survey) -> None:
    """Raise InputError if a necessary part is missing."""
    if survey.lacking:
        raise InputError(str(survey.lacking[0]))


NAMED = 5
"""Maximum number of parts of one kind that are listed."""


def summarise_missing(parts: Sequence[Missing], what: str) -> tuple[tuple[Missing, ...], tuple[str, ...]]:
    """Limit a list of parts whose videos are left out.

    Args:
        parts: missing or damaged parts.
        what: of the note, such as ``files are missing``.

    Returns:
        The first `NAMED` parts, and a note with the total number if there are more.
    """
    few = tuple(replace(part, needed=False, leaves_out=True) for part in parts[:NAMED])
    return few, (f"{len(parts)} {what}, such as {parts[0].path.name}",) if len(parts) > NAMED else ()
