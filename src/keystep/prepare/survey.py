"""What a downloaded tree holds, what is missing of it, and how its counts compare with the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from keystep.data.problems import Problems


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
class Survey:
    """What was found.

    counts: "videos", "frames", "segments", "classes" and the like, as found. published: the same, as the data set's
    authors state them; a name without a published number is left out. missing: what is not there.
    notes: what else a person should know, a line each.
    """

    counts: Mapping[str, int]
    published: Mapping[str, int]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = field(default=())


class Preparer(Protocol):
    """One data set in its official layout.

    name: as on the command line. title: for people. source: where it officially comes from. frames_per_second: of its
    videos, or of its features where only those are published.
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

        Raises:
            InputError: a needed part is missing, or something does not fit (unless ``problems`` skips it).
        """
        ...
