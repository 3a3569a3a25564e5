"""Label Studio's tasks with timeline labels, as it imports and exports them (https://labelstud.io/tags/timelinelabels)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from keystep.errors import InputError, named, one_line, quoted
from keystep.exchange.formats import Found, Frames, Recording, TimedLabel, frame_number, number, stem_of
from keystep.files import write_json
from keystep.reading import parse_json, read_text
from keystep.types import parse_rate

TAG = "steps"
KINDS = ("timelinelabels", "labels")
UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of a file that was uploaded."""
MOST = 256 << 20


class LabelStudio:
    """Ranges of a player's frames, the first of which is 1 and the last of which is part of the range."""

    ending = ".json"
    loses = "labelstudio counts frames at a constant rate from second 0, in whole frames"
    needs_frames = needs_video = False

    def files(self, names: Sequence[str]) -> list[str]:
        """The tasks of all videos, and the labelling interface."""
        return ["tasks.json", "interface.xml"]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Tasks with one annotation each; frames of the video, or slots where its frames are not known."""
        write_json(folder / "tasks.json", [_task(recording) for recording in recordings])
        from keystep.evals.palette import Palette

        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Video", name="video", value="$video", frameRate="$fps", timelineHeight="120")
        labels, palette = ElementTree.SubElement(view, "TimelineLabels", name=TAG, toName="video"), Palette(classes)
        for index, name in enumerate(classes):
            ElementTree.SubElement(labels, "Label", value=name, background=palette.colour(index))
        ElementTree.indent(view)
        (folder / "interface.xml").write_text(ElementTree.tostring(view, "unicode") + "\n", encoding="utf-8")

    def read(self, path: Path, track: str | None) -> list[Found]:
        """Tasks of an export (JSON or JSON-MIN), or a single one."""
        text = read_text(path, MOST)
        try:
            data = parse_json(text)
        except ValueError as error:
            raise InputError(f"{path}: no JSON: {one_line(error)}") from error
        tasks = data if isinstance(data, list) else [data]
        if not tasks or not all(isinstance(task, dict) for task in tasks):
            raise InputError(f"{path}: expected Label Studio's list of tasks")
        return [_found(task, f"{path}, task {index}", path, track) for index, task in enumerate(tasks, start=1)]


def _task(recording: Recording) -> dict[str, Any]:
    frames = Frames(recording.rate if recording.frames is None else recording.frames.rate)
    result = [
        {
            "id": f"{recording.name[:80]}-{index}",
            "from_name": TAG,
            "to_name": "video",
            "type": "timelinelabels",
            "origin": "manual",
            "value": {"ranges": [{"start": first + 1, "end": stop}], "timelinelabels": [label]},
        }
        for index, (first, stop, label) in enumerate(recording.in_frames(frames))
    ]
    file = f"{recording.name}.mp4" if recording.video is None else recording.video.name
    data = {"video": f"/data/local-files/?d={quote(file)}", "fps": float(frames.rate), "rate": str(frames.rate)}
    return {"data": data, "annotations": [{"result": result}]}


def _found(task: dict[str, Any], where: str, path: Path, track: str | None) -> Found:
    """One task."""
    data = task.get("data", task)
    if not isinstance(data, dict):
        raise InputError(f"{where}: data is no object")
    addresses = [data[key] for key in ("video", "video_url", "url") if key in data] or list(data.values())
    stems = [stem for address in addresses[:20] if (stem := stem_of(address))]
    names = [*stems, *(UPLOADED.sub("", stem, count=1) for stem in stems)] or [path.stem]
    regions, notes = _regions(task, where)
    tags = sorted({str(region.get("from_name")) for region in regions if region.get("type") in KINDS})
    if track is None and len(tags) > 1:
        raise InputError(f"{where}: labels of {len(tags)} tags; give --track, one of {', '.join(map(named, tags[:9]))}")
    stretches, others, seconds = list[TimedLabel](), 0, 0
    for region in regions:
        if region.get("type") not in KINDS or (track is not None and region.get("from_name") != track):
            others += 1
            continue
        found = _stretches(region, where)
        seconds += not isinstance(region["value"].get("ranges"), list)
        stretches += found
    if seconds and seconds < len(regions) - others:
        raise InputError(f"{where}: ranges of frames and of seconds in one task; give --track")
    if others:
        notes.append(f"{others} regions that are no labels of the time line, or of another tag, were left out")
    rate = data.get("rate", data.get("fps"))
    return Found(
        tuple(dict.fromkeys(names)),
        tuple(stretches),
        "seconds" if seconds else "player frames",
        rate=None if rate is None or seconds else _rate(rate, where),
        notes=tuple(notes),
    )


def _regions(task: dict[str, Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The regions of a task's annotation, and what of it was not taken.

    Of several annotations, the one that is marked as ground truth, else the one that was changed last.
    """
    notes = list[str]()
    annotations = [one for one in _objects(task.get("annotations", []), where) if one.get("was_cancelled") is not True]
    if not annotations and (annotations := _objects(task.get("predictions", []), where)):
        notes.append("no annotation; the prediction was taken")
    if not annotations and "result" in task:
        annotations = [task]
    if len(annotations) > 1:
        notes.append(f"{len(annotations)} annotations; the ground truth or the last one was taken")
    annotations.sort(key=lambda one: (one.get("ground_truth") is True, str(one.get("updated_at", ""))))
    if annotations:
        if any(annotations[-1].get(key) for key in ("completed_by", "created_username")):
            notes.append("who annotated it is not kept")
        return _objects(annotations[-1].get("result", []), where), notes
    flat = [(tag, value) for tag, own in task.items() if isinstance(own, list) for value in own]
    return [
        {"from_name": tag, "type": kind, "value": value}
        for tag, value in flat
        for kind in KINDS
        if isinstance(value, dict) and kind in value
    ], notes


def _stretches(region: dict[str, Any], where: str) -> list[TimedLabel]:
    """One region: ranges of frames, or seconds, as the tags for sound have them."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise InputError(f"{where}: a region's value is no object")
    labels = value.get("timelinelabels", value.get("labels"))
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{where}: {quoted(labels)} are no labels")
    if not isinstance(value.get("ranges"), list):
        start, end = (number(value.get(key), where) for key in ("start", "end"))
        return [TimedLabel(start, end, label) for label in labels]
    pairs = [
        (frame_number(one.get("start"), where), frame_number(one.get("end"), where))
        for one in _objects(value["ranges"], where)
    ]
    return [TimedLabel(max(Fraction(0), first - 1), last, label) for first, last in pairs for label in labels]


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"{where}: expected a list of objects, found {quoted(value)}")
    return list(value)


def _rate(value: Any, where: str) -> Fraction:
    try:
        return parse_rate(value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
