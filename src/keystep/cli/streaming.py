"""``keystep stream``: steps as they happen, as JSON lines or in the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, cast, get_args

import numpy as np
import torch
from rich.console import Console

from keystep.cli.live_view import LiveView
from keystep.cli.models import FoundModel, find_model, head_of
from keystep.data.timeline import Timeline, parse_rate
from keystep.errors import InputError, Interrupted
from keystep.heads import LinearHead
from keystep.stream import LiveSteps, Reading, Smoothing, sources
from keystep.stream.live import OnGap
from keystep.stream.sources import Chunk

SAVE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What `keystep stream` was asked to do; see its ``--help``."""

    head: Path
    source_rate: str | None
    rate: str | None
    chunk: int | None
    input_format: str
    idle: float
    realtime: bool
    view: bool
    provisional: bool
    half_life: float
    hold: float
    on_gap: str
    threads: int
    state: Path | None
    out: Path | None


def stream_source(model_path: str, source: str, options: StreamOptions, messages: Console) -> None:
    """Read, step, write, until the source ends or Ctrl-C; the state is saved where that was asked for."""
    torch.set_num_threads(options.threads)
    found = find_model(model_path)
    head = head_of(found, options.head, messages)
    timeline, pool = _timeline(head, found, options)
    live = LiveSteps(
        found.model,
        head,
        timeline,
        Smoothing(options.half_life, options.hold),
        cast(OnGap, _one_of("--on-gap", options.on_gap, get_args(OnGap))),
    )
    if options.state is not None and options.state.exists():
        live.resume(options.state)
        messages.print(f"going on behind frame {live.frames} ({options.state})", soft_wrap=True, markup=False)
    chunks = _chunks(source, live, pool, options)
    with ExitStack() as stack:
        out = _output(options, stack)
        view = stack.enter_context(LiveView(messages, f"{found.source}, {source}", head)) if options.view else None
        runner = _Runner(live, out, view, options)
        try:
            for chunk in chunks:
                runner.feed(chunk)
            runner.close()
        except KeyboardInterrupt:
            said = f"; go on with --state {options.state}" if options.state else ""
            raise Interrupted(f"stopped after frame {live.frames}{said}") from None
        finally:
            runner.save()
            runner.report(messages)


class _Runner:
    """Feeds the stream and hands on what it says."""

    def __init__(self, live: LiveSteps, out: IO[str] | None, view: LiveView | None, options: StreamOptions) -> None:
        self.live, self.out, self.view, self.options = live, out, view, options
        self.seconds: list[float] = []
        self.first = live.frames
        self.began = self.saved = time.monotonic()
        self.latest = 0.0
        """Most seconds that a chunk came later than its pace (with --realtime)."""

    def feed(self, chunk: Chunk) -> None:
        """One chunk through the model, and its readings out."""
        if self.options.realtime:
            self._wait(len(chunk.features))
        started = time.perf_counter()
        readings = self.live.feed(chunk.features, chunk.times)
        if self.options.provisional:
            readings += self.live.provisional()
        seconds = time.perf_counter() - started
        self.seconds.append(seconds)
        self._say(readings, seconds)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def close(self) -> None:
        """The source has ended."""
        self._say(self.live.close(), 0.0)

    def save(self) -> None:
        """Keep the state, where that was asked for."""
        self.saved = time.monotonic()
        if self.options.state is not None:
            self.live.save(self.options.state)

    def report(self, messages: Console) -> None:
        """How many frames, how fast."""
        frames = self.live.frames - self.first
        if not frames:
            messages.print("no frames came")
            return
        p50, p99 = 1e3 * np.percentile(self.seconds, [50, 99])
        speed = frames / max(1e-9, sum(self.seconds))
        gaps = f", {self.live.gaps} gaps" if self.live.gaps else ""
        late = f"; up to {self.latest:.1f} s behind the pace" if self.latest > 0.1 else ""
        messages.print(
            f"{frames} frames in {len(self.seconds)} chunks{gaps}; a chunk took {p50:.1f} ms (99 %: {p99:.1f} ms); "
            f"{speed / self.live.rate:.0f} x real time{late}; state {self.live.state.size_bytes / 2**20:.1f} MiB",
            soft_wrap=True,
        )

    def _wait(self, frames: int) -> None:
        """Until the last of the next frames would have come."""
        due = self.began + (self.live.frames - self.first + frames) / self.live.rate
        self.latest = max(self.latest, time.monotonic() - due)
        time.sleep(max(0.0, due - time.monotonic()))

    def _say(self, readings: list[Reading], seconds: float) -> None:
        if self.out is not None:
            for reading in readings:
                print(_line(reading, self.live.head), file=self.out, flush=True)
        if self.view is not None:
            self.view.show(readings, seconds)


def _line(reading: Reading, head: LinearHead) -> str:
    return json.dumps(
        {
            "frame": reading.frame,
            "time": round(reading.time, 6),
            "step": head.name(reading.step),
            "probability": round(reading.probability, 4),
            "delay": round(reading.delay, 6),
            "final": reading.final,
        },
        ensure_ascii=False,
    )


def _output(options: StreamOptions, stack: ExitStack) -> IO[str] | None:
    """Where the JSON lines go; nowhere while the view has the terminal."""
    if options.out is not None:
        return stack.enter_context(options.out.open("a" if options.state else "w", encoding="utf-8"))
    return None if options.view and sys.stdout.isatty() else sys.stdout


def _chunks(source: str, live: LiveSteps, pool: int, options: StreamOptions) -> Iterator[Chunk]:
    width = live.model.config.input_dim
    assert width is not None
    if source == "-":
        form = _one_of("--input-format", options.input_format, get_args(sources.Format))
        read = sources.from_lines(sys.stdin, width) if form == "jsonl" else sources.from_bytes(sys.stdin.buffer, width)
        return sources.pooled(read, pool)
    path = Path(source)
    if path.is_dir():
        read = sources.from_growing(path, width, options.idle)
    elif path.exists():
        size = options.chunk or (1 if options.realtime else 32)
        read = sources.from_array(path, width, size * pool)
    else:
        raise InputError(f"{path}: no such file or folder; give a feature file (.npy), a folder that grows, or -")
    return sources.pooled(sources.skipping(read, live.frames * pool), pool)


def _timeline(head: LinearHead, found: FoundModel, options: StreamOptions) -> tuple[Timeline, int]:
    """The timeline of what the model is fed, and how many source frames make one of its frames."""
    known = head.origin.get("rate") or found.rate
    rate = options.rate or known or options.source_rate
    if rate is None:
        raise InputError("at how many features a second? neither model nor head says; give --rate 4")
    source: Fraction = parse_rate(options.source_rate or rate)
    timeline = Timeline(rate=source)
    pool = timeline.pool_factor(parse_rate(rate))
    return timeline.pooled(pool), pool


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InputError(f"{option} {value!r} is none of {', '.join(known)}")
    return value
