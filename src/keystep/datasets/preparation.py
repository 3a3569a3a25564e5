"""Compare a downloaded data set with the published numbers, and convert it to a feature folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from keystep.data.annotation import split_names
from keystep.data.layout import video_records
from keystep.data.problems import Problems
from keystep.datasets.registry import preparer
from keystep.datasets.survey import Survey
from keystep.errors import InputError
from keystep.locking import owning
from keystep.plugins import allow, specs_in
from keystep.progress import SILENT, Progress, Task
from keystep.types import Tabular

Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared(Tabular):
    """A prepared data set.

    Attributes:
        folder: the feature folder: ``out``, or the download itself if keystep reads it directly.
        source_rate: slots per second, if the folder does not state it.
        groups: pattern that matches persons in video names, if the folder does not state them.
        videos, splits: names.
        skipped: video that was left out -> reason.
        warnings: one line each, such as labels that were cut.
        survey: counts and published counts.
    """

    folder: Path
    source_rate: Fraction | None
    groups: str | None
    videos: tuple[str, ...]
    splits: tuple[str, ...]
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]
    survey: Survey

    def to_records(self) -> list[dict[str, Any]]:
        """One dict per video, also of those left out: ``video``, ``features``, and the reason in ``left_out``."""
        return video_records(self.folder, self.videos, self.skipped)

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r}, {len(self.videos)} videos, splits {', '.join(self.splits) or 'none'})"


def examine(name: str, root: Path | str, settings: Mapping[str, Any] | None = None) -> Survey:
    """Compare a downloaded data set with the published numbers. Reads names, headers and labels, and writes nothing.

    Args:
        name: such as ``gtea`` (`keystep.datasets.DATA_SETS` lists all), or ``package.module:Name``.
        root: the folder of the download.
        settings: options of the data set, such as ``{"every": 2}``.

    Raises:
        InputError: unknown data set or option, no such folder, or a damaged necessary part.
    """
    allow(*specs_in(name))
    return preparer(name, settings or {}).survey(Path(root))


def prepare(
    name: str,
    root: Path | str,
    out: Path | str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    survey: Survey | None = None,
    progress: Progress = SILENT,
) -> Prepared:
    """Convert a downloaded data set to a feature folder. The same call resumes an interrupted conversion.

    Args:
        name: such as ``gtea`` (`keystep.datasets.DATA_SETS` lists all), or ``package.module:Name``.
        root: the folder of the download.
        out: the feature folder to write. None: nothing is written, for downloads that keystep reads directly.
        settings: options of the data set, such as ``{"every": 2}``.
        on_error: ``skip`` leaves out missing or damaged videos, which the result lists.
        survey: result of `examine` for the same arguments, to avoid computing it again.
        progress: reports the videos.

    Raises:
        InputError: unknown data set or option; a necessary part is missing or invalid; a bad video, unless skipped; or
            no ``out`` for a download that has to be converted.
    """
    problems = Problems(on_error)
    allow(*specs_in(name))
    data_set, root = preparer(name, settings or {}), Path(root)
    survey = survey or data_set.survey(root)
    _check_complete(name, root, survey, problems)
    if out is None:
        if survey.ready is None:
            raise InputError(f"{root}: {name} has to be converted; give the folder to write, out=... (--out DIR)")
        folder, source_rate, groups = survey.ready.folder, survey.ready.rate, survey.ready.groups
        skipped: Mapping[str, str] = {}
        warnings = survey.notes
    else:
        folder, source_rate, groups = Path(out), None, None
        here = _videos(folder)
        videos = survey.counts.get("videos")
        with progress.task("preparing", None if videos is None else videos - len(here), "videos") as task:
            counted = _CountingProblems(problems.on_error, task)
            with owning(folder):
                data_set.write(root, folder, counted)
        skipped, warnings = counted.skipped, tuple(note for note in counted.notes if note not in survey.notes)
    names, splits = _videos(folder), split_names(folder)
    return Prepared(folder, source_rate, groups, names, tuple(splits), skipped, tuple(warnings), survey)


class _CountingProblems(Problems):
    """Reports each video that was tried."""

    def __init__(self, on_error: str, task: Task) -> None:
        super().__init__(on_error)
        self._task = task

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        result = super().attempt(name, work)
        self._task.advance(note=name)
        return result


def _check_complete(name: str, root: Path, survey: Survey, problems: Problems) -> None:
    if survey.lacking:
        others = len(survey.lacking) - 1
        more = f" (and {others} other parts)" if others else ""
        raise InputError(f"{root}: {name} is incomplete: {survey.lacking[0]}{more}")
    if survey.leaving_out and problems.on_error == "raise":
        raise InputError(
            f"{root}: {name} is incomplete: {survey.leaving_out[0]}; get it, or give --on-error skip, which leaves out "
            "such videos"
        )


def _videos(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (folder / "features").glob("*.npy")))
