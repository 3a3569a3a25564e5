"""``keystep stream``: predict the steps of a live stream, as JSON lines or in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from rich.console import Console

from keystep.cli.data import show_lines
from keystep.cli.live_view import LiveView
from keystep.cli.stream_output import FileOutput, Output, StandardOutput
from keystep.cli.stream_picture import StreamPicture
from keystep.errors import InputError, Interrupted, quoted
from keystep.files import check_apart, check_new, check_png, replacing
from keystep.foresight import load_forecaster
from keystep.heads import load_head
from keystep.loading import check_head, load
from keystep.locking import owning
from keystep.opening import SourceOptions, check_choice, open_source
from keystep.pjepa import PJEPA
from keystep.reading import Record, checked, parse_json, read_text
from keystep.stopping import unbroken
from keystep.stream import LiveSteps, Reading, Smoothing
from keystep.stream.live import OnGap
from keystep.stream.sources import Chunk
from keystep.terminal import json_text

SAVE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options of `keystep stream`; its ``--help`` describes them."""

    head: Path
    source: SourceOptions
    view: bool
    provisional: bool
    half_life: float
    hold: float
    on_gap: str
    threads: int
    state: Path | None
    out: Path | None
    picture: Path | None
    foresight: Path | None = None
    overwrite: bool = False


def stream_source(model_path: str, source: str, options: StreamOptions, messages: Console) -> None:
    """Stream a source through a model and a head until it ends or is interrupted; save the state if requested.

    Raises:
        InputError: if the source cannot be read, or the output or state cannot be written.
        Interrupted: after Ctrl-C or SIGTERM.
    """
    check_png(options.picture)
    check_apart((options.out, options.state, options.picture), (Path(source), options.head))
    torch.set_num_threads(options.threads)
    found = load(model_path)
    head = load_head(options.head)
    show_lines(check_head(head, found, str(options.head)), messages)
    forecaster = None if options.foresight is None else load_forecaster(options.foresight)
    if forecaster is not None:
        show_lines(check_head(forecaster, found, str(options.foresight)), messages)
    opened = open_source(source, head, found, options.source)
    if opened.note:
        messages.print(f"note: {opened.note}", soft_wrap=True, markup=False)
    _warn_of_growth(found, float(opened.timeline.rate), messages)
    on_gap = cast(OnGap, check_choice("--on-gap", options.on_gap, get_args(OnGap)))
    smoothing = Smoothing(options.half_life, options.hold)
    live = LiveSteps(found, head, opened.timeline, smoothing, on_gap, forecaster)
    with ExitStack() as stack:
        stack.enter_context(owning(options.out, options.state, options.picture))
        resumed = options.state is not None and options.state.exists()
        place = _resumed(live, source, options, messages)
        chunks = opened.chunks(live.state.frames, place)
        out = _output(options, live, stack, resumed=resumed)
        view = (
            stack.enter_context(LiveView(messages, f"{found.origin.source}, {source}", head, forecaster))
            if options.view
            else None
        )
        picture = None if options.picture is None else StreamPicture(options.picture, head, source, opened.video)
        runner = _Runner(live, out, view, picture, source, place, options, messages)
        runner.save()  # fail early if the path is not writable
        try:
            for chunk in chunks:
                runner.feed(chunk)
            runner.close()
        except KeyboardInterrupt:
            runner.save()
            hint = f"; resume with --state {options.state}" if options.state else ""
            raise Interrupted(f"stopped after frame {runner.safe.frames}{hint}") from None
        except (InputError, OSError) as error:
            raise runner.kept(error) from error
        finally:
            runner.report()
            for line in opened.remarks:
                messages.print(f"note: {line}", soft_wrap=True, markup=False)
            if picture is not None and picture.draw():
                messages.print(f"picture: {options.picture}", soft_wrap=True, markup=False)


class _StreamRecord(Record):
    """The field that is read back from a line of a stream's output."""

    frame: int


class _Place(Record):
    """The source of a stream and the position in it, as saved with the state."""

    source: str | None = None
    place: str | None = None


