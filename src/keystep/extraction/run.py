"""`extract` writes the features of many videos to one folder; finished videos are skipped."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from keystep.config.base import build
from keystep.data.layout import video_records
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore, Sink
from keystep.data.timeline import Timeline
from keystep.engines import Engine, Local
from keystep.errors import InputError, one_line
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Writing
from keystep.extraction.labels import RECORD, FrameLabels, Lengths
from keystep.extraction.listing import check_name, find_videos, ignored_files
from keystep.extraction.video import open_video
from keystep.extraction.work import Extraction, MakeExtractor, extract_videos
from keystep.files import write_json
from keystep.locking import owning
from keystep.plugins import allow, specs_in
from keystep.progress import SILENT, Progress, Task
from keystep.types import AnyRate, OnError, Tabular, parse_rate


@dataclass(frozen=True)
class Extracted(Tabular):
    """Feature folder written by `extract`.

    Attributes:
        root: the folder; `keystep.open_dataset` reads it.
        videos: names of the requested videos whose features are in it.
        asked: number of requested videos, including those of other shards.
        width: size of a feature vector.
        skipped: name of each video that was skipped -> reason.
        warnings: lines for the user, such as about videos without labels.
    """

    root: Path
    videos: tuple[str, ...]
    asked: int
    width: int
    skipped: dict[str, str]
    warnings: tuple[str, ...]

    def to_records(self) -> list[dict[str, Any]]:
        """One record per video that is in the folder or was skipped: its name, its features, and why it was skipped."""
        return video_records(self.root, self.videos, self.skipped)

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"Extracted({str(self.root)!r}, {len(self.videos)} of {self.asked} videos{skipped})"


def extract(
    videos: Path | str | Iterable[Path | str],
    backbone: str = "efficientnet-lite0",
    *,
    out: Path | str,
    rate: AnyRate = 4,
    window: str = "center",
    half: bool = False,
    settings: Mapping[str, Any] | None = None,
    weights: Path | str | None = None,
    labels: Path | str | None = None,
    label_rate: AnyRate | None = None,
    engine: Engine | None = None,
    sink: Sink = "folder",
    shard: str | None = None,
    device: str | None = None,
    recursive: bool = False,
    on_error: OnError | str = "raise",
    progress: Progress = SILENT,
) -> Extracted:
    """Extract features from videos. The folder is consistent after every video, and an interrupted run is resumed.

    Args:
        videos: video files, folders of them, or lists (``*.txt``, a path on each line).
        backbone: a name listed by ``keystep plugins``, ``hf:FOLDER_OR_ID``, or ``package.module:name``.
        out: the feature folder to write; finished videos in it are skipped.
        rate: feature vectors per second.
        window: clip position, ``center`` (around each time) or ``right`` (ends there, as live streams need).
        half: store float16 instead of float32.
        settings: further settings of `ExtractionConfig`, such as ``{"frames": 16}``.
        weights: the backbone's weights; by default those in the cache.
        labels: folder with ``groundTruth/*.txt``, ``mapping.txt`` and ``splits/`` for these videos.
        label_rate: label lines per second in ``groundTruth/``; by default one per video frame.
        engine: where to run: ``keystep.engines.Local(4)`` are four processes, each of which loads the backbone,
            ``keystep.engines.find_engine("ray")`` is a Ray cluster. None: this process.
        sink: ``folder`` or ``tar``, see `FeatureStore`.
        shard: ``"2/8"`` processes the second of eight parts, to use eight machines on one folder.
        device: ``cpu``, ``cuda`` or ``cuda:1``; by default all GPUs, if there are any.
        recursive: search subfolders too; videos are named by their path.
        on_error: ``skip`` omits videos that cannot be read, and lists them in the result.
        progress: reports the processed seconds of video.

    Raises:
        InputError: invalid settings, videos, labels or weights, an unavailable device, an unreadable video (unless
            skipped), or ``out`` was written with other settings.
    """
    allow(*specs_in(backbone))
    given = {"backbone": backbone, "rate": rate, "window": window, "half": half}
    config = build(ExtractionConfig, given, settings or {})
    frame_labels = _frame_labels(labels, label_rate)
    problems, out = Problems(on_error), Path(out)
    paths = [videos] if isinstance(videos, Path | str) else videos
    places = [Path(path) for path in paths]
    run = _RunState(find_videos(places, recursive), warnings=ignored_files(places, recursive))
    share = _share(run.videos, shard)
    run.others = len(run.videos) - len(share)
    without = [] if frame_labels is None else frame_labels.missing(run.videos)
    if without:
        run.warnings.append(f"no labels for {len(without)} of {len(run.videos)} videos, such as {without[0]}")
    engine = engine or Local()
    if isinstance(engine, Local):
        _check_device(device)
    make = MakeExtractor(config, None if weights is None else Path(weights), device)
    here = make(0) if engine.alone else None  # before anything is written, so that wrong weights are reported now
    facts = _facts(make, engine) if here is None else _Facts.from_extractor(here)
    with owning(_locked_name(out, shard)):
        store = FeatureStore(out, facts.timeline, provenance=_provenance(config, facts), sink=sink).create()
        writing = Writing(store, config.half, frame_labels, config.jump)
        _check_videos(run, share, writing, problems, progress)
        if frame_labels is not None:
            frame_labels.check_rate([lengths for lengths in run.lengths.values() if lengths is not None])
        run.warnings += _warn_about_repeats(run.slower, facts.timeline.rate)
        if run.waiting:
            store.reopen()
        if frame_labels is not None:
            run.warnings += frame_labels.copy_to(out)
            _label_finished(run, share, writing, problems)
        elif (out / RECORD).exists() and run.waiting:
            run.warnings.append(f"{out} has labels, but the videos of this run get none without --labels")
        progress.message(_plan(run, facts, config))
        _extract_waiting(run, Extraction(writing, make, here), problems, engine, progress)
        done = _conclude(run, store, problems)
    return Extracted(out, done, len(run.videos), facts.width, dict(problems.skipped), tuple(run.warnings))


def _extract_waiting(run: _RunState, work: Extraction, problems: Problems, engine: Engine, progress: Progress) -> None:
    """Extract the videos that are not finished, and note what is odd about them."""
    with progress.task("extracting", total=sum(run.seconds.values()) or None, unit="s of video") as task:
        meter = _Meter(task, len(run.waiting))
        with closing(extract_videos(work, run.waiting, problems, meter.advance, engine)) as outcomes:
            for outcome in outcomes:
                meter.finish()
                run.warnings += outcome.notes


@dataclass(frozen=True)
class _Facts:
    """Properties of an extractor that is not in memory."""

    weights: str
    width: int
    pictures: int
    timeline: Timeline

    @classmethod
    def from_extractor(cls, extractor: Extractor) -> _Facts:
        return cls(extractor.weights, extractor.width, extractor.pictures, extractor.timeline)


@dataclass
class _RunState:
    """State of the requested videos.

    Attributes:
        videos: name -> file of all.
        waiting: name -> file of those to extract.
        seconds: durations of those, as far as stated.
        lengths: lengths of labels and videos, if known.
        slower: frame rates of videos below the requested feature rate.
        others: number of videos in other shards.
        done: number of finished videos.
        bad: number of videos that cannot be read.
        warnings: lines for the user.
    """

    videos: dict[str, Path]
    waiting: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lengths: dict[str, Lengths | None] = field(default_factory=dict)
    slower: dict[str, Fraction] = field(default_factory=dict)
    others: int = 0
    done: int = 0
    bad: int = 0
    warnings: list[str] = field(default_factory=list)


class _Meter:
    """Reports the processed seconds of video, with frames per second and the speed relative to real time."""

    def __init__(self, task: Task, videos: int) -> None:
        self.task, self.videos = task, videos
        self.done, self.frames, self.seconds = 0, 0, 0.0
        self.started = time.monotonic()

    def advance(self, seconds: float, frames: int) -> None:
        """Count processed seconds and frames."""
        self.seconds, self.frames = self.seconds + seconds, self.frames + frames
        spent = max(1e-6, time.monotonic() - self.started)
        speed = f"{self.frames / spent:,.0f} frames/s, {self.seconds / spent:.1f} x real time"
        self.task.advance(seconds, f"video {min(self.done + 1, self.videos)} of {self.videos}, {speed}")

    def finish(self) -> None:
        """Count a finished video."""
        self.done += 1


def _frame_labels(labels: Path | str | None, rate: AnyRate | None) -> FrameLabels | None:
    if labels is None:
        if rate is not None:
            raise InputError(f"--label-rate {rate} is for --labels; give both, or none")
        return None
    return FrameLabels(Path(labels), None if rate is None else parse_rate(rate))


def _facts(make: MakeExtractor, engine: Engine) -> _Facts:
    """Load the extractor of the workers once to check it, and free it. A cluster may have devices that we lack."""
    facts = _Facts.from_extractor((make if isinstance(engine, Local) else replace(make, device="cpu"))(0))
    torch.cuda.empty_cache()
    return facts


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``"2/8"``, the second of eight parts, as (2, 8).

    Raises:
        InputError: not of this form.
    """
    part, slash, of = text.partition("/")
    if not (slash and part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise InputError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 2/8")
    return int(part), int(of)


def _share(videos: dict[str, Path], shard: str | None) -> dict[str, Path]:
    """Select every n-th video, so that n machines share the work."""
    if shard is None:
        return videos
    part, of = parse_shard(shard)
    return {name: videos[name] for name in sorted(videos)[part - 1 :: of]}


def _locked_name(out: Path, shard: str | None) -> Path:
    """Path that a run locks: the folder, or its part of it."""
    if shard is None:
        return out
    part, of = parse_shard(shard)
    return out.with_name(f"{Path(os.path.realpath(out)).name}.shard-{part}-of-{of}")


def _check_device(device: str | None) -> None:
    """Refuse an unavailable device before weights are loaded."""
    if device is None:
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # depends on the kind of device
        reason = one_line(str(error).partition("\n")[0], 120)
        raise InputError(f"--device {device}: not available ({reason}); choose another, or omit it") from error


def _check_videos(
    run: _RunState, share: dict[str, Path], writing: Writing, problems: Problems, progress: Progress
) -> None:
    """Open every video and read its labels, so that problems are reported before the extraction starts."""
    with progress.task("checking videos", total=len(share), unit="videos") as task:
        for name, path in share.items():
            seconds = problems.attempt(name, lambda name=name, path=path: _seconds(run, writing, name, path))  # type: ignore[misc]
            if seconds is not None:
                run.waiting[name], run.seconds[name] = path, seconds
            task.advance(note=name)
    run.bad = len(problems.skipped)
    run.done = len(share) - len(run.waiting) - run.bad


def _seconds(run: _RunState, writing: Writing, name: str, path: Path) -> float | None:
    """Stated duration in seconds (0: unknown) of a video to extract; None if it is finished."""
    check_name(name, path)
    state = writing.state(name, path)
    labels = writing.labels if writing.labels is not None and writing.labels.has(name) else None
    if state == "done":
        run.lengths[name] = None if labels is None else writing.lengths(name)
        if labels is not None:
            writing.check_labels(name)
        return None
    info = open_video(path).info
    if info.usual_rate is not None and info.usual_rate < writing.store.timeline.rate:
        run.slower[name] = info.usual_rate
    run.lengths[name] = None if labels is None else labels.check(name, info)
    if state == "changed":
        run.warnings.append(f"{name}: {path} has changed since it was extracted; extracted again")
    return float(info.duration or 0)


def _warn_about_repeats(slower: Mapping[str, Fraction], rate: Fraction) -> list[str]:
    """Warning about videos with a lower frame rate than the requested feature rate."""
    if not slower:
        return []
    name, own = next(iter(slower.items()))
    return [
        f"{len(slower)} videos have fewer than {float(rate):g} frames per second, such as {name} with "
        f"{float(own):.4g}, so adjacent features repeat the same frame; --rate {float(own):.4g} or less avoids that"
    ]


def _label_finished(run: _RunState, share: Collection[str], writing: Writing, problems: Problems) -> None:
    """Update the labels of videos that were already finished."""
    for name in share:
        if name not in run.waiting and name not in problems.skipped:
            run.warnings += problems.attempt(name, lambda name=name: writing.label(name)) or []  # type: ignore[misc]


def _provenance(config: ExtractionConfig, facts: _Facts) -> dict[str, Any]:
    """Provenance of the features, from which `keystep stream` builds the same extractor."""
    tokens = {"tokens": config.grid**2} if config.grid > 1 else {}
    return {"extraction": config.model_dump(mode="json"), "weights": facts.weights, **tokens}


def _plan(run: _RunState, facts: _Facts, config: ExtractionConfig) -> str:
    """One line about the planned work and the context of the features."""
    timeline = facts.timeline
    ahead = f"look-ahead {float(timeline.look_ahead):.2f} s" if timeline.look_ahead else "no look-ahead"
    pictures = "1 picture" if facts.pictures == 1 else f"{facts.pictures} pictures"
    rest = {"finished": run.done, "unreadable": run.bad, "in other shards": run.others}
    return (
        f"{config.backbone}, {facts.width} wide, {float(timeline.rate):g} Hz, {pictures} per vector, window "
        f"{config.window}, {ahead}; {len(run.waiting)} videos to extract"
        + "".join(f", {count} {what}" for what, count in rest.items() if count)
    )


def _conclude(run: _RunState, store: FeatureStore, problems: Problems) -> tuple[str, ...]:
    """Record skipped videos, and mark the folder as complete if it is; returns the names of the finished videos."""
    out = store.root
    for name, reason in problems.skipped.items():
        write_json(out / "skipped" / f"{name}.json", {"reason": reason})
    there = store.videos()
    done = tuple(name for name in run.videos if name in there)
    for name in done:
        if name not in problems.skipped:
            (out / "skipped" / f"{name}.json").unlink(missing_ok=True)
    if all(name in done or (out / "skipped" / f"{name}.json").exists() for name in run.videos):
        store.finish()
    return done
