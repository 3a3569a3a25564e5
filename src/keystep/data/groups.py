"""Groups: the person or site that a video belongs to. Splits and bootstraps keep the videos of a group together.

``splits/groups.csv`` has the header ``video,group`` and one line per video, named as in the splits::

    video,group
    P016_balloon1,P016
    P016_balloon2,P016

If names contain the person, a regular expression is equivalent: ``^(P[0-9]+)_``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from keystep.data.annotation import Split, match_name
from keystep.errors import InputError, quoted
from keystep.files import write_lines
from keystep.reading import read_rows

GROUPS = "splits/groups.csv"
HEADER = ["video", "group"]
Grouping = Mapping[str, str] | str
"""Video -> group, or a regular expression whose capturing group matches it in the name of the video."""


def resolve_groups(
    root: Path, videos: Collection[str], given: Grouping | None = None, left_out: Collection[str] = ()
) -> dict[str, str] | None:
    """Find the groups of all videos of a feature folder.

    Args:
        root: the feature folder.
        videos: its videos.
        given: groups of the caller. None: as in ``splits/groups.csv``, if it exists.
        left_out: videos that were skipped as bad, which may be listed.

    Returns:
        Video -> group, in the order of ``videos``. None: groups are unknown.

    Raises:
        InputError: an unknown or repeated video, an empty group, or a video without one; or as for `groups_by_pattern`.
    """
    if isinstance(given, str):
        return groups_by_pattern(given, videos)
    path = root / GROUPS
    if given is not None:
        return _complete("groups", _checked("groups", given.items(), videos, left_out), videos)
    if not path.exists():
        return None
    return _complete(str(path), _checked(str(path), _rows(path), videos, left_out), videos)


def groups_by_pattern(pattern: str, videos: Iterable[str]) -> dict[str, str]:
    """Extract groups from the names of videos.

    Args:
        pattern: regular expression with one capturing group.
        videos: names.

    Returns:
        Video -> group.

    Raises:
        InputError: an invalid pattern, another number of capturing groups, or a name that does not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--groups {quoted(pattern)}: invalid regular expression: {error}") from error
    if compiled.groups != 1:
        raise InputError(
            f"--groups {quoted(pattern)}: {compiled.groups} capturing groups; put one pair of brackets around the part "
            "that names the person, as in '^(P[0-9]+)_'"
        )
    groups = {}
    for video in videos:
        found = compiled.search(video)
        if found is None or not found[1]:
            raise InputError(
                f"--groups {quoted(pattern)}: does not match the video name {video!r}; correct the pattern"
            )
        groups[video] = found[1]
    return groups


def write_groups(folder: Path, groups: Mapping[str, str]) -> None:
    """Write ``splits/groups.csv`` of a feature folder for the videos that it contains; nothing if there are none.

    Args:
        folder: the feature folder.
        groups: video -> group.

    Raises:
        InputError: the file cannot be written.
    """
    lines = group_lines(folder, groups)
    if len(lines) > 1:
        write_lines(folder / GROUPS, lines)


def group_lines(folder: Path, groups: Mapping[str, str]) -> list[str]:
    """The lines of ``groups.csv``, including the header, for the videos that a feature folder contains."""

    there = [video for video in groups if (folder / "features" / f"{video}.npy").exists()]
    return [_csv_line(*HEADER), *(_csv_line(video, groups[video]) for video in there)]


def shared_groups(split: Split, groups: Mapping[str, str]) -> list[str]:
    """Find test and validation videos of groups that also train.

    Args:
        split: of the videos.
        groups: video -> group.

    Returns:
        One warning per part.
    """
    training, lines = {groups[video] for video in split.train}, []
    for part, verb in (("test", "scores on"), ("valid", "choices by")):
        videos = split.part(part)
        own = {groups[video] for video in videos}
        shared = sorted(own & training)
        if shared:
            count = sum(groups[video] in training for video in videos)
            lines.append(
                f"split {split.name}: {count} of {len(videos)} {part} videos are of groups that also train "
                f"({len(shared)} of {len(own)} groups, such as {shared[0]!r}); {verb} them say little about new groups"
            )
    return lines


def _rows(path: Path) -> Iterable[tuple[str, str]]:
    rows = [(number, [cell.strip() for cell in row]) for number, row in read_rows(path)]
    first = rows[0][1] if rows else []
    if first != HEADER:
        raise InputError(f"{path}, line 1: {quoted(','.join(first))} is not the header 'video,group'")
    for number, row in rows[1:]:
        if len(row) != len(HEADER):
            raise InputError(f"{path}, line {number}: {quoted(','.join(row))} is not 'video,group'")
        yield row[0], row[1]


def _checked(
    source: str, rows: Iterable[tuple[str, str]], videos: Collection[str], left_out: Collection[str]
) -> dict[str, str]:
    """Video -> group of validated rows; ``source`` names them in errors."""
    groups: dict[str, str] = {}
    for name, group in rows:
        video = match_name(name, (videos, left_out))
        if video is None:
            raise InputError(f"{source}: unknown video {name!r} among {len(videos)}; remove it, or correct its name")
        if video in groups:
            raise InputError(f"{source}: video {video!r} is listed twice; keep one line")
        if not group:
            raise InputError(f"{source}: the group of video {video!r} is empty; name its person or site")
        groups[video] = group
    return groups


def _complete(source: str, groups: dict[str, str], videos: Collection[str]) -> dict[str, str]:
    """Groups in the order of the videos, all of which must have one."""
    missing = [video for video in videos if video not in groups]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(videos)} videos have no group, such as {missing[0]!r}; list all videos"
        )
    return {video: groups[video] for video in videos}


def _csv_line(*cells: str) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' if re.search('[",]', cell) else cell for cell in cells)