class _Runner:
    """Feeds chunks to the stream and writes its readings. ``safe`` is the state after the last written readings."""

    def __init__(
        self,
        live: LiveSteps,
        out: Output | None,
        view: LiveView | None,
        picture: StreamPicture | None,
        source: str,
        place: str | None,
        options: StreamOptions,
        messages: Console,
    ) -> None:
        self.live, self.out, self.view, self.picture = live, out, view, picture
        self.options, self.messages = options, messages
        self.source, self.place = source, place
        self.safe = live.state
        self.sealed = False
        """Whether the state on disk is final: later readings would change if more frames arrived."""
        self.seconds: list[float] = []
        self.making: list[float] = []
        """Seconds spent on feature extraction for each chunk, if features are extracted here."""
        self.first = live.state.frames
        self.began = self.saved = time.monotonic()
        self.latest = 0.0
        """Largest delay of a chunk behind real time in seconds (with --realtime)."""

    def feed(self, chunk: Chunk) -> None:
        """Process one chunk and write its readings."""
        if chunk.partial:
            self.seal()
        if self.options.source.realtime:
            self._wait(len(chunk.features))
        started = time.perf_counter()
        readings = self.live.feed(chunk.features, chunk.times)
        if self.options.provisional:
            readings += self.live.provisional()
        self.seconds.append(time.perf_counter() - started)
        self.making.append(chunk.seconds)
        with unbroken():  # output and state must stay consistent
            self._say(readings, self.seconds[-1] / max(1, len(chunk.features)))
            self.safe, self.place = self.live.state, chunk.place
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save_if_possible()

    def close(self) -> None:
        """Finish the stream. The saved state is that before the end, since the source may grow later."""
        self.seal()
        self._say(self.live.close(), 0.0)

    def seal(self) -> None:
        """Save the state for the last time."""
        self.save()
        self.sealed = True

    def save(self) -> None:
        """Save the state after the last written readings, if requested."""
        self.saved = time.monotonic()
        if self.options.state is not None and not self.sealed:
            extra = {"source": self.source, "place": self.place}
            self.live.save(self.options.state, extra, self.safe)

    def kept(self, error: InputError | OSError) -> Exception:
        """Save the state after an error; return the error with advice on how to resume."""
        if self.options.state is None:
            return error
        try:
            self.save()
        except InputError as second:
            both = dict.fromkeys([_text(error), str(second)])
            return InputError(f"{'; '.join(both)}; resume with the same --out, which drops surplus lines")
        return InputError(f"{_text(error)}; resume after frame {self.safe.frames} with --state {self.options.state}")

    def _save_if_possible(self) -> None:
        """Save the state; only warn on failure, since a temporarily full disk must not end a live stream."""
        try:
            self.save()
        except InputError as error:
            self.messages.print(f"warning: {error}", style="yellow", soft_wrap=True, markup=False)

    def report(self) -> None:
        """Print the number of frames and the speed."""
        frames, state = self.live.state.frames - self.first, self.live.state
        if not frames or not self.seconds:
            self.messages.print("no frames received")
            return
        p50, p99 = 1e3 * np.percentile(self.seconds, [50, 99])
        speed = frames / max(1e-9, sum(self.seconds) + sum(self.making))
        made = f", feature extraction {1e3 * np.median(self.making):.1f} ms" if any(self.making) else ""
        gaps = f", {state.gaps} gaps" if state.gaps else ""
        late = f"; up to {self.latest:.1f} s behind real time" if self.latest > 0.1 else ""
        self.messages.print(
            f"{frames} frames in {len(self.seconds)} chunks{gaps}; {p50:.1f} ms per chunk (99th percentile "
            f"{p99:.1f} ms){made}; {speed / self.live.rate:.0f} x real time{late}; "
            f"state {state.position.size_bytes / 2**20:.1f} MiB",
            soft_wrap=True,
        )

    def _wait(self, frames: int) -> None:
        """Wait until the last of the next frames is due."""
        due = self.began + (self.live.state.frames - self.first + frames) / self.live.rate
        self.latest = max(self.latest, time.monotonic() - due)
        time.sleep(max(0.0, due - time.monotonic()))

    def _say(self, readings: list[Reading], seconds: float) -> None:
        """Write readings without buffering; ``seconds`` is the computation time per frame."""
        if self.out is not None and readings:
            self.out.say("".join(f"{_line(reading, self.live)}\n" for reading in readings))
        if self.view is not None:
            self.view.show(readings, seconds)
        if self.picture is not None:
            self.picture.take(readings)


