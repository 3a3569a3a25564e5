"""Opening what features come from (files, videos, cameras, standard input): at which rate, and what they saw."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from keystep.data.timeline import Timeline
from keystep.errors import InputError, one_line
from keystep.heads import Head
from keystep.pjepa import PJEPA
from keystep.plugins import allow, specs_in
from keystep.reading import parse_json, read_json
from keystep.stream import sources
from keystep.stream.sources import Chunk
from keystep.types import parse_rate

if TYPE_CHECKING:
    from keystep.extraction.config import ExtractionConfig
    from keystep.extraction.extractor import Extractor
    from keystep.extraction.video.camera import LiveInput
    from keystep.extraction.video.files import VideoFile


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the source was described on the command line; see ``keystep stream --help``."""

    source_rate: str | None = None
    rate: str | None = None
    chunk: int | None = None
    input_format: str = "jsonl"
    idle: float = 30.0
    realtime: bool = False
    keeps_state: bool = False
    backbone: str | None = None
    window: str | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class Source:
    """An opened source.

    timeline: of what the model is fed. chunks: (frames that were fed before, place in a growing folder) -> what comes.
    video: the file, where it is one. note: what a person should know of it. remarks: what turned out to be odd about a
        video file; there once all of it was read.
    """

    timeline: Timeline
    chunks: Callable[[int, str | None], Iterator[Chunk]]
    video: Path | None = None
    note: str = ""
    remarks: list[str] = field(default_factory=list)


def open_source(source: str, head: Head, found: PJEPA, options: SourceOptions) -> Source:
    """The source that a name stands for: ``-``, a feature file, a folder that grows, a video, a camera.

    Raises:
        InputError: there is none of that name, or nothing says its rate or how its features are made.
    """
    if _is_video(source):
        return _video(source, head, found, options)
    path = Path(source)
    if source != "-" and not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a feature file (.npy), a folder, a video, a camera, or -"
        )
    timeline, pool = _timeline(head, found, source, options)
    width = found.config.input_dim
    assert width is not None
    if source == "-":
        form = check_choice("--input-format", options.input_format, get_args(sources.Format))
        lines = form == "jsonl"
        return Source(timeline, lambda frames, place: sources.pool_chunks(_standard_input(lines, width), pool))
    if path.is_dir():
        if pool > 1 and options.keeps_state:
            raise InputError("--state with a growing folder needs features at the model's rate: groups span files")
        return Source(
            timeline,
            lambda frames, place: sources.pool_chunks(sources.from_growing(path, width, options.idle, place), pool),
        )
    size = options.chunk or (1 if options.realtime else 32)

    def chunks(frames: int, place: str | None) -> Iterator[Chunk]:
        read = sources.from_array(path, width, size * pool)
        return sources.pool_chunks(sources.skip_frames(read, frames * pool), pool)

    return Source(timeline, chunks)


def check_choice(option: str, value: str, known: tuple[str, ...]) -> str:
    """Check the value of an option with a fixed set of values."""
    if value not in known:
        raise InputError(f"unknown {option} {value!r}; expected one of {', '.join(known)}")
    return value


def _standard_input(lines: bool, width: int) -> Iterator[Chunk]:
    return sources.from_lines(sys.stdin, width) if lines else sources.from_bytes(sys.stdin.buffer, width)


def _timeline(head: Head, found: PJEPA, source: str, options: SourceOptions) -> tuple[Timeline, int]:
    """The timeline of what the model is fed, and how many source frames make one of its frames.

    The source's own timeline comes from the store.json of the folder that it lies in, else from ``--source-rate``;
    features at the rate that the head was fitted at are taken to be made as those were.

    Raises:
        InputError: nothing says the source's rate. A guess would put every answer at a wrong time.
    """
    fitted = _fitted(head)
    known = _model_rate(head, found, options)
    given = None if options.source_rate is None else parse_rate(options.source_rate)
    store = Path(source).parents[1] / "store.json" if Path(source).parent.name == "features" else None
    stated = read_json(store).get("timeline") if store is not None and store.exists() else None
    if stated is not None:
        own = Timeline.from_json(stated)
        if given not in (None, own.rate):
            raise InputError(f"{store}: says {own.rate} Hz, --source-rate says {given}; drop one")
    elif given is None:
        name = "standard input" if source == "-" else source
        works = "" if known is None else f" (the model works at {float(known):g})"
        raise InputError(f"{name}: no store.json states the rate of the features; give it with --source-rate 30{works}")
    elif fitted is not None and given == fitted.rate and known == given:
        return fitted, 1
    else:
        own = Timeline(rate=given)
    pool = 1 if known is None else own.pool_factor(known)
    return own.pooled(pool), pool


def _fitted(head: Head) -> Timeline | None:
    """What the head was fitted on."""
    return Timeline.from_json(_said(head, "timeline")) if "timeline" in head.origin else None


def _said(head: Head, name: str) -> Any:
    """What the head's record says of its origin, as plain data."""
    try:
        return parse_json(head.origin[name])
    except ValueError as error:
        raise InputError(f"the head's record of its {name} is damaged; evaluate again: {one_line(error)}") from error


def _model_rate(head: Head, found: PJEPA, options: SourceOptions) -> Fraction | None:
    """Frames a second that the model works at, where anything says so."""
    fitted = _fitted(head)
    known = options.rate or (str(fitted.rate) if fitted else head.origin.get("rate") or found.origin.rate)
    return None if known is None else parse_rate(known)


