"""The annotation of a feature folder as files of another program."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from keystep.data.folder import FeatureFolder
from keystep.data.spans import Span, spans_of
from keystep.errors import InputError
from keystep.exchange.formats import Format, Found, Recording, TimedLabel, class_name, format_of, lines_of
from keystep.exchange.importing import matching, seconds_of
from keystep.exchange.media import Media
from keystep.exchange.slots import to_slots
from keystep.files import check_apart, check_new, replacing
from keystep.locking import owning
from keystep.progress import SILENT, Progress
from keystep.types import AnyRate

STAGING = ".keystep.export"
LOG = "annotations.jsonl"
"""Who labelled what and when, as `keystep serve` keeps it."""


@dataclass(frozen=True)
class Exported:
    """What was written: paths, names of the videos, their segments, and a line on everything that was lost."""

    paths: list[Path]
    videos: list[str]
    segments: int
    notes: list[str]


def export_annotations(
    folder: FeatureFolder,
    kind: str,
    out: Path | str,
    *,
    names: Sequence[str] = (),
    videos: Path | Mapping[str, Path] | None = None,
    frame_rate: AnyRate | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Write the labels of a feature folder as files of another program.

    Files are read back where the format can be, and what would come back other than it went out is said.

    Args:
        folder: opened at its own rate, with its labels.
        kind: a name of `keystep.plugins.FORMATS`.
        out: a folder for the files.
        names: of the videos; by default all that have labels.
        videos: name -> file, or a folder with the videos themselves, for formats that count their frames or show them.
        frame_rate: frames a second of the videos, where no file says it.
        overwrite: replace files that are there.

    Raises:
        InputError: no such format or video, no labels, files that are there already, a frame rate or video that is
            missing, or a place that cannot be written to.
    """
    out, form, media = Path(out), format_of(kind), Media(folder, videos, frame_rate)
    chosen, notes = _labelled(folder, names)
    targets = [out / file for file in form.files(chosen)]
    for path in targets:
        check_new(path, overwrite, "annotations")
    lacking = media.without_file(chosen) if form.needs_video else []
    if lacking:
        raise InputError(f"{kind} needs the videos themselves; give --videos DIR with a file for {lacking[0]}")
    recordings = [_recording(folder, name, media, form, kind) for name in chosen]
    check_apart(targets, [recording.video for recording in recordings])
    with owning(out), _staging(out) as staging, progress.task(kind) as task:
        form.write(recordings, _classes(folder), staging)
        task.advance()
        written = [staging / path.relative_to(out) for path in targets]
        notes += _said(folder, form) + _differences(media, form, recordings, written)
        for path, target in zip(written, targets, strict=True):
            with replacing(target) as temporary:
                path.rename(temporary)
    return Exported(targets, chosen, sum(len(one.spans) for one in recordings), notes)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder in ``out`` to write to, gone at the end; what a killed process left of it goes first."""
    staging = out / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _labelled(folder: FeatureFolder, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The videos to write, and a note on those without labels."""
    asked = [folder.video(name).name for name in dict.fromkeys(names)] or sorted(folder.videos)
    labelled = [name for name in asked if folder.videos[name].labels is not None]
    if not labelled:
        raise InputError(f"{folder.root}: no labels for {'any video' if not names else ', '.join(asked)}")
    left = len(asked) - len(labelled)
    return labelled, [f"{left} videos without labels were left out"] * (left > 0)


def _recording(folder: FeatureFolder, name: str, media: Media, form: Format, kind: str) -> Recording:
    frames = media.frames(name)
    if frames is None and form.needs_frames:
        raise InputError(
            f"{kind} counts frames of the video, and nothing says how many {name} has a second; give --videos DIR or "
            "--frame-rate"
        )
    spans, slots, rate = _spans(folder, name), folder.length(name), folder.timeline.rate
    moment = _moments(folder, name)
    stretches = tuple(TimedLabel(moment(span.start), moment(span.stop), span.label) for span in spans)
    return Recording(name, spans, stretches, slots, rate, moment(slots), frames, media.files.get(name))


def _moments(folder: FeatureFolder, name: str) -> Callable[[int], Fraction]:
    """A function of a slot: its moment, never before 0; after the last slot, its end."""
    timeline, moments = folder.timeline, folder.times(name).tolist() if folder.has_times(name) else []
    if not moments:
        return lambda slot: max(Fraction(0), timeline.seconds(slot))
    moments.append(moments[-1] + float(1 / timeline.rate))
    return lambda slot: max(Fraction(0), Fraction(moments[slot]))


def _spans(folder: FeatureFolder, name: str) -> tuple[Span, ...]:
    """The true segments, also where neighbours share a label."""
    labels, spans, first = folder.labels(name), list[Span](), 0
    classes = _classes(folder)
    for length in folder.segment_lengths(name):
        own = spans_of(labels[first : first + length], classes)
        spans += [Span(first + span.start, first + span.stop, span.label) for span in own]
        first += length
    return tuple(spans)


def _classes(folder: FeatureFolder) -> list[str]:
    """Names by class id that every format can hold."""
    return [class_name(label) or label for label in folder.classes]


def _said(folder: FeatureFolder, form: Format) -> list[str]:
    """What no file of this format can hold."""
    notes = [form.loses] if form.loses else []
    changed = [name for name in folder.classes if class_name(name) != name]
    if changed:
        notes.append(f"{len(changed)} class names lost control characters or blanks in them")
    if (folder.root / LOG).exists():
        notes.append(f"who labelled what and when stays in {LOG}")
    return notes


def _differences(media: Media, form: Format, recordings: Sequence[Recording], files: Sequence[Path]) -> list[str]:
    """Read what was written, and say which slots would come back with another label."""
    if form.read is None:
        return []
    names, back = [recording.name for recording in recordings], dict[str, Found]()
    for found in (one for path in files if path.suffix == form.ending for one in form.read(path, None)):
        name = matching(found, names)
        back |= {} if name is None else {name: found}
    notes, step = [], float(1 / media.folder.timeline.rate)
    for recording in recordings:
        times, spans = media.folder.times(recording.name), tuple[Span, ...]()
        if recording.name in back:
            stretches = seconds_of(back[recording.name], recording.name, media, times, recording.name)
            spans = tuple(to_slots(stretches, times, step).spans)
        pairs = zip(lines_of(recording.spans, recording.slots), lines_of(spans, recording.slots), strict=True)
        differ = sum(before != after for before, after in pairs)
        if differ:
            notes.append(f"{recording.name}: {differ} of {recording.slots} slots would come back with another label")
    return notes
