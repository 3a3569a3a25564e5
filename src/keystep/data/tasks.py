"""The task that each video shows, for evaluations within tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.reading import read_json


def find_tasks(folder: FeatureFolder, videos: Sequence[str], pattern: str | None = None) -> dict[str, str]:
    """Find the task of each video.

    Args:
        folder: the feature folder.
        videos: names.
        pattern: regular expression on the name; its first capturing group is the task, or the whole match if it has
            none, as in ``S2_(.+)_C1``. None: ``task`` of ``features/<video>.json``.

    Returns:
        Video -> task; an empty task for all videos if nothing states one.

    Raises:
        InputError: an invalid pattern, a name that does not match, or only some videos have a task.
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
            f"{folder.root}: {lacking[0]} ({len(lacking)} videos) has no task in its features/*.json, but others have; "
            "give --task-pattern"
        )
    return tasks or dict.fromkeys(videos, "")


def _find(pattern: str, video: str) -> str:
    try:
        found = re.search(pattern, video)
    except re.error as error:
        raise InputError(f"--task-pattern {pattern!r}: invalid regular expression: {error}") from error
    if found is None:
        raise InputError(f"--task-pattern {pattern!r} does not match the video name {video!r}; correct the pattern")
    return found[1] if found.re.groups and found[1] else found[0]
