"""CVAT for video 1.1: one track a segment, one file a video (https://docs.cvat.ai/docs/other/xml_format)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

from keystep.errors import InputError
from keystep.exchange.formats import Found, Frames, Recording, TimedLabel, frame_number
from keystep.exchange.markup import parse_xml

SIDE = 100
"""Pixels of the box where nothing says how large the picture is."""
SHAPES = ("box", "polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")


class Cvat:
    """Tracks by frame: a shape is there from its frame until one with outside="1", or to the end."""

    ending = ".xml"
    loses = "cvat counts frames of the video, and does not hold how many there are a second"
    needs_frames, needs_video = True, False

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.xml" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """A box around the whole picture at the first frame, and one that is outside after the last."""
        for recording in recordings:
            assert recording.frames is not None
            frames = recording.frames
            count = frames.count or frames.shown(recording.end)
            root = ElementTree.Element("annotations")
            ElementTree.SubElement(root, "version").text = "1.1"
            _write_task(root, recording, classes, count)
            for number, (first, stop, label) in enumerate(recording.in_frames(frames)):
                track = ElementTree.SubElement(root, "track", id=str(number), label=label, source="manual")
                for frame, outside in ((first, "0"), (stop, "1")):
                    if frame < count:
                        ElementTree.SubElement(track, "box", _box(frames, frame, outside))
            ElementTree.indent(root)
            path = folder / f"{recording.name}.xml"
            ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)

    def read(self, path: Path, track: str | None) -> list[Found]:
        """Every stretch of frames in which a track is not outside."""
        root = parse_xml(path, "annotations")
        task = next((found for name in ("task", "job") if (found := root.find(f"meta/{name}")) is not None), None)
        end, texts = None if task is None else _end(path, task), dict[str, str]()
        if task is not None:
            texts = {name: text for name in ("source", "name") if (text := (task.findtext(name) or "").strip())}
        stretches = [TimedLabel(*one) for found in root.iterfind("track") for one in _stretches(path, found, end)]
        notes = []
        if root.find("image") is not None:
            notes.append("<image> elements are not read, only tracks")
        names = (path.stem, *(Path(text.replace("\\", "/")).stem for text in texts.values()), *texts.values())
        return [Found(names, tuple(stretches), "frames", notes=tuple(notes))]


def _write_task(root: ElementTree.Element, recording: Recording, classes: Sequence[str], count: int) -> None:
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    texts = {"name": recording.name, "size": count, "mode": "interpolation", "start_frame": 0, "stop_frame": count - 1}
    for name, text in texts.items():
        ElementTree.SubElement(task, name).text = str(text)
    labels = ElementTree.SubElement(task, "labels")
    for name in classes:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    if recording.video is not None:
        ElementTree.SubElement(task, "source").text = recording.video.name


def _box(frames: Frames, frame: int, outside: str) -> dict[str, str]:
    right, bottom = frames.width or SIDE, frames.height or SIDE
    state = {"frame": str(frame), "outside": outside, "occluded": "0", "keyframe": "1"}
    return state | {"xtl": "0.00", "ytl": "0.00", "xbr": f"{right}.00", "ybr": f"{bottom}.00", "z_order": "0"}


def _end(path: Path, task: ElementTree.Element) -> Fraction | None:
    """The frame after the last one, where the file says it; counted in the video, as the tracks' frames are."""
    stop, size = task.findtext("stop_frame"), task.findtext("size")
    if stop is not None:
        return frame_number(stop.strip(), f"{path}, stop_frame") + 1
    return None if size is None else frame_number(size.strip(), f"{path}, size")


def _stretches(
    path: Path, track: ElementTree.Element, end: Fraction | None
) -> Iterator[tuple[Fraction, Fraction, str]]:
    """(first frame, last + 1, label) of each visible stretch of a track.

    Raises:
        InputError: a shape without a frame.
    """
    where = f"{path}, track {track.get('id', '?')[:20]!r}"
    shapes = [shape for shape in track if shape.tag in SHAPES]
    seen = {frame_number(shape.get("frame"), where): shape.get("outside") != "1" for shape in shapes}
    if not shapes:
        raise InputError(f"{where}: no shape, such as <box frame=...>")
    frames = sorted(seen)
    last = max(frames[-1] + 1, end or Fraction(0))
    label, start = track.get("label", ""), None
    for frame in frames:
        if seen[frame] and start is None:
            start = frame
        elif not seen[frame] and start is not None:
            yield start, frame, label
            start = None
    if start is not None:
        yield start, last, label
