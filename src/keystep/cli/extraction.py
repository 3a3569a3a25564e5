"""``keystep extract``: features of raw videos, finished videos never twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from keystep.cli.data import list_skipped, open_problems
from keystep.cli.progress import VideoProgress
from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.errors import InputError
from keystep.extract.backbones import load_extractor
from keystep.extract.config import ExtractionConfig
from keystep.extract.extractor import Extractor
from keystep.extract.folder import Writing, extract_videos, find_videos
from keystep.extract.labels import FrameLabels
from keystep.extract.video import open_video
from keystep.files import write_json

SKIPPED = "skipped.json"


@dataclass(frozen=True)
class MakeExtractor:
    """Loads the backbone in a worker process; worker i takes GPU i."""

    config: ExtractionConfig
    weights: Path | None
    device: str | None

    def __call__(self, worker: int) -> Extractor:
        """The extractor of worker ``worker``."""
        return load_extractor(self.config, self.weights, self._device(worker))

    def _device(self, worker: int) -> str:
        if self.device is not None:
            return self.device
        return f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def extract_folder(
    paths: list[Path],
    out: Path,
    config: ExtractionConfig,
    weights: Path | None,
    labels: FrameLabels | None,
    workers: int,
    shard: str | None,
    device: str | None,
    on_error: str,
    console: Console,
) -> None:
    """Extract what is not there yet; the folder is sound after every video."""
    problems = open_problems(on_error)
    videos = find_videos(paths)
    make = MakeExtractor(config, weights, device)
    extractor = make(0)  # before anything is written: weights that do not fit show now
    store = FeatureStore(out, extractor.timeline, provenance=_provenance(config, extractor)).create()
    if labels is not None:
        labels.copy_to(out)
    writing = Writing(store, config.half, labels, _batch(extractor))
    waiting = {name: path for name, path in _share(videos, shard).items() if not writing.done(name)}
    seconds = _probe(waiting, problems)
    waiting = {name: path for name, path in waiting.items() if name in seconds}
    console.print(_plan(videos, waiting, extractor, config), soft_wrap=True, markup=False)
    notes: list[str] = []
    with VideoProgress(console, waiting, seconds) as progress:
        loaded = make if workers > 1 else lambda worker: extractor
        for outcome in extract_videos(writing, waiting, loaded, problems, progress.advance, workers):
            progress.finished(outcome.name)
            notes += outcome.notes
    if all(writing.done(name) or name in problems.skipped for name in videos):
        store.finish()
    _record_skipped(out, problems)
    _say(out, videos, writing, notes, problems, extractor, console)


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


def _probe(videos: dict[str, Path], problems: Problems) -> dict[str, float]:
    """Name -> stated seconds (0: not stated) of each video that can be opened: bad files show before hours of work."""
    seconds = {}
    for name, path in videos.items():
        info = problems.attempt(name, lambda path=path: open_video(path).info)  # type: ignore[misc]
        if info is not None:
            seconds[name] = float(info.duration or 0)
    return seconds


def _provenance(config: ExtractionConfig, extractor: Extractor) -> dict[str, Any]:
    """What made the features: `keystep stream` builds the same extractor of it."""
    tokens = {"tokens": config.grid**2} if config.grid > 1 else {}
    return {"extraction": config.model_dump(mode="json"), "weights": extractor.weights, **tokens}


def _batch(extractor: Extractor) -> int:
    """Clips at a time: enough pictures to keep the machine busy, few enough to stay small."""
    pictures = 128 if torch.cuda.is_available() else 16
    return max(1, pictures // extractor.sees)


def _plan(videos: dict[str, Path], waiting: dict[str, Path], extractor: Extractor, config: ExtractionConfig) -> str:
    """One line: what is going to be done, and what the features will have seen."""
    timeline = extractor.timeline
    ahead = f"looks {float(timeline.look_ahead):.2f} s ahead" if timeline.look_ahead else "sees no future"
    pictures = "1 picture" if extractor.sees == 1 else f"{extractor.sees} pictures"
    others = len(videos) - len(waiting)
    return (
        f"{config.backbone}, {extractor.width} wide, {float(timeline.rate):g} Hz, {pictures} a vector, window "
        f"{config.window}: {ahead}; {len(waiting)} videos to do"
        + (f", {others} done, bad or of other shards" if others else "")
    )


def _record_skipped(out: Path, problems: Problems) -> None:
    """Keep the list of what was left out beside the features; the last run's list is the one that counts."""
    path = out / SKIPPED
    if problems.skipped:
        write_json(path, problems.skipped)
    else:
        path.unlink(missing_ok=True)


def _say(
    out: Path,
    videos: dict[str, Path],
    writing: Writing,
    notes: list[str],
    problems: Problems,
    extractor: Extractor,
    console: Console,
) -> None:
    list_skipped(problems, console)
    for line in notes:
        console.print(f"note: {line}", style="yellow", soft_wrap=True, markup=False)
    done = sum(map(writing.done, videos))
    console.print(f"{out}: {done} of {len(videos)} videos, {extractor.width} wide", soft_wrap=True, markup=False)
    if done:
        console.print(f"next: keystep inspect {out}", soft_wrap=True, markup=False)