def _line(reading: Reading, live: LiveSteps) -> str:
    line: dict[str, object] = {
        "frame": reading.frame,
        "time": round(reading.time, 6),
        "step": live.head.name(reading.step),
        "probability": round(reading.probability, 4),
        "delay": round(reading.delay, 6),
        "final": reading.final,
    }
    if live.forecaster is not None and reading.forecast is not None:
        line["foresight"] = live.forecaster.records(reading.forecast)[0]
    return json_text(line)


def _text(error: InputError | OSError) -> str:
    return str(error) if isinstance(error, InputError) else error.strerror or str(error)


def _output(options: StreamOptions, live: LiveSteps, stack: ExitStack, *, resumed: bool) -> Output | None:
    """Return the output for JSON lines; None while the view uses the terminal.

    A resumed stream first removes the lines for frames that it will report again, perhaps all of them.
    """
    if options.out is None:
        return None if options.view and sys.stdout.isatty() else StandardOutput()
    there = options.out.is_file()
    if there and resumed:
        with replacing(options.out) as temporary:
            lines = _lines_before(options.out, live.state.frames - live.state.waiting)
            temporary.write_text("".join(lines), encoding="utf-8")
    elif there and options.out.stat().st_size:
        check_new(options.out, options.overwrite, "the lines of a stream")
    try:
        file = options.out.open("ab" if resumed and there else "wb", buffering=0)  # may be a pipe
    except OSError as error:
        raise InputError(f"{options.out}: cannot be written: {error.strerror}; nothing was changed") from error
    return FileOutput(options.out, stack.enter_context(file))


def _lines_before(out: Path, first: int) -> Iterator[str]:
    """Yield the complete lines of an output for frames before ``first``."""
    for number, line in enumerate(StringIO(read_text(out)), start=1):
        try:
            frame = checked(_StreamRecord, parse_json(line), str(out)).frame
        except ValueError as error:
            if not line.endswith("\n"):
                return  # cut off when the stream was killed
            raise InputError(f"{out}, line {number}: not output of keystep stream; choose another --out") from error
        if line.endswith("\n") and frame < first:
            yield line


def _resumed(live: LiveSteps, source: str, options: StreamOptions, messages: Console) -> str | None:
    """Resume the stream from ``--state``, if it exists; return the position in a growing folder."""
    if options.state is None or not options.state.exists():
        return None
    extra = checked(_Place, live.resume(options.state), str(options.state))
    if extra.source != source:
        raise InputError(
            f"{options.state}: the state of a stream from {quoted(extra.source)}, not {source!r}; give another --state"
        )
    messages.print(f"resuming after frame {live.state.frames} ({options.state})", soft_wrap=True, markup=False)
    return extra.place


def _warn_of_growth(found: PJEPA, rate: float, messages: Console) -> None:
    config = found.config
    pattern = config.stream_attention
    if pattern is not None and pattern.window is None:
        mebibytes = 2 * config.depth * config.dim * 4 * 3600 * rate / 2**20
        name = "attention" if pattern == config.attention else "live_attention"
        default = type(config).model_fields[name].default.model_dump()
        given = pattern.model_dump(exclude_none=True).items()
        settings = {key: value for key, value in given if value != default[key]} | {"window": 512}
        words = " ".join(f"--set model.{name}.{setting}={value}" for setting, value in settings.items())
        messages.print(
            f"note: this model attends to the whole past, so its state grows by {mebibytes:.0f} MiB per hour at "
            f"{rate:g} Hz and each step takes longer; for long streams, pretrain with a window ({words})",
            soft_wrap=True,
        )
