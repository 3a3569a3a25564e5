"""`make_splits`: write folds for cross-validation over the videos of a feature folder."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile, copytree

from keystep.data.annotation import IGNORED, sort_by_hash
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import GROUPS, Grouping, group_lines
from keystep.data.tasks import find_tasks
from keystep.errors import InputError
from keystep.files import replacing, write_lines
from keystep.locking import owning
from keystep.types import OnError

MOST_FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """The splits that `make_splits` wrote.

    Attributes:
        root: the feature folder.
        test: split name -> its test videos; all others of ``videos`` train.
        videos: the videos in the splits.
        groups: number of groups (persons or sites). None: unknown.
        tasks: number of tasks.
        left_out: name of each video that is in no split -> reason.
    """

    root: Path
    test: Mapping[str, tuple[str, ...]]
    videos: tuple[str, ...]
    groups: int | None
    tasks: int
    left_out: Mapping[str, str] = field(default_factory=dict)


def over_all_folds(data: Path) -> str:
    """What trains one model for each fold and seed of a folder, judges them, and pools their test videos."""
    return f"{shlex.join(['python', 'benchmarks/quality', str(data)])} in keystep's repository (docs/quality.md)"


def make_splits(
    data: Path | str,
    *,
    folds: int | None = None,
    seed: int = 0,
    groups: Grouping | None = None,
    task_pattern: str | None = None,
    on_error: OnError | str = "raise",
    overwrite: bool = False,
) -> Folds:
    """Write ``splits/train.splitK.bundle`` and ``splits/test.splitK.bundle`` so that every video is tested once.

    All videos of a group are tested in the same fold. Folds have about equal size and are stratified by task.
    Validation bundles are not written: whole groups of training videos are held out when a split is read. If any video
    has labels, those without are left out. Given groups are written to ``splits/groups.csv``.

    Args:
        data: the feature folder.
        folds: number of folds. None: 5, or the number of groups or videos if smaller.
        seed: of the assignment to folds.
        groups: video -> person or site, or a pattern that matches it in the names. None: as in ``splits/groups.csv``.
        task_pattern: as for `keystep.data.tasks.find_tasks`.
        on_error: ``skip`` leaves out unreadable videos.
        overwrite: replace all splits of the folder, and its groups by the given ones.

    Returns:
        The folds.

    Raises:
        InputError: splits or groups exist already, there are fewer videos or groups than folds, the folder, the groups
            or the pattern are invalid, or another process writes to the folder.
    """
    with owning(data):
        return _make_splits(Path(data), folds, seed, groups, task_pattern, on_error, overwrite=overwrite)


def _make_splits(
    data: Path,
    folds: int | None,
    seed: int,
    groups: Grouping | None,
    task_pattern: str | None,
    on_error: OnError | str,
    *,
    overwrite: bool,
) -> Folds:
    folder = _open(data, groups, on_error)
    replaced = _replaced_files(folder, groups)
    if replaced and not overwrite:
        raise InputError(f"{replaced[0]}: exists already; give --overwrite to replace all splits, or use them")
    left_out = {**folder.problems.skipped, **_find_unlabelled(folder)}
    videos = tuple(name for name in folder.videos if name not in left_out)
    tasks = find_tasks(folder, videos, task_pattern)
    known = None if folder.groups is None else {name: folder.groups[name] for name in videos}
    count = _fold_count(folder, videos, known, folds)
    dealt = _deal(videos, known, tasks, count, seed)
    test = {str(fold + 1): tuple(name for name in videos if dealt[name] == fold) for fold in range(count)}
    largest = max(map(len, test.values()))
    if len(videos) - largest < 2:
        raise InputError(
            f"{folder.root}: one of {count} folds tests {largest} of {len(videos)} videos; at least 2 have to train"
        )
    _write(folder, test, videos, replaced)
    kinds = None if known is None else len(set(known.values()))
    return Folds(folder.root, test, videos, kinds, len(set(tasks.values())), left_out)


def _open(root: Path, groups: Grouping | None, on_error: str) -> FeatureFolder:
    """Open the folder. If its rate is unknown, any will do, because folds do not depend on it."""
    rate = None if (root / "store.json").exists() else 1
    return open_dataset(root, source_rate=rate, problems=on_error, groups=groups)  # type: ignore[arg-type]


def _replaced_files(folder: FeatureFolder, groups: Grouping | None) -> list[Path]:
    """The files that new splits would replace."""
    bundles = sorted((folder.root / "splits").glob("*.split*.bundle"))
    listed = folder.root / GROUPS
    return bundles + [listed] * (groups is not None and listed.exists())


def _find_unlabelled(folder: FeatureFolder) -> dict[str, str]:
    """Name of each unlabelled video, if others have labels -> reason."""
    if all(video.labels is None for video in folder.videos.values()):
        return {}
    return {
        name: "it has no labels" if video.labels is None else "no frame of it has a label"
        for name, video in folder.videos.items()
        if video.labels is None or (folder.frame_labels(name) == IGNORED).all()
    }


def _fold_count(
    folder: FeatureFolder, videos: Sequence[str], groups: Mapping[str, str] | None, folds: int | None
) -> int:
    """The number of folds, between 2 and the number of groups or videos."""
    most, unit = (len(videos), "videos") if groups is None else (len(set(groups.values())), "groups")
    count = min(MOST_FOLDS, most) if folds is None else folds
    if len(videos) < 3 or most < 2:
        raise InputError(
            f"{folder.root}: {len(videos)} videos of {most} {unit}; folds need at least 3 videos and 2 {unit}"
        )
    if not 2 <= count <= most:
        raise InputError(f"{folder.root}: --folds {count} for {most} {unit}; give 2 to {most}")
    return count


def _deal(
    videos: Sequence[str], groups: Mapping[str, str] | None, tasks: Mapping[str, str], count: int, seed: int
) -> dict[str, int]:
    """Video -> the fold that tests it, 0 to count - 1.

    Groups are assigned one by one, the largest first and ties by hash of the name, to the fold with the fewest videos
    of the group's tasks; ties go to the smallest fold.
    """
    together = {name: name for name in videos} if groups is None else dict(groups)
    members: dict[str, list[str]] = {}
    for name in videos:
        members.setdefault(together[name], []).append(name)
    held, sizes, folds = [Counter[str]() for _ in range(count)], [0] * count, dict[str, int]()
    for group in sorted(sort_by_hash(members, seed), key=lambda group: -len(members[group])):
        own = Counter(tasks[name] for name in members[group])
        alike = [sum(held[fold][task] * number for task, number in own.items()) for fold in range(count)]
        fold = min(range(count), key=lambda fold: (alike[fold], sizes[fold]))
        held[fold] += own
        sizes[fold] += len(members[group])
        folds |= dict.fromkeys(members[group], fold)
    return folds


def _write(folder: FeatureFolder, test: Mapping[str, tuple[str, ...]], videos: Sequence[str], old: list[Path]) -> None:
    """Replace the old files atomically by bundles of all folds and the groups of the caller."""
    place = folder.root / "splits"
    there = list(place.iterdir()) if place.is_dir() else []
    with replacing(place, {path.name for path in there}) as temporary:
        temporary.mkdir()
        for path in set(there) - set(old):
            (copytree if path.is_dir() else copyfile)(path, temporary / path.name)
        for name, tested in test.items():
            trained = [video for video in videos if video not in tested]
            for part, names in (("train", trained), ("test", tested)):
                write_lines(temporary / f"{part}.split{name}.bundle", (f"{video}.txt" for video in names))
        if folder.grouping is not None and folder.groups is not None:
            write_lines(temporary / Path(GROUPS).name, group_lines(folder.root, folder.groups))
