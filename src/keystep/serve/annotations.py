"""Labels as people change them: an append-only log, and the MS-TCN files that everything else reads.

A change counts once its line is in ``annotations.jsonl`` and on disk; ``groundTruth/<video>.txt`` follows. A process
that dies in between is caught up with when the folder is opened again. Nothing is ever taken out of the log::

    {"when": "2026-01-31T12:00:00+00:00", "author": "", "video": "a", "revision": 3, "kind": "edit",
     "spans": [[0, 120, "cut"]]}

``kind``: ``before`` (labels that were there before the first change), ``edit``, ``merge`` (an edit of an older
revision, merged with what came between), or ``file`` (another program has changed the files).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from keystep.data.annotation import IGNORED, UNLABELLED, read_labels, read_mapping, read_segments
from keystep.data.spans import Span, labels_of_spans
from keystep.errors import InputError, plain, quoted
from keystep.files import write_lines
from keystep.serve.log import ChangeRecord, Log

LOG = "annotations.jsonl"
MOST_CLASSES = 2_000
LONGEST_NAME = 200
"""Letters of a class's name."""

Kind = Literal["before", "edit", "merge", "file"]


class Conflict(Exception):
    """Two people changed the same slots; ``revision`` and ``spans`` are those of the one who saved first."""

    def __init__(self, revision: int, spans: tuple[Span, ...]) -> None:
        super().__init__(f"the same slots were changed by somebody else, in revision {revision}; look at both")
        self.revision, self.spans = revision, spans


class NotSaved(InputError):
    """The disk refuses, so that nothing was acknowledged; the same request may succeed later."""


class ReadOnly(Exception):
    """The folder cannot be written to."""


class ClassExists(Exception):
    """A class of that name is there already."""


@dataclass(frozen=True)
class Saved:
    """What a save led to: the revision, its spans, and whether they were merged with somebody else's."""

    revision: int
    spans: tuple[Span, ...]
    merged: bool


@dataclass
class _Video:
    slots: int
    revision: int = 0
    spans: tuple[Span, ...] = ()
    logged: dict[int, int] = field(default_factory=dict)
    """Revision -> place of its line in the log."""
    behind: bool = False
    """The files do not hold yet what the log does."""