def _is_video(source: str) -> bool:
    """A camera's number, an address, or a file that is no array."""
    if source.isdecimal() or "://" in source:
        return True
    return source != "-" and Path(source).is_file() and Path(source).suffix != ".npy"


def _video(source: str, head: Head, found: PJEPA, options: SourceOptions) -> Source:
    from keystep.extraction.video import open_video
    from keystep.extraction.video.camera import open_camera

    extractor = extractor_of(head, options)
    if extractor.width != found.config.input_dim:
        raise InputError(
            f"{extractor.name} gives features {extractor.width} wide; {found.origin.source} reads "
            f"{found.config.input_dim}"
        )
    known = _model_rate(head, found, options)
    pool = 1 if known is None else extractor.timeline.pool_factor(known)
    ahead = extractor.timeline.look_ahead
    note = f"the features look {float(ahead):.2f} s ahead, and answers wait for it (extract: --window right does not)"
    path = None if source.isdecimal() or "://" in source else Path(source)
    if path is None and options.keeps_state:
        raise InputError("--state: a live camera begins anew each time, so nothing can go on with it; leave it out")

    remarks, jump = list[str](), _extraction(head, options).jump

    def chunks(frames: int, place: str | None) -> Iterator[Chunk]:
        opened = open_camera(source) if path is None else open_video(path, jump)
        read = _from_video(opened, extractor, frames * pool, options.chunk or 1, remarks)
        return sources.pool_chunks(read, pool, extractor.timeline.alignment)

    return Source(extractor.timeline.pooled(pool), chunks, path, note if ahead else "", remarks)


def extractor_of(head: Head, options: SourceOptions) -> Extractor:
    """The extractor that made the features which the head was fitted on, or the one that the options describe.

    Raises:
        InputError: neither says it, or there are no such weights.
    """
    import torch

    from keystep.extraction.loading import load_extractor

    config, recorded = _extraction(head, options), _recorded(head)
    extractor = load_extractor(config, options.weights, "cuda" if torch.cuda.is_available() else "cpu")
    if recorded and extractor.weights != recorded["weights"]:
        raise InputError(
            f"{config.backbone}: these weights ({extractor.weights[:12]}...) are not those of the head's features "
            f"({recorded['weights'][:12]}...); give the same file with --weights"
        )
    return extractor


def _extraction(head: Head, options: SourceOptions) -> ExtractionConfig:
    """The settings that made the features which the head was fitted on, or those that the options describe."""
    from keystep.config.base import build
    from keystep.extraction.config import ExtractionConfig
    from keystep.extraction.loading import is_foreign

    allow(*specs_in(options.backbone))
    recorded = _recorded(head)
    given = {"backbone": options.backbone, "window": options.window, "rate": options.source_rate}
    given = {name: value for name, value in given.items() if value is not None}
    if recorded:
        config = build(ExtractionConfig, recorded["extraction"])
        asked = build(ExtractionConfig, recorded["extraction"], given)
        if asked != config:
            raise InputError(
                f"the head was fitted on features of {config.backbone}, {config.rate} Hz, window {config.window}; "
                "leave --backbone, --source-rate and --window out"
            )
        if is_foreign(config.backbone) and options.backbone is None:  # a file must not decide which code runs
            raise InputError(
                f"the head's features were made by {config.backbone}; give --backbone {config.backbone} if you trust it"
            )
    elif "backbone" not in given or "rate" not in given:
        raise InputError("the head does not say how its features were made; give --backbone NAME and --source-rate 4")
    else:
        config = build(ExtractionConfig, {"window": "right"}, given)
    return config


def _recorded(head: Head) -> dict[str, Any]:
    """How the features that the head was fitted on were made, and with which weights; empty where it does not say."""
    recorded = _said(head, "extraction") if "extraction" in head.origin else {}
    if recorded == {}:
        return {}
    if not (
        isinstance(recorded, dict)
        and isinstance(recorded.get("extraction"), dict)
        and isinstance(recorded.get("weights"), str)
    ):
        raise InputError("the head's record of how its features were made is damaged; evaluate again")
    return recorded


def _from_video(
    video: VideoFile | LiveInput, extractor: Extractor, skipped: int, batch: int, remarks: list[str]
) -> Iterator[Chunk]:
    """Features of a video file or a live camera, as soon as they can be known. remarks: gets what is odd of a file."""
    from itertools import chain

    from keystep.extraction.video.files import VideoFile

    frames, live = video.frames(), not isinstance(video, VideoFile)
    head = next(frames, None)
    if head is None:
        return
    timeline = extractor.timeline
    first = max(0, ceil((head.time - head.slack - timeline.start) * timeline.rate)) + skipped
    hold = Fraction(3, 2) / timeline.rate if live else None
    made = extractor.stream(chain([head], frames), first_slot=first, longest_hold=hold, batch=batch)
    while True:
        began = time.perf_counter()
        features = next(made, None)
        if features is None:
            remarks += [*video.damage, *video.notes] if isinstance(video, VideoFile) else []
            return
        spent = 0.0 if live else time.perf_counter() - began
        yield Chunk(features.features, features.times.tolist(), seconds=spent)
