"""What feeds live streams: clients that push rows or pictures, files, addresses and cameras."""

from __future__ import annotations

import copy
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from io import BytesIO
from math import ceil
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import HTTPException

from keystep.errors import InputError, one_line
from keystep.heads import Head
from keystep.reading import checked
from keystep.serve.live import Live
from keystep.serve.schema import FileSource, PushSource, Source, StreamBody
from keystep.serve.streams import Streams
from keystep.serve.workspace import Workspace

SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtp", "srt", "udp", "http", "https"})
PICTURES = 32
"""JPEGs that wait; of more, the oldest are dropped."""
MOST_PIXELS = 4096 * 4096
AGAIN = 5.0
"""Seconds after which a lost connection is tried again."""
LOOK = 0.5


class Sources:
    """Sources of the streams of a workspace.

    Args:
        allowed: addresses and cameras may be opened.
    """

    def __init__(self, workspace: Workspace, allowed: bool) -> None:
        self._workspace, self._allowed = workspace, allowed
        self._pictures: dict[str, Queue[tuple[int, bytes]]] = {}
        self._counts: dict[str, int] = {}

    def checked(self, source: Source) -> dict[str, Any]:
        """A source as it is kept.

        Raises:
            HTTPException: 403, not allowed. InputError: it cannot be used.
        """
        if isinstance(source, PushSource):
            if (source.format == "jpeg") != (source.rate is not None):
                raise InputError("give the pictures a second of a stream of JPEGs (rate), and of no other")
            if source.format == "jpeg" and self._workspace.folder.extraction is None:
                raise InputError("nothing says how the features of this folder are made of pictures; push features")
            return source.model_dump(exclude_none=True)
        if self._workspace.latents is None:
            raise InputError("files and addresses need a model: start the server with --model; features can be pushed")
        if isinstance(source, FileSource):
            return {"kind": "file", "path": str(self._confined(source.path))}
        if not self._allowed:
            raise HTTPException(
                403, "addresses and cameras are opened only if the server was started with --allow-sources"
            )
        if not source.url.isdecimal() and urlsplit(source.url).scheme.lower() not in SCHEMES:
            raise InputError(f"neither the number of a camera nor an address of {', '.join(sorted(SCHEMES))}")
        return {"kind": "url", "url": source.url}

    def connect(self, streams: Streams, live: Live, frame: int | None) -> None:
        """A client feeds a stream from now on, where it likes behind some frames or pictures that it leaves out.

        Raises:
            InputError: it may not.
        """
        if not live.pushed:
            raise InputError("this stream is not pushed; it reads its own source")
        streams.connect(live, True)
        try:
            if frame is not None:
                self._skip(streams, live, frame)
        except InputError:
            streams.connect(live, False)
            raise

    def next(self, live: Live) -> int:
        """The row or picture that a client has to send next."""
        if live.pictures is None:
            return live.rows
        first = ceil(live.rows / Fraction(self._workspace.folder.timeline.rate) * Fraction(live.pictures))
        return self._counts.setdefault(live.id, first)

    def rate(self, live: Live) -> float:
        """Rows or pictures a second that a client sends."""
        return live.pictures or self._workspace.rate

    def take(self, streams: Streams, live: Live, data: bytes) -> None:
        """Take a message of a client.

        Raises:
            InputError: it cannot be used, comes too fast, or the stream is over.
        """
        if live.pictures is not None:
            _check_picture(data)
            live.pay(live.rate / live.pictures, time.monotonic())
            self._queue(live, data)
            return
        size = 4 * live.width
        if not data or len(data) % size:
            raise InputError(f"{len(data)} bytes are no whole rows of {live.width} float32 numbers ({size} bytes)")
        rows = np.frombuffer(data, "<f4").reshape(-1, live.width).astype(np.float32)
        if not np.isfinite(rows).all():
            raise InputError(f"row {live.rows + int(np.argmin(np.isfinite(rows).all(axis=1)))} holds NaN or infinity")
        live.pay(len(rows) / live.pool, time.monotonic())
        streams.put(live, rows)

    def feed(self, streams: Streams, live: Live) -> None:
        """Feed a stream until it or the server ends; runs in a thread of its own."""
        try:
            body = checked(StreamBody, {"source": live.source}, "a live stream")
            self.checked(body.source)  # an earlier server may have been allowed more
            if live.pictures is not None:
                self._feed_pictures(streams, live)
                return
            streams.connect(live, True)
            while self._read(streams, live) and live.source["kind"] == "url":
                if not streams.pause(live, AGAIN):
                    return
        except HTTPException as error:
            streams.finish(live, error.detail, failed=True)
        except Exception as error:  # a background thread has nobody above it who could tell
            streams.finish(live, one_line(error), failed=True)

    def _read(self, streams: Streams, live: Live) -> bool:
        """Put what a file or an address gives; False: the stream or the server ended before."""
        from keystep.opening import SourceOptions, open_source

        name = live.source.get("path") or live.source["url"]
        array = Path(name).suffix == ".npy"
        options = SourceOptions(
            source_rate=str(self._workspace.folder.timeline.rate) if array else None, rate=str(streams.timeline.rate)
        )
        assert streams.model is not None
        opened = open_source(name, self._described(streams.head()), streams.model, options)
        recorded, first, began = live.source["kind"] == "file", live.next, time.monotonic()
        try:
            for chunk in opened.chunks(live.next if recorded else 0, None):
                for row in chunk.features:
                    due = began + (live.next - first) / live.rate if recorded else 0.0
                    if not streams.pause(live, due - time.monotonic()):
                        return False
                    streams.put(live, row[None], frames=True)
        except InputError as error:
            if recorded:
                raise
            live.message = str(error)
        if recorded:
            streams.finish(live, "the file is over")
        return True

    def _feed_pictures(self, streams: Streams, live: Live) -> None:
        from keystep.extraction.video.arrays import array_frames
        from keystep.opening import SourceOptions, extractor_of

        extractor = extractor_of(self._described(streams.head()), SourceOptions())
        self.next(live)
        moments: deque[Fraction] = deque()

        def images() -> Iterator[np.ndarray]:
            for index, image in self._decoded(streams, live):
                moments.append(index / Fraction(live.pictures or 1))
                yield image

        def times() -> Iterator[Fraction]:
            while moments:
                yield moments.popleft()

        hold = Fraction(3, 2) / extractor.timeline.rate
        made = extractor.stream(array_frames(images(), times()), first_slot=live.rows, longest_hold=hold)
        for features in made:
            for slot, row in zip(features.slots.tolist(), features.features, strict=True):
                if live.pool == 1 and slot > live.next:
                    streams.skip(live, slot)
                streams.put(live, row[None])

    def _decoded(self, streams: Streams, live: Live) -> Iterator[tuple[int, np.ndarray]]:
        """Number and pixels of the pictures as they come; those that are damaged are counted as dropped."""
        from PIL import Image

        waiting = self._pictures.setdefault(live.id, Queue(PICTURES))
        while streams.pause(live, 0.0):
            try:
                index, data = waiting.get(timeout=LOOK)
                with Image.open(BytesIO(data), formats=["JPEG"]) as picture:
                    yield index, np.array(picture.convert("RGB"))
            except Empty:
                continue
            except (OSError, SyntaxError, ValueError):
                live.dropped += 1

    def _queue(self, live: Live, data: bytes) -> None:
        waiting, index = self._pictures.setdefault(live.id, Queue(PICTURES)), self.next(live)
        self._counts[live.id] = index + 1
        while True:
            try:
                waiting.put_nowait((index, data))
                return
            except Full:
                try:
                    waiting.get_nowait()
                    live.dropped += 1
                except Empty:
                    continue

    def _skip(self, streams: Streams, live: Live, number: int) -> None:
        if live.pictures is None:
            if number % live.pool:
                raise InputError(f"row {number} is within a frame; go on with a multiple of {live.pool}")
            streams.skip(live, number // live.pool)
            return
        known = self.next(live)
        if number < known:
            raise InputError(f"picture {number} has come already; go on with {known}")
        self._counts[live.id] = number

    def _confined(self, path: str) -> Path:
        """A file inside the folders that are served.

        Raises:
            HTTPException: 403, it is not. InputError: there is none.
        """
        recordings = (self._workspace.recording(name) for name in self._workspace.names)
        roots = {self._workspace.root.resolve(), *(file.resolve().parent for file in recordings if file is not None)}
        try:
            found = (self._workspace.root / path).resolve()
            inside = any(found.is_relative_to(root) for root in roots)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise HTTPException(403, "only files inside the folders that are served can be streams")
        if not found.is_file():
            raise InputError("there is no such file")
        return found

    def _described(self, head: Head) -> Head:
        """The head, with what the folder says of how its features were made."""
        record = self._workspace.folder.extraction
        if record is None or "extraction" in head.origin:
            return head
        described = copy.copy(head)
        origin: Mapping[str, str] = {**head.origin, "extraction": json.dumps(record)}
        described.origin = origin
        return described


def _check_picture(data: bytes) -> None:
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError("not a JPEG; send one picture a message") from error
    if width * height > MOST_PIXELS:
        raise InputError(f"a picture of {width} x {height} pixels; send at most {MOST_PIXELS}")