class AnnotationStore:
    """The labels of a feature folder, in revisions; every method may be called from any thread.

    Args:
        root: the feature folder.
        slots: video -> slots on disk.
        read_only: nothing is written, and saving is refused.

    Raises:
        InputError: labels, classes or a log that cannot be read.
    """

    def __init__(self, root: Path, slots: Mapping[str, int], *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._lock = threading.RLock()
        self._log = Log(root / LOG, repair=not read_only)
        self._videos = {name: _Video(count) for name, count in slots.items()}
        self._classes = list(read_mapping(root / "mapping.txt")) if (root / "mapping.txt").exists() else []
        self._replay()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class id."""
        return tuple(self._classes)

    @property
    def revisions(self) -> int:
        """Changes of all videos together."""
        with self._lock:
            return sum(video.revision for video in self._videos.values())

    def current(self, name: str) -> tuple[int, tuple[Span, ...]]:
        """Revision and spans of a video; revision 0 is what was there before keystep changed anything."""
        with self._lock:
            video = self._videos[name]
            return video.revision, video.spans

    def labels(self, name: str) -> np.ndarray:
        """(slots,) int64 class ids of a video, `IGNORED` where there is none."""
        with self._lock:
            video = self._videos[name]
            return labels_of_spans(video.spans, video.slots, self._classes)

    def labelled_share(self, name: str) -> float:
        """The share of a video's slots that has a label."""
        with self._lock:
            video = self._videos[name]
            return sum(span.stop - span.start for span in video.spans) / video.slots

    def add_class(self, name: str) -> tuple[str, ...]:
        """Add a class at the end; returns all.

        Raises:
            InputError: no name for a class, or too many.
            NotSaved: the disk refuses.
            ReadOnly: the folder cannot be written to.
            ClassExists: there is one of that name.
        """
        name = " ".join(name.split())
        if not name or plain(name) != name or len(name) > LONGEST_NAME or name == UNLABELLED:
            raise InputError(f"{quoted(name)} is no name for a class: 1 to {LONGEST_NAME} letters on one line")
        with self._lock:
            self._check_writable()
            if name in self._classes:
                raise ClassExists(f"there is a class {quoted(name)} already")
            if len(self._classes) >= MOST_CLASSES:
                raise InputError(f"{len(self._classes)} classes; there may be no more")
            with _told_apart():
                self._write_mapping([*self._classes, name])
            return self.classes

    def save(self, name: str, spans: Iterable[Span], base_revision: int, author: str = "") -> Saved:
        """Make spans the labels of a video; when this returns, they are on disk.

        An edit of an older revision is merged with the changes since then where no slot was changed by both.

        Raises:
            InputError: spans that do not fit the video or the classes.
            NotSaved: the disk refuses.
            ReadOnly: the folder cannot be written to.
            Conflict: both changed the same slots; nothing is written.
        """
        with self._lock:
            self._check_writable()
            video, asked = self._videos[name], tuple(sorted(spans))
            labels_of_spans(asked, video.slots, self._classes)
            merged = base_revision != video.revision
            chosen = self._merged(video, asked, base_revision) if merged else asked
            with _told_apart():
                if chosen != video.spans:
                    if not video.logged:
                        self._append(name, video.revision, video.spans, "before", "")
                    self._append(name, video.revision + 1, chosen, "merge" if merged else "edit", author)
                if video.behind:
                    self._write_files(name)
            return Saved(video.revision, chosen, merged)

    def _merged(self, video: _Video, asked: tuple[Span, ...], base_revision: int) -> tuple[Span, ...]:
        if base_revision not in video.logged:
            raise Conflict(video.revision, video.spans)
        base = self._log.read(video.logged[base_revision]).own_spans()
        codes = [_codes(spans, video.slots, self._classes) for spans in (base, video.spans, asked)]
        ours, theirs = codes[2] != codes[0], codes[1] != codes[0]
        if np.any(ours & theirs & (codes[1] != codes[2])):
            raise Conflict(video.revision, video.spans)
        return _spans(np.where(ours, codes[2], codes[1]), self._classes)

    def _append(self, name: str, revision: int, spans: tuple[Span, ...], kind: Kind, author: str) -> None:
        record = ChangeRecord(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            author=author,
            video=name,
            revision=revision,
            kind=kind,
            spans=[(span.start, span.stop, span.label) for span in spans],
        )
        video = self._videos[name]
        video.logged[revision] = self._log.append(record)
        video.revision, video.spans, video.behind = revision, spans, kind in ("edit", "merge")

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.root}: cannot be written to, so that labels can only be looked at")

    def _replay(self) -> None:
        """Take up the log, and bring it and the files together."""
        before: dict[str, tuple[Span, ...]] = {}
        for place, record in self._log.records():
            video = self._videos.get(record.video)
            if video is not None:
                before[record.video] = video.spans
                video.logged[record.revision] = place
                video.revision, video.spans = record.revision, record.own_spans()
        missing = [span.label for video in self._videos.values() for span in video.spans]
        missing = [label for label in dict.fromkeys(missing) if label not in self._classes]
        if missing:
            self._write_mapping([*self._classes, *missing])
        for name in self._videos:
            self._bring_together(name, before.get(name, ()))

    def _bring_together(self, name: str, before: tuple[Span, ...]) -> None:
        video, found = self._videos[name], self._read_files(name)
        try:
            labels_of_spans(video.spans, video.slots, self._classes)
        except InputError as error:
            raise InputError(
                f"{self._log.path}: {quoted(name)}: {error}; was it extracted again at another rate?"
            ) from error
        if found == video.spans:
            return
        if not video.logged:
            video.spans = found
        elif self.read_only:
            return  # what is in the log counts, and nothing may be written
        elif found == before or not found:  # the process died between the log and the files, or they were removed
            self._write_files(name)
        else:
            self._append(name, video.revision + 1, found, "file", "")

    def _read_files(self, name: str) -> tuple[Span, ...]:
        path, video = self._labels_path(name), self._videos[name]
        if not path.exists():
            return ()
        labels = read_labels(path, tuple(self._classes))
        codes = np.full(video.slots, IGNORED * 2, np.int64)
        codes[: len(labels)] = 2 * labels[: video.slots]
        if self._segments_path(name).exists():
            segments = read_segments(self._segments_path(name), video.slots)
            codes[1:] += (np.diff(segments) != 0) & (codes[1:] == codes[:-1]) & (codes[1:] >= 0)
        return _spans(codes, self._classes)

    def _write_files(self, name: str) -> None:
        video, path, segments = self._videos[name], self._labels_path(name), self._segments_path(name)
        codes = _codes(video.spans, video.slots, self._classes)
        if np.any(codes % 2) or segments.exists():
            starts = np.flatnonzero((np.diff(codes // 2) != 0) | (codes[1:] % 2 == 1)) + 1
            write_lines(segments, np.diff(starts, prepend=0, append=video.slots).tolist())
        if video.spans:
            names = [UNLABELLED if code < 0 else self._classes[code // 2] for code in codes.tolist()]
            write_lines(path, names)
        elif path.exists():
            path.unlink()
        video.behind = False

    def _write_mapping(self, classes: Sequence[str]) -> None:
        if not self.read_only:
            write_lines(self.root / "mapping.txt", [f"{index} {name}" for index, name in enumerate(classes)])
        self._classes = list(classes)

    def _labels_path(self, name: str) -> Path:
        return self.root / "groundTruth" / f"{name}.txt"

    def _segments_path(self, name: str) -> Path:
        return self.root / "segments" / f"{name}.txt"

    def close(self) -> None:
        """Close the log."""
        self._log.close()


@contextmanager
def _told_apart() -> Iterator[None]:
    """Let refusals by the disk be told from those of what was asked."""
    try:
        yield
    except InputError as error:
        raise NotSaved(str(error)) from error
    except OSError as error:
        raise NotSaved(f"{error.filename}: cannot be written: {error.strerror}") from error


def _codes(spans: Iterable[Span], slots: int, classes: Sequence[str]) -> np.ndarray:
    """(slots,) int64: twice the class id, and one more where a span begins behind another one of its class."""
    ordered = sorted(spans)
    codes = 2 * labels_of_spans(ordered, slots, classes)
    for span in ordered:
        if span.start and codes[span.start - 1] // 2 == codes[span.start] // 2:
            codes[span.start] += 1
    return codes


def _spans(codes: np.ndarray, classes: Sequence[str]) -> tuple[Span, ...]:
    """The inverse of `_codes`."""
    labels = codes // 2
    starts = np.flatnonzero((np.diff(labels) != 0) | ((codes[1:] % 2 == 1) & (labels[1:] >= 0))) + 1
    edges = [0, *starts.tolist(), len(codes)]
    runs = pairwise(edges)
    return tuple(Span(start, stop, classes[labels[start]]) for start, stop in runs if labels[start] >= 0)
