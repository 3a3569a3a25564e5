"""Extraction of videos by an engine."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from keystep.data.problems import Problems
from keystep.engines import Engine, Report, check_shared, device_of
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import Extractor
from keystep.extraction.folder import Outcome, Writing
from keystep.extraction.loading import load_extractor

PICTURES = {"cpu": 16}
"""Pictures per call of the network by device: enough for the hardware, within little memory."""
MORE_PICTURES = 128
"""The same for all other devices."""


@dataclass(frozen=True)
class MakeExtractor:
    """Factory that loads the extractor of a worker; worker i uses GPU i.

    Attributes:
        config: settings.
        weights: file of the backbone's weights; None: the cached ones.
        device: of all workers; None: the GPUs, if there are any.
    """

    config: ExtractionConfig
    weights: Path | None
    device: str | None

    def __call__(self, worker: int) -> Extractor:
        """Load the extractor of a worker."""
        return load_extractor(self.config, self.weights, self.device_of(worker))

    def device_of(self, worker: int) -> str:
        """The device of a worker."""
        return self.device or device_of(worker)


@dataclass(frozen=True)
class Extraction:
    """What a worker does; pickled for workers.

    Attributes:
        writing: where and how to write.
        make: loads the extractor.
        loaded: the extractor, if it is in memory already.
    """

    writing: Writing
    make: MakeExtractor
    loaded: Extractor | None = None

    def __call__(self, worker: int, report: Report) -> Callable[[str, Path], Outcome]:
        """Load the extractor of a worker."""
        check_shared(self.writing.store.root)
        extractor = self.loaded or self.make(worker)
        pictures = PICTURES.get(self.make.device_of(worker), MORE_PICTURES)
        batch = max(1, pictures // extractor.pictures)
        return lambda name, path: self.writing.write(extractor, name, path, report, batch)


def extract_videos(
    extraction: Extraction, videos: dict[str, Path], problems: Problems, report: Report, engine: Engine
) -> Generator[Outcome, None, None]:
    """Extract videos, and yield each result when finished. Close the iterator to stop the workers early.

    Args:
        extraction: what a worker does.
        videos: name -> file.
        problems: what to do with unreadable videos.
        report: takes the processed seconds of video and frames.
        engine: runs the work.

    Raises:
        InputError: an unreadable video (unless ``problems`` skips it), or as in `Engine.run`.
    """
    jobs = {name: (name, path) for name, path in videos.items()}
    with closing(engine.run(extraction, jobs, report, extraction.make.device)) as finished:
        for name, result in finished:
            outcome = problems.attempt(name, result)
            if outcome is not None:
                yield outcome
