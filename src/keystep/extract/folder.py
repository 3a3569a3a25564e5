"""Many videos to one feature folder: each finished video is there whole, a run that was stopped goes on."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.errors import InputError
from keystep.extract.extractor import Extractor, joined
from keystep.extract.frames import Frame
from keystep.extract.labels import FrameLabels
from keystep.extract.video import VideoInfo, open_video

VIDEO_ENDINGS = (
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ts",
    ".webm",
    ".wmv",
)
REPORT_SECONDS = 0.25

Advance = Callable[[float, int], None]
"""Called now and then with the seconds of video and the source frames that were done since the last call."""


def find_videos(paths: Iterable[Path]) -> dict[str, Path]:
    """Name -> file of each video among files and folders (of which files with a video's ending are taken).

    Raises:
        InputError: no such path, no video at all, or two videos of one name, which would overwrite each other.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_ENDINGS)
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not files:
        raise InputError(
            f"no videos in {', '.join(str(path) for path in paths)}; known endings: {' '.join(VIDEO_ENDINGS)}"
        )
    name, count = Counter(file.stem for file in files).most_common(1)[0]
    if count > 1:
        both = ", ".join(str(file) for file in files if file.stem == name)
        raise InputError(f"{count} videos are called {name!r}: {both}; rename them, or extract into two folders")
    return {file.stem: file for file in files}


@dataclass(frozen=True)
class Writing:
    """Where features go, and in what form; it travels to worker processes.

    half: store float16. labels: labels frame by frame, to be written for the slots. batch: clips at a time.
    """

    store: FeatureStore
    half: bool = False
    labels: FrameLabels | None = None
    batch: int = 1

    def done(self, name: str) -> bool:
        """Whether the video's features are there."""
        return (self.store.root / "features" / f"{name}.npy").exists()

    def write(self, extractor: Extractor, name: str, path: Path, advance: Advance) -> Outcome:
        """Extract one video and write all that belongs to it.

        Raises:
            InputError: the video cannot be read, holds no slot, or its labels cannot be used.
        """
        video = open_video(path)
        made = joined(list(extractor.stream(_reported(video.frames(), advance), batch=self.batch)))
        labels, notes = None, [f"{name}: {line}" for line in video.damage]
        if self.labels is not None and (found := self.labels.of(name, made.times, made.seen[:, 1])) is not None:
            labels, lines = found
            notes += _apart(name, lines, int(made.seen[-1, 1]) + 1) if self.labels.rate is None else []
        regular = np.array_equal(made.slots, np.arange(len(made)))
        self.store.add(
            name,
            made.features.astype(np.float16 if self.half else np.float32),
            _details(video.info, video.damage),
            labels=labels,
            times=None if regular else made.times,
            seen=made.seen,
        )
        return Outcome(name, len(made), notes)


@dataclass(frozen=True)
class Outcome:
    """One finished video: how many slots it has, and what deserves a look."""

    name: str
    slots: int
    notes: list[str] = field(default_factory=list)


def extract_videos(
    writing: Writing,
    videos: dict[str, Path],
    make: Callable[[int], Extractor],
    problems: Problems,
    advance: Advance,
    workers: int = 1,
) -> Iterator[Outcome]:
    """Extract videos, in this process or in several; yields each as it is finished.

    Args:
        make: loads the backbone in worker ``i``; it travels to the other processes.

    Raises:
        InputError: a bad video (unless ``problems`` skips it); a worker process died.
    """
    if workers == 1 or len(videos) < 2:
        extractor = make(0)
        for name, path in videos.items():
            outcome = problems.attempt(name, lambda name=name, path=path: writing.write(extractor, name, path, advance))  # type: ignore[misc]
            if outcome is not None:
                yield outcome
        return
    yield from _in_processes(writing, videos, make, problems, advance, min(workers, len(videos)))


def _in_processes(
    writing: Writing,
    videos: dict[str, Path],
    make: Callable[[int], Extractor],
    problems: Problems,
    advance: Advance,
    workers: int,
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    reports: Queue[tuple[float, int] | None] = context.Queue()
    counter = context.Value("i", 0)
    listener = threading.Thread(target=_listen, args=(reports, advance), daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (writing, make, reports, counter, workers))
    try:
        futures = {pool.submit(_work, name, path): name for name, path in videos.items()}
        for future in as_completed(futures):
            outcome = problems.attempt(futures[future], future.result)
            if outcome is not None:
                yield outcome
    except BrokenProcessPool as error:
        raise InputError("a worker process died, perhaps for want of memory; run again to go on, with fewer") from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()  # or a stop would wait for videos that are being worked on
        pool.shutdown(cancel_futures=True)
        reports.put(None)
        listener.join()


_worker: tuple[Writing, Extractor, Queue[tuple[float, int] | None]]
"""What a worker process works with; set when it begins."""


def _begin_worker(
    writing: Writing, make: Callable[[int], Extractor], reports: Queue[tuple[float, int] | None], counter: Any, of: int
) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends us
    signal.signal(signal.SIGTERM, _leave)
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    torch.set_num_threads(max(1, torch.get_num_threads() // of))
    _worker = writing, make(index), reports


def _leave(number: int, frame: object) -> None:
    raise SystemExit  # so that files half written are removed


def _work(name: str, path: Path) -> Outcome:
    writing, extractor, reports = _worker
    return writing.write(extractor, name, path, lambda seconds, frames: reports.put((seconds, frames)))


def _listen(reports: Queue[tuple[float, int] | None], advance: Advance) -> None:
    while (report := reports.get()) is not None:
        advance(*report)


def _reported(frames: Iterable[Frame], advance: Advance) -> Iterator[Frame]:
    """The same frames; says from time to time how far they are."""
    said, count, last, moment = 0.0, 0, time.monotonic(), 0.0
    for frame in frames:
        yield frame
        count, moment = count + 1, float(frame.time)
        if time.monotonic() - last > REPORT_SECONDS:
            advance(moment - said, count)
            said, count, last = moment, 0, time.monotonic()
    advance(moment - said, count)


def _details(info: VideoInfo, damage: Sequence[str]) -> dict[str, Any]:
    """What ``<video>.json`` says of the source."""
    return {
        "status": "partial" if damage else "complete",
        "damage": list(damage),
        "source": str(info.path.resolve()),
        "source_bytes": info.path.stat().st_size,
        "source_rate": None if info.rate is None else str(info.rate),
        "source_size": [info.width, info.height],
        "codec": info.codec,
    }


def _apart(name: str, lines: int, frames: int) -> list[str]:
    """A note where labels and frames differ; ``frames``: up to the last slot's."""
    if lines >= frames:
        return []
    return [f"{name}: labels for {lines} frames, the video has {frames} up to its last slot; the rest is unlabelled"]
