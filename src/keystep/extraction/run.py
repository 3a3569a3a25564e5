"""`extract`: features of many videos in one folder; finished videos are not done again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keystep.config.base import build
from keystep.data.layout import video_records
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError, one_line
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Writing
from keystep.extraction.labels import RECORD, FrameLabels, Lengths
from keystep.extraction.listing import find_videos, left_alone
from keystep.extraction.loading import load_extractor
from keystep.extraction.processes import extract_videos
from keystep.extraction.video import open_video
from keystep.files import write_json
from keystep.locking import owning
from keystep.plugins import allow, specs_in
from keystep.progress import SILENT, Progress, Task
from keystep.types import AnyRate, OnError, Tabular, parse_rate


@dataclass(frozen=True)
class Extracted(Tabular):
    """A feature folder that `extract` wrote.

    Attributes:
        root: the folder; `keystep.open_dataset` reads it.
        videos: names of the asked videos whose features are in it.
        asked: how many videos were asked for, those of other shards included.
        width: numbers in a feature vector.
        skipped: name of each video that this run left out -> why.
        warnings: lines about what deserves a look, such as videos without labels.
    """

    root: Path
    videos: tuple[str, ...]
    asked: int
    width: int
    skipped: dict[str, str]
    warnings: tuple[str, ...]

    def to_records(self) -> list[dict[str, Any]]:
        """One a video that is in the folder or was left out: its name, its features, why it was left out."""
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
    workers: int = 1,
    shard: str | None = None,
    device: str | None = None,
    recursive: bool = False,
    on_error: OnError | str = "raise",
    progress: Progress = SILENT,
) -> Extracted:
    """Extract the features of videos; the folder is complete and consistent after every video.

    Args:
        videos: video files, or folders of them.
        backbone: a name that ``keystep plugins`` lists, ``hf:FOLDER_OR_ID``, or ``package.module:name``.
        out: the feature folder to write. Videos that are there already are not done again.
        rate: feature vectors a second.
        window: ``center`` for a clip around each moment, ``right`` for nothing later than it, as live streams have.
        half: store float16 instead of float32.
        settings: further settings of `ExtractionConfig`, such as ``{"frames": 16}``.
        weights: the backbone's weights; by default those in the cache.
        labels: folder with ``groundTruth/*.txt``, ``mapping.txt`` and ``splits/`` of these videos to take along.
        label_rate: lines of ``groundTruth/`` a second; by default one line a frame of the video.
        workers: processes, each with the backbone in memory; with more than one, a script needs the usual
            ``if __name__ == "__main__"``.
        shard: ``"2/8"`` takes the second of eight shares of the videos, for several machines on one folder.
        device: ``cpu``, ``cuda``, ``cuda:1``; by default the GPUs, if there are any.
        recursive: search subfolders, too; videos are then called by their path.
        on_error: ``skip`` leaves out videos that cannot be read; they are listed in the result.
        progress: reports the seconds of video that are done.

    Raises:
        InputError: bad settings, videos, labels or weights, a device that is not there, a bad video (unless it is to
            be skipped), or ``out`` was written with other settings.
    """
    allow(*specs_in(backbone))
    given = {"backbone": backbone, "rate": rate, "window": window, "half": half}
    config = build(ExtractionConfig, given, settings or {})
    frame_labels = _frame_labels(labels, label_rate)
    problems, out = Problems(on_error), Path(out)
    paths = [videos] if isinstance(videos, Path | str) else videos
    places = [Path(path) for path in paths]
    run = _Run(find_videos(places, recursive), warnings=left_alone(places, recursive))
    share = _share(run.videos, shard)
    run.others = len(run.videos) - len(share)
    without = [] if frame_labels is None else frame_labels.missing(run.videos)
    if without:
        run.warnings.append(f"no labels for {len(without)} of {len(run.videos)} videos, such as {without[0]}")
    _check_device(device)
    make = MakeExtractor(config, None if weights is None else Path(weights), device)
    here = None if workers > 1 else make(0)  # before anything is written: weights that do not fit show now
    facts = _facts(make) if here is None else _Facts.of(here)
    with owning(_locked_name(out, shard)):
        store = FeatureStore(out, facts.timeline, provenance=_provenance(config, facts)).create()
        writing = Writing(store, config.half, frame_labels, _batch(facts, make.device_of(0)))
        _look(run, share, writing, problems, progress)
        if frame_labels is not None:
            frame_labels.check_rate([lengths for lengths in run.lengths.values() if lengths is not None])
        run.warnings += _warn_of_repeats(run.slower, facts.timeline.rate)
        if run.waiting:
            store.reopen()
        if frame_labels is not None:
            run.warnings += frame_labels.take_along(out)
            _label_finished(run, share, writing, problems)
        elif (out / RECORD).exists() and run.waiting:
            run.warnings.append(f"{out} has labels; without --labels, the videos of this run get none")
        progress.message(_plan(run, facts, config))
        with progress.task("extracting", total=sum(run.seconds.values()) or None, unit="s of video") as task:
            meter = _Meter(task, len(run.waiting))
            ready = make if here is None else partial(_ready, here)
            with closing(extract_videos(writing, run.waiting, ready, problems, meter.advance, workers)) as outcomes:
                for outcome in outcomes:  # closing ends the workers
                    meter.finish()
                    run.warnings += outcome.notes
        done = _conclude(run, store, problems)
    return Extracted(out, done, len(run.videos), facts.width, dict(problems.skipped), tuple(run.warnings))


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
    """How far the videos are. others: in other shards. done: there already. bad: cannot be read.

    lengths: of the videos' labels, where it is known how long they should be. slower: the rates of videos that have
    fewer frames a second than features are asked for.
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
    """Reports the seconds of video that are done, with frames a second and how many times real time that is."""

    def __init__(self, task: Task, videos: int) -> None:
        self.task, self.videos = task, videos
        self.done, self.frames, self.seconds = 0, 0, 0.0
        self.started = time.monotonic()

    def advance(self, seconds: float, frames: int) -> None:
        """Count seconds of video, and its frames, as done."""
        self.seconds, self.frames = self.seconds + seconds, self.frames + frames
        spent = max(1e-6, time.monotonic() - self.started)
        speed = f"{self.frames / spent:,.0f} frames/s, {self.seconds / spent:.1f} x real time"
        self.task.advance(seconds, f"video {min(self.done + 1, self.videos)} of {self.videos}, {speed}")

    def finish(self) -> None:
        """Count one video as whole."""
        self.done += 1


def _frame_labels(labels: Path | str | None, rate: AnyRate | None) -> FrameLabels | None:
    if labels is None:
        if rate is not None:
            raise InputError(f"--label-rate {rate} is for --labels; give both, or none")
        return None
    return FrameLabels(Path(labels), None if rate is None else parse_rate(rate))


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


def _locked_name(out: Path, shard: str | None) -> Path:
    """What a run has to itself: the folder, or its share of it."""
    if shard is None:
        return out
    part, of = parse_shard(shard)
    return out.with_name(f"{out.resolve().name}.shard-{part}-of-{of}")


def _check_device(device: str | None) -> None:
    """Refuse a device that is not there, before weights are loaded."""
    if device is None:
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        said = one_line(str(error).partition("\n")[0], 120)
        raise InputError(f"--device {device}: not to be had here ({said}); give another, or leave it out") from error


def _look(run: _Run, share: dict[str, Path], writing: Writing, problems: Problems, progress: Progress) -> None:
    """Open every video that is to be done and read its labels: what is bad shows before hours of work."""
    with progress.task("looking at videos", total=len(share), unit="videos") as task:
        for name, path in share.items():
            seconds = problems.attempt(name, lambda name=name, path=path: _seconds(run, writing, name, path))  # type: ignore[misc]
            if seconds is not None:
                run.waiting[name], run.seconds[name] = path, seconds
            task.advance(note=name)
    run.bad = len(problems.skipped)
    run.done = len(share) - len(run.waiting) - run.bad


def _seconds(run: _Run, writing: Writing, name: str, path: Path) -> float | None:
    """Stated seconds (0: not stated) of a video that is to be done; None if it is done already."""
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
        run.warnings.append(f"{name}: {path} has changed since it was extracted; done again")
    return float(info.duration or 0)


def _warn_of_repeats(slower: Mapping[str, Fraction], rate: Fraction) -> list[str]:
    """A line on videos that have fewer frames a second than features are asked for."""
    if not slower:
        return []
    name, own = next(iter(slower.items()))
    return [
        f"{len(slower)} videos have fewer than {float(rate):g} frames a second, such as {name} with {float(own):.4g}: "
        f"neighbouring features show the same frame; --rate {float(own):.4g} or less repeats none"
    ]


def _label_finished(run: _Run, share: Collection[str], writing: Writing, problems: Problems) -> None:
    """Labels of the videos that were there before, which may have had none, or others."""
    for name in share:
        if name not in run.waiting and name not in problems.skipped:
            run.warnings += problems.attempt(name, lambda name=name: writing.label(name)) or []  # type: ignore[misc]


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


def _conclude(run: _Run, store: FeatureStore, problems: Problems) -> tuple[str, ...]:
    """Write down what was left out, and mark the folder complete if all is there; returns the finished videos."""
    out = store.root
    for name, reason in problems.skipped.items():
        write_json(out / "skipped" / f"{name}.json", {"reason": reason})
    done = tuple(name for name in run.videos if (out / "features" / f"{name}.npy").exists())
    for name in done:
        if name not in problems.skipped:
            (out / "skipped" / f"{name}.json").unlink(missing_ok=True)
    if all(name in done or (out / "skipped" / f"{name}.json").exists() for name in run.videos):
        store.finish()
    return done
