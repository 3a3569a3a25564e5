"""Live streams: many of them share a model; what waits is computed together, and a restart loses nothing but time."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.errors import InputError, one_line
from keystep.heads import Head, load_head
from keystep.reading import checked
from keystep.serve.batches import SEATS, Batch, check_live_head, reads_single_frames
from keystep.serve.live import AT_ONCE, Live
from keystep.serve.metrics import ServerMetrics
from keystep.serve.workspace import Workspace

log = logging.getLogger(__name__)

MOST_STREAMS = 64
GATHER = 0.04
"""Seconds that a frame waits for those of other streams."""
SAVE_SECONDS = 5.0
FRAMES, DROPPED, SECONDS = "keystep_stream_frames_total", "keystep_stream_dropped_total", "keystep_stream_seconds"
HEAD_FILE = "head.safetensors"


class TooMany(Exception):
    """There are as many streams as may be."""


class Streams:
    """All live streams of a workspace. Every method may be called from any thread.

    Args:
        head: the head that answers now; None before there is one. One that reads single frames may change.
        source: feeds a stream that is not pushed, until `Live.over`; called in a thread of its own.

    Attributes:
        rate: frames a second, those of the model. pool: rows that are averaged to a frame. width: numbers of a row.
    """

    def __init__(
        self,
        workspace: Workspace,
        head: Callable[[], Head | None],
        metrics: ServerMetrics,
        source: Callable[[Streams, Live], None],
    ) -> None:
        latents = workspace.latents
        self.workspace, self.model = workspace, workspace.live_model
        folder = workspace.folder if latents is None else latents.folder
        self.timeline, self.pool, self.width = folder.timeline, folder.pool, workspace.folder.width
        self.rate = float(self.timeline.rate)
        self._given, self._source = head, source
        self._head: Head | None = None
        self._metrics = metrics
        self._folder = workspace.work / "streams" / workspace.live_as
        self._changed, self._writing, self._computing = threading.Condition(), threading.Lock(), threading.Lock()
        self._all: dict[str, Live] = {}
        self._batches: dict[int, Batch] = {}
        self._dirty: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        metrics.counter(FRAMES, "Frames of live streams that were answered.")
        metrics.counter(DROPPED, "Frames of live streams that were dropped, the oldest that waited.")
        metrics.histogram(SECONDS, "Seconds from a frame's arrival to its answer.")
        metrics.gauge("keystep_streams", "Live streams.", lambda: len(self._all))
        metrics.gauge("keystep_stream_state_bytes", "Size of the states of live streams.", self._size)
        if self._folder.is_dir():
            self._restore()

    @property
    def window(self) -> float | None:
        """Seconds of the past that the model attends to; None where the head reads features."""
        pattern = None if self.model is None else self.model.config.stream_attention
        return None if pattern is None or pattern.window is None else pattern.window / self.rate

    @property
    def answers(self) -> bool:
        """Whether a head answers, or did when the server ended."""
        return self._head is not None

    def open(self, name: str, source: Mapping[str, Any]) -> Live:
        """Begin a stream.

        Raises:
            InputError: there is no head that could answer. TooMany: there are `MOST_STREAMS`.
        """
        head = self.head()
        with self._computing, self._changed:
            if len(self._all) >= MOST_STREAMS:
                raise TooMany(f"there are {MOST_STREAMS} streams, and no more at once; end one of them")
            number, seat = self._seat(head)
            live = Live(secrets.token_hex(6), name, dict(source), number, seat, self.rate, self.pool, self.width)
            self._all[live.id] = live
            self._dirty.add(number)
        self.save()
        self._begin(live)
        return live

    def all(self) -> list[Live]:
        """All streams, the oldest first."""
        with self._changed:
            return [*self._all.values()]

    def find(self, identifier: str) -> Live | None:
        """The stream of that name."""
        with self._changed:
            return self._all.get(identifier)

    def end(self, live: Live) -> None:
        """Forget a stream."""
        with self._computing, self._changed:
            if self._all.pop(live.id, None) is None:
                return
            live.over, live.message = True, "the stream was ended"
            self._dirty.add(live.batch)
            if not any(other.batch == live.batch for other in self._all.values()):
                self._batches.pop(live.batch)
            self._changed.notify_all()
        live.events.close()
        self.save()

    def head(self) -> Head:
        """The head that answers now.

        Raises:
            InputError: there is none yet, or it does not fit streams.
        """
        found = self._given()
        if found is not None and found is not self._head:
            self._check(found)
            return found
        if self._head is None:
            raise InputError("nothing to answer with yet: give a head with --head, or label some videos and learn")
        return self._head

    def put(self, live: Live, rows: np.ndarray, *, frames: bool = False) -> None:
        """Take a stream's next rows, (n, D); of more than can wait, the oldest are dropped and counted.

        Args:
            frames: the rows are at the model's rate already.

        Raises:
            InputError: the stream is over.
        """
        with self._changed:
            if live.over:
                raise InputError(live.message or "the stream is over")
            lost = live.put(rows if frames else live.pooled(rows), time.monotonic())
            if lost:
                self._metrics.add(DROPPED, lost)
            self._changed.notify_all()

    def skip(self, live: Live, frame: int) -> None:
        """Go on with a later frame; those in between count as dropped.

        Raises:
            InputError: it has come already.
        """
        with self._changed:
            self._metrics.add(DROPPED, live.skip(frame))

    def connect(self, live: Live, connected: bool) -> None:
        """Somebody feeds a stream from now on, or no longer.

        Raises:
            InputError: it is over, or somebody else does.
        """
        with self._changed:
            if connected and live.over:
                raise InputError(live.message or "the stream is over")
            if connected and live.connected:
                raise InputError("another client feeds this stream; open one of your own")
            live.connected = connected
            self._changed.notify_all()

    def pause(self, live: Live, seconds: float) -> bool:
        """Wait; False: the stream or the server ends."""
        with self._changed:
            return not self._changed.wait_for(lambda: live.over or self._closed, max(0.0, seconds))

    def finish(self, live: Live, message: str, failed: bool = False) -> None:
        """A stream's source has ended; what waits is answered still."""
        with self._changed:
            live.over, live.message, live.failed = True, message, failed
            self._dirty.add(live.batch)

    def close(self) -> None:
        """Stop, after saving all states."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for live in self.all():
            live.events.close()
        self.save()

    def save(self) -> None:
        """Write the states that have changed."""
        with self._writing:
            with self._changed:
                numbers, self._dirty = self._dirty, set()
                found = {number: self._batches.get(number) for number in numbers}
                states = {n: (batch, batch.position, self._recorded(n)) for n, batch in found.items() if batch}
            for number in found.keys() - states.keys():
                self._path(number).unlink(missing_ok=True)
            for number, (batch, position, extra) in states.items():
                try:
                    batch.save(self._path(number), position, extra)
                except InputError as error:
                    log.warning("live streams are not saved: %s", error)
                    with self._changed:
                        self._dirty.add(number)

    def _begin(self, live: Live) -> None:
        """Start what computes, what saves, and what feeds a stream."""
        with self._changed:
            if not self._threads:
                self._threads = [
                    threading.Thread(target=work, name="live streams", daemon=True) for work in (self._work, self._keep)
                ]
                for thread in self._threads:
                    thread.start()
        if not live.over and (not live.pushed or live.pictures):
            threading.Thread(target=self._source, args=(self, live), name=f"stream {live.id}", daemon=True).start()

    def _seat(self, head: Head) -> tuple[int, int]:
        """A free seat: the batch's number, and its row."""
        self._use(head)
        taken = {(live.batch, live.seat) for live in self._all.values()}
        for number in self._batches:
            for seat in range(SEATS):
                if (number, seat) not in taken:
                    self._batches[number].free(seat)
                    return number, seat
        number = max(self._batches, default=-1) + 1
        self._batches[number] = Batch(self.model, head)
        return number, 0

    def _use(self, head: Head) -> None:
        """Let all streams be answered by a head from now on."""
        if head is self._head:
            return
        self._head = head
        for batch in self._batches.values():
            batch.take(head)
        if reads_single_frames(head) and not self.workspace.read_only:
            head.save(self._folder / HEAD_FILE)

    def _check(self, head: Head) -> None:
        check_live_head(head, self.model, self.width)

    def _work(self) -> None:
        """Compute what waits, until closed."""
        while True:
            with self._changed:
                while not self._closed and not (due := self._due()):
                    self._changed.wait(self._patience())
                if self._closed:
                    return
            for number in due:
                with self._computing:
                    with self._changed:
                        self._renew()
                        frames = self._take(number)
                    if frames:
                        self._advance(self._batches[number], frames)

    def _renew(self) -> None:
        """Go over to what was learned meanwhile, where it fits."""
        found = self._given()
        if found is None or found is self._head:
            return
        try:
            self._check(found)
            self._use(found)
        except InputError as error:
            log.warning("the head of live streams stays: %s", error)

    def _due(self) -> list[int]:
        """Batches all of whose connected streams wait, or one of them long enough."""
        now, due = time.monotonic(), []
        for number in self._batches:
            members = [live for live in self._all.values() if live.batch == number]
            waiting = [live for live in members if live.waiting]
            ready = all(live.waiting or not live.connected for live in members)
            if waiting and (ready or now - min(live.since for live in waiting) >= GATHER):
                due.append(number)
        return due

    def _patience(self) -> float | None:
        since = [live.since for live in self._all.values() if live.waiting]
        return max(0.001, min(since) + GATHER - time.monotonic()) if since else None

    def _take(self, number: int) -> dict[Live, np.ndarray]:
        members = [live for live in self._all.values() if live.batch == number and live.waiting]
        return {live: live.take(AT_ONCE) for live in members}

    def _advance(self, batch: Batch, frames: Mapping[Live, np.ndarray]) -> None:
        """Compute frames of a batch, and tell what they are."""
        try:
            found, position = batch.advance({live.seat: rows for live, rows in frames.items()})
        except InputError as error:
            if len(frames) > 1:
                for live, rows in frames.items():
                    self._advance(batch, {live: rows})
                return
            with self._changed:
                for live in frames:
                    live.settle(False)
                    self._fail(live, one_line(error))
            return
        with self._changed:
            batch.position = position
            for live in frames:
                live.settle(True)
                self._dirty.add(live.batch)
                self._answer(live, found.get(live.seat, np.zeros((0, batch.head.classes), np.float32)), batch.head)
            self._changed.notify_all()

    def _answer(self, live: Live, probabilities: np.ndarray, head: Head) -> None:
        if not len(probabilities):
            return
        chosen: Sequence[int] = head.choose(torch.from_numpy(probabilities)).tolist()
        for step in live.answer(probabilities, chosen, head.name, self.timeline.seconds, time.monotonic()):
            self._metrics.observe(SECONDS, step["delay"])
            live.events.publish("step", step)
        self._metrics.add(FRAMES, len(chosen))

    def _fail(self, live: Live, message: str) -> None:
        log.warning("stream %s: %s", live.id, message)
        self.finish(live, message, failed=True)

    def _keep(self) -> None:
        """Save every few seconds, until closed."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, SAVE_SECONDS)
            self.save()

    def _size(self) -> float:
        with self._changed:
            return sum(batch.position.size_bytes for batch in self._batches.values())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def _recorded(self, number: int) -> dict[str, Any]:
        return {"streams": [live.record() for live in self._all.values() if live.batch == number]}

    def _restore(self) -> None:
        """Go on with what an earlier server saved; what does not fit any more is told and begun anew."""
        try:
            head = self._given() or load_head(self._folder / HEAD_FILE)
            self._check(head)
        except InputError as error:
            if any(self._folder.iterdir()):
                log.warning("the live streams of before cannot go on: %s", error)
            return
        self._head = head
        for path in sorted(self._folder.glob("[0-9]*.safetensors")):
            number = int(path.stem)
            try:
                batch, extra = Batch.load(path, self.model, head)
                records = checked(list[dict[str, Any]], extra.get("streams"), str(path))
                lives = [Live.restored(each, number, self.rate, self.pool, self.width) for each in records]
                if any(live.seat >= SEATS for live in lives) or len({live.seat for live in lives}) < len(lives):
                    raise InputError(f"{path}: two streams in one place, or in none")
            except InputError as error:
                log.warning("live streams that cannot go on: %s", error)
                continue
            if not lives:
                path.unlink()
                continue
            self._batches[number] = batch
            self._all |= {live.id: live for live in lives}
        for live in self.all():
            self._begin(live)
