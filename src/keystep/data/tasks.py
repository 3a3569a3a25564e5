"""Which task each video shows, for what is done one task at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.reading import read_json


def find_tasks(folder: FeatureFolder, videos: Sequence[str], pattern: str | None = None) -> dict[str, str]:
    """Video -> task: what a regular expression finds in the name, else ``task`` of ``features/<video>.json``.

    With neither, all videos are of one task, whose name is empty.

    Args:
        pattern: its first group is the task, or all it matches where it has none: ``S2_(.+)_C1``.

    Raises:
        InputError: no regular expression, a name in which it finds nothing, or a video without a task where others
            have one.
    """
    if pattern is not None:
        return {video: _find(pattern, video) for video in videos}
    tasks = {}
    for video in videos:
        record = folder.root / "features" / f"{video}.json"
        task = read_json(record).get("task") if record.exists() else None
        if isinstance(task, str) and task:
            tasks[video] = task
    lacking = [video for video in videos if video not in tasks]
    if lacking and tasks:
        raise InputError(
            f"{folder.root}: {lacking[0]} ({len(lacking)} videos) has no task in its features/*.json and others have; "
            "give --task-pattern"
        )
    return tasks or dict.fromkeys(videos, "")


def _find(pattern: str, video: str) -> str:
    try:
        found = re.search(pattern, video)
    except re.error as error:
        raise InputError(f"--task-pattern {pattern!r}: no regular expression: {error}") from error
    if found is None:
        raise InputError(f"--task-pattern {pattern!r} finds nothing in the video name {video!r}")
    return found[1] if found.re.groups and found[1] else found[0]
