"""Files of other programs as the annotation of a feature folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from keystep.data.annotation import UNLABELLED
from keystep.data.folder import FeatureFolder
from keystep.data.layout import length_tolerance
from keystep.data.slots import array_header
from keystep.data.spans import Span
from keystep.errors import InputError, named
from keystep.exchange.formats import Found, TimedLabel, class_name, format_of, guess_format, lines_of
from keystep.exchange.media import Media
from keystep.exchange.slots import TOLERANCE, in_seconds, to_slots
from keystep.files import write_lines
from keystep.locking import owning
from keystep.types import AnyRate

SHOWN = 3
"""Names that a note lists."""


@dataclass(frozen=True)
class ImportedAnnotations:
    """What was written: the labelled slots of each video, the classes that are new, and a line on what did not fit."""

    root: Path
    labelled: dict[str, int]
    segments: int
    new_classes: list[str]
    notes: list[str]


def import_annotations(
    folder: FeatureFolder,
    paths: Sequence[Path],
    kind: str | None = None,
    *,
    videos: Path | None = None,
    frame_rate: AnyRate | None = None,
    track: str | None = None,
    overwrite: bool = False,
) -> ImportedAnnotations:
    """Read files of another program into ``groundTruth/`` and ``mapping.txt`` of a feature folder.

    A slot gets the label at its moment. Classes keep their ids, new ones come behind them. Everything is read and
    checked before anything is written.

    Args:
        folder: opened at its own rate; labels that it has need not be usable.
        paths: the files.
        kind: a name of `keystep.plugins.FORMATS`; by default the one whose files end so.
        videos: a folder with the videos themselves, for formats that count their frames.
        frame_rate: frames a second of the videos, where no file says it, or lines of labels a second.
        track: the tier or tag to take, where a file has several.
        overwrite: replace labels that are there.

    Raises:
        InputError: a file that is none of this format, of which no video is in the folder, or that says nothing; two
            for one video; labels that are there already; a frame rate that is missing.
    """
    folder, media = _whole(folder), Media(folder, videos, frame_rate)
    spans, notes = read_annotations(media, paths, kind or guess_format(paths), track)
    return _written(folder, spans, notes, overwrite)


def read_annotations(
    media: Media, paths: Sequence[Path], kind: str, track: str | None = None
) -> tuple[dict[str, list[Span]], list[str]]:
    """(video -> its spans, notes on what did not fit), of which nothing is written yet.

    Raises:
        InputError: as `import_annotations`, but for labels that are there.
    """
    read = format_of(kind).read
    if read is None:
        raise InputError(f"{kind} is written only; no annotations are read from it")
    notes, spans = list[str](), dict[str, list[Span]]()
    for path, found in [(each, found) for each in paths for found in read(each, track)]:
        name = matching(found, media.folder.videos)
        if name is None:
            notes.append(f"{path.name}: no video {named(found.names[0])} in {media.folder.root}; left out")
            continue
        if name in spans:
            raise InputError(f"{path}: a second annotation of {named(name)}; import one after the other")
        spans[name], said = _spans(found, name, media, path)
        notes += [f"{name}: {line}" for line in (*found.notes, *said)]
    empty = [name for name, own in spans.items() if not own]
    notes += [f"{name}: not a single segment; its labels were left as they are" for name in empty]
    spans = {name: own for name, own in spans.items() if own}
    if not spans:
        raise InputError(f"nothing to import: {notes[0] if notes else f'{paths[0]}: no annotation in it'}")
    return spans, notes


def matching(found: Found, known: Collection[str]) -> str | None:
    """The video that a file speaks of, among those that are known."""
    return next((name for name in found.names if name in known), None)


def seconds_of(found: Found, name: str, media: Media, times: np.ndarray, where: str) -> list[TimedLabel]:
    """What a file says of a video, in seconds.

    Args:
        times: (T,) of the slots, which lines of labels count.

    Raises:
        InputError: it counts frames of unknown rate, or lines that are not those of the slots.
    """
    if found.unit == "seconds":
        return list(found.stretches)
    step = 1 / media.folder.timeline.rate
    if found.unit == "lines" and abs(found.length - len(times)) <= length_tolerance(len(times)):
        borders = np.append(times, times[-1] + float(step) * np.arange(1, found.length + 2)).tolist()
        moments = [Fraction(border) for border in borders]
        return [TimedLabel(moments[int(start)], moments[int(end)], label) for start, end, label in found.stretches]
    if found.unit == "lines" and media.rate is None:
        raise InputError(
            f"{where}: {found.length} lines for {len(times)} slots of {name}; give --frame-rate, lines a second"
        )
    frames, rate = media.frames(name), media.rate_of(found, name)
    if rate is None:
        raise InputError(
            f"{where}: counts frames, and nothing says how many {name} has a second; give --videos DIR or --frame-rate"
        )
    begins = frames.begins if frames is not None and found.unit == "frames" else Fraction(0)
    return in_seconds(found.stretches, begins, rate)


def _whole(folder: FeatureFolder) -> FeatureFolder:
    """The folder as if it had no labels, which may have cut its videos."""

    def slots(name: str) -> int:
        video = folder.videos[name]
        return int(array_header(video.features).shape[video.time_axis])

    videos = {name: replace(video, frames=slots(name), labels=None) for name, video in folder.videos.items()}
    return replace(folder, videos=videos)


def _spans(found: Found, name: str, media: Media, path: Path) -> tuple[list[Span], list[str]]:
    """The spans of one video, with labels as classes may be called, and notes on what did not fit."""
    folder = media.folder
    times, stretches, nameless = folder.times(name), [], 0
    for start, end, label in seconds_of(found, name, media, times, str(path)):
        said = label if label in folder.classes else class_name(label)
        nameless += not said
        if said and (said != UNLABELLED or said in folder.classes):
            stretches.append(TimedLabel(start, end, said))
    rate = media.rate_of(found, name)
    unit = 0.0 if rate is None or found.unit == "seconds" else float(1 / rate) + TOLERANCE
    taken = to_slots(stretches, times, float(1 / folder.timeline.rate), unit)
    notes = [f"{nameless} segments without a label were dropped"] * (nameless > 0)
    if found.unit == "lines" and found.length != len(times):
        notes.append(f"{found.length} lines for {len(times)} slots")
    return taken.spans, notes + taken.notes()


def _written(
    folder: FeatureFolder, spans: Mapping[str, list[Span]], notes: list[str], overwrite: bool
) -> ImportedAnnotations:
    """Write the classes first: at any moment, labels that are there are of known classes."""
    root = folder.root
    there = [root / "groundTruth" / f"{name}.txt" for name in spans if (root / "groundTruth" / f"{name}.txt").exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]}: holds labels already; give --overwrite to replace those of {len(there)} videos")
    others = {path.stem for path in (root / "groundTruth").glob("*.txt")} - set(spans)
    if others and not folder.classes:
        raise InputError(f"{root}: groundTruth/ without mapping.txt; write one 'id name' a line")
    said = dict.fromkeys(span.label for own in spans.values() for span in own)
    new = [label for label in said if label not in folder.classes]
    classes = (*folder.classes, *new)
    with owning(root):
        if new:
            write_lines(root / "mapping.txt", (f"{index} {label}" for index, label in enumerate(classes)))
        for name, own in spans.items():
            write_lines(root / "groundTruth" / f"{name}.txt", lines_of(own, folder.length(name)))
            _write_segments(root / "segments" / f"{name}.txt", own, folder.length(name))
    labelled = {name: sum(span.stop - span.start for span in own) for name, own in spans.items()}
    notes = notes + _about_classes(folder.classes, new)
    return ImportedAnnotations(root, labelled, sum(map(len, spans.values())), new, notes)


def _write_segments(path: Path, spans: Sequence[Span], slots: int) -> None:
    """Where neighbours share a label, the lengths of all segments; else no file, since the labels say it all."""
    if not any(one.stop == other.start and one.label == other.label for one, other in pairwise(spans)):
        path.unlink(missing_ok=True)
        return
    borders = sorted({0, slots, *(border for span in spans for border in (span.start, span.stop))})
    write_lines(path, (after - before for before, after in pairwise(borders)))


def _about_classes(known: Sequence[str], new: Sequence[str]) -> list[str]:
    if not known or not new:
        return []
    shown = ", ".join(map(named, new[:SHOWN])) + (", ..." if len(new) > SHOWN else "")
    notes = [f"{len(new)} classes were not in mapping.txt and are now: {shown}"]
    folded = {name.casefold(): name for name in known}
    alike = [(label, folded[label.casefold()]) for label in new if label.casefold() in folded]
    notes += [f"class {named(label)} differs from {named(other)} in its case only" for label, other in alike[:SHOWN]]
    return notes
