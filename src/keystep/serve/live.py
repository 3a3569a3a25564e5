"""One live stream: frames that wait, frames that wait for the end of their block, and what was said last."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from pydantic import Field, StringConstraints

from keystep.data.slots import pool_mean
from keystep.errors import InputError
from keystep.reading import Record, checked
from keystep.serve.events import Events
from keystep.serve.schema import Source, StreamStep

WAITING = 256
"""Frames that may wait for their turn; of more, the oldest are dropped."""
AT_ONCE = 32
"""Frames of a stream that are computed together."""
FASTEST = 8
"""How many times as fast as its rate a stream may be pushed for long; `BURST` frames more at first."""
BURST = 256
LIKELIEST = 3
Count = Annotated[int, Field(ge=0, le=2**53)]


class LiveRecord(Record):
    """What is kept of a stream, see `Live`; ``open``: the frames that wait for the end of their block."""

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, StringConstraints(max_length=200)]
    seat: Annotated[int, Field(ge=0)]
    answered: Count
    dropped: Count
    over: bool
    failed: bool
    message: str
    last: StreamStep | None
    source: Source
    next: Count
    open: list[Count]


@dataclass(eq=False)
class Live:
    """A stream; whoever calls its methods holds the lock of `keystep.serve.streams.Streams`.

    Attributes:
        id, name, source: what tells it apart, what people call it, and where its frames come from, as it was asked for.
        batch, seat: where its state is.
        rate: frames a second. pool: rows that are averaged to a frame. width: numbers of a row.
        next: index of the next frame that is to come. answered, dropped: counts.
        since: when the oldest frame that waits has come. connected: whether anybody feeds it now.
        over: no frame is taken any more; message: why.
    """

    id: str
    name: str
    source: Mapping[str, Any]
    batch: int
    seat: int
    rate: float
    pool: int
    width: int
    next: int = 0
    answered: int = 0
    dropped: int = 0
    connected: bool = False
    over: bool = False
    failed: bool = False
    message: str = ""
    last: dict[str, Any] | None = None
    events: Events = field(default_factory=Events)
    _waiting: deque[tuple[int, float, np.ndarray]] = field(default_factory=deque)
    _taken: list[tuple[int, float]] = field(default_factory=list)
    _open: deque[tuple[int, float]] = field(default_factory=deque)
    _rest: list[np.ndarray] = field(default_factory=list)
    _credit: float = BURST
    _counted: float = 0.0

    @property
    def waiting(self) -> int:
        """Frames that wait for their turn."""
        return len(self._waiting)

    @property
    def since(self) -> float:
        """When the oldest of them came."""
        return self._waiting[0][1]

    @property
    def pushed(self) -> bool:
        """Whether a client feeds it."""
        return bool(self.source["kind"] == "push")

    @property
    def pictures(self) -> float | None:
        """Pictures a second of a stream of JPEGs; None for others."""
        return self.source["rate"] if self.source.get("format") == "jpeg" else None

    @property
    def state(self) -> str:
        """In a word."""
        if self.over:
            return "failed" if self.failed else "ended"
        return "live" if self.connected else "waiting"

    def pooled(self, rows: np.ndarray) -> np.ndarray:
        """(m, D) frames of (n, D) rows; what makes no whole frame waits for more."""
        if self.pool == 1:
            return rows
        self._rest += [*rows]
        whole = len(self._rest) // self.pool * self.pool
        frames = pool_mean(np.stack(self._rest[:whole]), self.pool) if whole else rows[:0]
        self._rest = self._rest[whole:]
        return frames

    def put(self, frames: np.ndarray, now: float) -> int:
        """Take frames, (n, D); returns how many were dropped for them."""
        self._waiting += [(self.next + index, now, frame) for index, frame in enumerate(frames)]
        self.next += len(frames)
        lost = max(0, len(self._waiting) - WAITING)
        for _ in range(lost):
            self._waiting.popleft()
        self.dropped += lost
        return lost

    @property
    def rows(self) -> int:
        """Rows that have come."""
        return self.next * self.pool + len(self._rest)

    def skip(self, frame: int) -> int:
        """Go on with a later frame; returns how many are missing.

        Raises:
            InputError: it has come already.
        """
        missing = frame - self.next
        if missing < 0:
            raise InputError(f"frame {frame} has come already; go on with frame {self.next}")
        self.next, self._rest = frame, [] if missing else self._rest
        self.dropped += missing
        return missing

    def pay(self, frames: float, now: float) -> None:
        """Count frames against the rate.

        Raises:
            InputError: they come too fast.
        """
        most = FASTEST * self.rate
        self._credit = min(BURST, self._credit + (now - self._counted) * most)
        self._counted = now
        if frames > self._credit:
            raise InputError(f"more than {most:g} frames a second; send slower")
        self._credit -= frames

    def take(self, count: int) -> np.ndarray:
        """(n, D) of the frames that wait, at most ``count``."""
        taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        self._taken = [(frame, since) for frame, since, _ in taken]
        return np.stack([row for _, _, row in taken])

    def settle(self, kept: bool) -> None:
        """The frames that were taken are in the state, and open until they are answered; or they are lost."""
        if kept:
            self._open += self._taken
        else:
            self.dropped += len(self._taken)
        self._taken = []

    def answer(
        self,
        probabilities: np.ndarray,
        chosen: Sequence[int],
        name: Callable[[int], str],
        seconds: Callable[[int], Fraction],
        now: float,
    ) -> Iterator[dict[str, Any]]:
        """What is said of the oldest open frames; (n, C) probabilities, and the classes chosen by them."""
        for row, step in zip(probabilities, chosen, strict=True):
            frame, since = self._open.popleft()
            best = np.argsort(-row, kind="stable")[:LIKELIEST].tolist()
            self.answered += 1
            self.last = {
                "frame": frame,
                "time": round(float(seconds(frame)), 6),
                "step": name(step),
                "probability": round(float(row[step]), 4),
                "probabilities": {name(each): round(float(row[each]), 4) for each in best},
                "delay": round(now - since, 6),
            }
            yield self.last

    def record(self) -> dict[str, Any]:
        """What a restart needs. Frames that wait are not in the state: they are asked for again."""
        first = next((frame for frame, *_ in (*self._taken, *self._waiting)), self.next)
        kept = ("id", "name", "seat", "answered", "dropped", "over", "failed", "message", "last")
        return {
            **{name: getattr(self, name) for name in kept},
            "source": dict(self.source),
            "next": first,
            "open": [frame for frame, _ in self._open],
        }

    @classmethod
    def restored(cls, record: Mapping[str, Any], batch: int, rate: float, pool: int, width: int) -> Live:
        """The stream of a `record`.

        Raises:
            InputError: not what `record` gives.
        """
        found = checked(LiveRecord, record, "a live stream").model_dump(exclude={"open"})
        found["source"] = {name: value for name, value in found["source"].items() if value is not None}
        live = cls(**found, batch=batch, rate=rate, pool=pool, width=width)
        live._open = deque((frame, time.monotonic()) for frame in record["open"])
        return live
