"""A downloaded data set, checked against what was published and written as a feature folder."""

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
    """A feature folder of a data set.

    folder: where it lies: ``out``, or the downloaded folder itself where keystep reads that as it is. source_rate: its
    features a second, and groups: the pattern that finds persons in names, where the folder does not say so itself.
    videos, splits: names. skipped: videos left out, with the reason. warnings: what deserves a look, such as labels
    that were cut. survey: counts beside the published ones.
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
        """One a video that is in the folder or was left out: its name, its features, why it was left out."""
        return video_records(self.folder, self.videos, self.skipped)

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r}, {len(self.videos)} videos, splits {', '.join(self.splits) or 'none'})"


def examine(name: str, root: Path | str, settings: Mapping[str, Any] | None = None) -> Survey:
    """Compare a downloaded data set with what was published; names, headers and labels are read, nothing is written.

    Args:
        name: such as ``gtea`` (`keystep.datasets.DATA_SETS` lists all), or ``package.module:Name``.
        root: the folder that it was downloaded to.
        settings: options of the data set, such as ``{"every": 2}``.

    Raises:
        InputError: unknown data set or option, no such folder, or a damaged part that nothing works without.
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
    """Make a feature folder of a downloaded data set; finished videos are not done again.

    Args:
        name: such as ``gtea`` (`keystep.datasets.DATA_SETS` lists all), or ``package.module:Name``.
        root: the folder that it was downloaded to.
        out: the feature folder to write. None: nothing is written, which works where keystep reads the download as
            it is.
        settings: options of the data set, such as ``{"every": 2}``.
        on_error: ``skip`` leaves out videos that are missing or damaged; they are listed in the result.
        survey: what `examine` has just returned for the same arguments, to save looking twice.

    Raises:
        InputError: unknown data set or option; something needed is missing or does not fit; a bad video, unless it is
            to be skipped; no ``out`` for a download that has to be converted.
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
            counted = _Counted(problems.on_error, task)
            with owning(folder):
                data_set.write(root, folder, counted)
        skipped, warnings = counted.skipped, tuple(note for note in counted.notes if note not in survey.notes)
    names, splits = _videos(folder), split_names(folder)
    return Prepared(folder, source_rate, groups, names, tuple(splits), skipped, tuple(warnings), survey)


class _Counted(Problems):
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
        raise InputError(f"{root}: {name} is not all there: {survey.lacking[0]}{more}")
    if survey.leaving_out and problems.on_error == "raise":
        raise InputError(
            f"{root}: {name} is not all there: {survey.leaving_out[0]}; get it, or give --on-error skip, which leaves "
            "such videos out"
        )


def _videos(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (folder / "features").glob("*.npy")))
