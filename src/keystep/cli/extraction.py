"""``keystep extract``: features of raw videos, finished videos never twice."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from keystep.cli.base import print_next
from keystep.cli.progress import VideoProgress, counting
from keystep.cli.stopping import stopping_on_terminate
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError, Interrupted, one_line
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Writing
from keystep.extraction.labels import RECORD, FrameLabels
from keystep.extraction.listing import find_videos
from keystep.extraction.loading import load_extractor
from keystep.extraction.processes import extract_videos
from keystep.extraction.video import open_video
from keystep.files import write_json


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """What `keystep extract` was asked to do besides its settings; see its ``--help``."""

    videos: tuple[Path, ...]
    out: Path
    weights: Path | None = None
    labels: FrameLabels | None = None
    workers: int = 1
    shard: str | None = None
    device: str | None = None
    on_error: str = "raise"
    recursive: bool = False


@dataclass(frozen=True)
class MakeExtractor:
    """Loads the backbone in a worker process; worker i takes GPU i."""

    config: ExtractionConfig
    weights: Path | None
    device: str | None

    def __call__(self, worker: int) -> Extractor:
        """The extractor of worker ``worker``."""
        return load_extractor(self.config, self.weights, self.device_of(worker))

    def device_of(self, worker: int) -> str:
        """Where worker ``worker`` computes."""
        if self.device is not None:
            return self.device
        return f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class _Facts:
    """What has to be known of an extractor without having it in memory."""

    weights: str
    width: int
    sees: int
    timeline: Timeline

    @classmethod
    def of(cls, extractor: Extractor) -> _Facts:
        return cls(extractor.weights, extractor.width, extractor.sees, extractor.timeline)


@dataclass
class _Run:
    """How far the videos are. others: in other shards. done: there already. bad: cannot be read."""

    videos: dict[str, Path]
    waiting: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    others: int = 0
    done: int = 0
    bad: int = 0
    notes: list[str] = field(default_factory=list)


def extract_folder(config: ExtractionConfig, options: ExtractOptions, console: Console) -> None:
    """Extract what is not there yet; the folder is sound after every video.

    Raises:
        InputError: see `extract_videos`, and all that can be told to be impossible before.
        Interrupted: Ctrl-C or SIGTERM; what was finished is kept.
    """
    try:
        with stopping_on_terminate():
            _extract(config, options, console)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; run again to go on with what is missing in {options.out}") from None


def _extract(config: ExtractionConfig, options: ExtractOptions, console: Console) -> None:
    problems, labels = Problems(options.on_error), options.labels
    run = _Run(find_videos(options.videos, options.recursive))
    share = _share(run.videos, options.shard)
    run.others = len(run.videos) - len(share)
    without = [] if labels is None else labels.missing(run.videos)
    if without:
        run.notes.append(f"no labels for {len(without)} of {len(run.videos)} videos, such as {without[0]}")
    _check_device(options.device)
    make = MakeExtractor(config, options.weights, options.device)
    here = None if options.workers > 1 else make(0)  # before anything is written: weights that do not fit show now
    facts = _facts(make) if here is None else _Facts.of(here)
    store = FeatureStore(options.out, facts.timeline, provenance=_provenance(config, facts)).create()
    writing = Writing(store, config.half, labels, _batch(facts, make.device_of(0)))
    _look(run, share, writing, problems, console)
    if run.waiting:
        store.reopen()
    if labels is not None:
        run.notes += labels.take_along(options.out)
        _label_finished(run, share, writing, problems)
    elif (options.out / RECORD).exists() and run.waiting:
        run.notes.append(f"{options.out} has labels; without --labels, the videos of this run get none")
    console.print(_plan(run, facts, config), soft_wrap=True, markup=False)
    with VideoProgress(console, run.waiting, run.seconds) as progress:
        ready = make if here is None else partial(_ready, here)
        outcomes = extract_videos(writing, run.waiting, ready, problems, progress.advance, options.workers)
        with closing(outcomes):  # which ends the workers
            for outcome in outcomes:
                progress.finished(outcome.name)
                run.notes += outcome.notes
    _conclude(run, writing, problems, facts, console)


def _facts(make: MakeExtractor) -> _Facts:
    """Load what the workers are going to load, see that it fits, and let go of it."""
    facts = _Facts.of(make(0))
    torch.cuda.empty_cache()
    return facts


def _ready(extractor: Extractor, worker: int) -> Extractor:
    return extractor


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` as (2, 8): the second of eight shares."""
    part, slash, of = text.partition("/")
    if not (slash and part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise InputError(f"--shard {text!r} is not I/N with I from 1 to N, such as 2/8")
    return int(part), int(of)


def _share(videos: dict[str, Path], shard: str | None) -> dict[str, Path]:
    """Every n-th video, so that n machines with the same command share the work."""
    if shard is None:
        return videos
    part, of = parse_shard(shard)
    return {name: videos[name] for name in sorted(videos)[part - 1 :: of]}


def _check_device(device: str | None) -> None:
    """Refuse a device that is not there, before weights are loaded."""
    if device is None:
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        said = one_line(str(error).partition("\n")[0], 120)
        raise InputError(f"--device {device}: not to be had here ({said}); give another, or leave it out") from error


def _look(run: _Run, share: dict[str, Path], writing: Writing, problems: Problems, console: Console) -> None:
    """Open every video that is to be done and read its labels: what is bad shows before hours of work."""
    with counting(console, "looking at videos", len(share)) as tick:
        for name, path in share.items():
            seconds = problems.attempt(name, lambda name=name, path=path: _seconds(run, writing, name, path))  # type: ignore[misc]
            if seconds is not None:
                run.waiting[name], run.seconds[name] = path, seconds
            tick(name)
    run.bad = len(problems.skipped)
    run.done = len(share) - len(run.waiting) - run.bad


def _seconds(run: _Run, writing: Writing, name: str, path: Path) -> float | None:
    """Stated seconds (0: not stated) of a video that is to be done; None if it is done already."""
    state = writing.state(name, path)
    if state == "done":
        return None
    info = open_video(path).info
    if writing.labels is not None and writing.labels.has(name):
        writing.labels.check(name, info)
    if state == "changed":
        run.notes.append(f"{name}: {path} has changed since it was extracted; done again")
    return float(info.duration or 0)


def _label_finished(run: _Run, share: Collection[str], writing: Writing, problems: Problems) -> None:
    """Labels of the videos that were there before, which may have had none, or others."""
    for name in share:
        if name not in run.waiting and name not in problems.skipped:
            run.notes += problems.attempt(name, lambda name=name: writing.label(name)) or []  # type: ignore[misc]


def _provenance(config: ExtractionConfig, facts: _Facts) -> dict[str, Any]:
    """What made the features: `keystep stream` builds the same extractor of it."""
    tokens = {"tokens": config.grid**2} if config.grid > 1 else {}
    return {"extraction": config.model_dump(mode="json"), "weights": facts.weights, **tokens}


def _batch(facts: _Facts, device: str) -> int:
    """Clips at a time: enough pictures to keep the machine busy, few enough to stay small."""
    pictures = 16 if device == "cpu" else 128
    return max(1, pictures // facts.sees)


def _plan(run: _Run, facts: _Facts, config: ExtractionConfig) -> str:
    """One line: what is going to be done, and what the features will have seen."""
    timeline = facts.timeline
    ahead = f"looks {float(timeline.look_ahead):.2f} s ahead" if timeline.look_ahead else "sees no future"
    pictures = "1 picture" if facts.sees == 1 else f"{facts.sees} pictures"
    rest = {"done": run.done, "bad": run.bad, "of other shards": run.others}
    return (
        f"{config.backbone}, {facts.width} wide, {float(timeline.rate):g} Hz, {pictures} a vector, window "
        f"{config.window}: {ahead}; {len(run.waiting)} videos to do"
        + "".join(f", {count} {what}" for what, count in rest.items() if count)
    )


def _conclude(run: _Run, writing: Writing, problems: Problems, facts: _Facts, console: Console) -> None:
    """Write down what was left out, say whether all is there, and print what came of it."""
    out = writing.store.root
    for name, reason in problems.skipped.items():
        write_json(out / "skipped" / f"{name}.json", {"reason": reason})
    done = [name for name in run.videos if (out / "features" / f"{name}.npy").exists()]
    for name in done:
        if name not in problems.skipped:
            (out / "skipped" / f"{name}.json").unlink(missing_ok=True)
    if all(name in done or (out / "skipped" / f"{name}.json").exists() for name in run.videos):
        writing.store.finish()
    for line in run.notes:
        console.print(f"note: {line}", style="yellow", soft_wrap=True, markup=False)
    if problems.skipped:
        some = ", ".join(list(problems.skipped)[:5]) + (", ..." if len(problems.skipped) > 5 else "")
        line = f"left out: {len(problems.skipped)} videos ({some}); {out / 'skipped'} says why"
        console.print(line, style="yellow", soft_wrap=True, markup=False)
    console.print(f"{out}: {len(done)} of {len(run.videos)} videos, {facts.width} wide", soft_wrap=True, markup=False)
    if done:
        print_next("inspect", out)
