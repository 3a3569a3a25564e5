"""What the routes work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

from keystep.data.spans import Span
from keystep.evals.palette import Palette
from keystep.serve.annotations import AnnotationStore
from keystep.serve.events import Events
from keystep.serve.learning import LabelLearner, SlotPrediction
from keystep.serve.live_head import LiveHead
from keystep.serve.media import MediaFiles
from keystep.serve.metrics import ServerMetrics
from keystep.serve.moments import MomentSearch
from keystep.serve.saved_head import SavedHead
from keystep.serve.schema import ClassItem, Lane, SpanBody, VideoItem
from keystep.serve.signals import Signals
from keystep.serve.stream_sources import Sources
from keystep.serve.streams import Streams
from keystep.serve.workspace import Workspace

KEYS = "1234567890abcdefghijklmnopqrstuvwxyz"
"""What names classes from the keyboard, in the order of their ids; the page takes letters with a prefix."""
LANES = (
    Lane(id="labels", kind="classes", title="Labels"),
    Lane(id="prediction", kind="classes", title="Prediction"),
    Lane(id="confidence", kind="level", title="Confidence"),
    Lane(id="head", kind="classes", title="Saved head"),
    Lane(id="head-confidence", kind="level", title="Its confidence"),
    Lane(id="change", kind="level", title="Change"),
    Lane(id="colour", kind="colour", title="Representation"),
)


@dataclass
class Services:
    """One of each, for as long as the application runs."""

    workspace: Workspace
    annotations: AnnotationStore
    events: Events
    learner: LabelLearner
    signals: Signals
    media: MediaFiles
    moments: MomentSearch
    metrics: ServerMetrics
    sources: Sources
    streams: Streams
    live_head: LiveHead
    head: SavedHead | None = None

    @property
    def lanes(self) -> list[Lane]:
        """Rows that a time line may have; those of predictions appear once there are some."""
        return [lane for lane in LANES if self.head is not None or not lane.id.startswith("head")]

    def prediction(self, name: str, lane: str) -> SlotPrediction:
        """What the learner or the saved head says of a video.

        Raises:
            HTTPException: 404, nothing yet.
        """
        if lane.startswith("head"):
            if self.head is None:
                raise HTTPException(404, "no head was given with --head")
            return self.head.prediction(name, self.annotations.classes)
        found = self.learner.prediction(name)
        if found is None:
            raise HTTPException(404, "nothing was learned yet; label some videos and start learning")
        return found

    def name(self, video: int) -> str:
        """The name of a video.

        Raises:
            HTTPException: 404, there is none of that number.
        """
        names = self.workspace.names
        if not 0 <= video < len(names):
            raise HTTPException(404, f"no video {video}; there are {len(names)}, counted from 0")
        return names[video]

    def stretch(self, video: int, start: int, stop: int | None) -> tuple[str, int, int]:
        """(name, first slot, slot after the last) of a part of a video; by default all of it.

        Raises:
            HTTPException: 404 no such video, 422 no such slots.
        """
        name = self.name(video)
        slots = self.workspace.slots[name]
        stop = slots if stop is None else stop
        if not 0 <= start < stop <= slots:
            raise HTTPException(422, f"no slots {start} to {stop}; the video has {slots}")
        return name, start, stop

    def hang_up(self) -> None:
        """End what is told to pages and clients for as long as they listen."""
        self.events.close()
        for live in self.streams.all():
            live.events.close()

    @property
    def labelled_videos(self) -> int:
        """Videos with a label."""
        return sum(self.annotations.labelled_share(name) > 0 for name in self.workspace.names)

    def classes(self) -> list[ClassItem]:
        """All classes with their colours and keys."""
        names = self.annotations.classes
        palette = Palette(names)
        keys = [*KEYS, *[""] * max(0, len(names) - len(KEYS))]
        return [
            ClassItem(id=index, name=name, colour=palette.colour(index), key=key)
            for index, (name, key) in enumerate(zip(names, keys, strict=False))
        ]

    def item(self, name: str) -> VideoItem:
        """A video as the list shows it."""
        slots = self.workspace.slots[name]
        return VideoItem(
            id=self.workspace.number(name),
            name=name,
            slots=slots,
            seconds=slots / self.workspace.rate,
            labelled=self.annotations.labelled_share(name),
            uncertainty=self.learner.uncertainty(name),
            revision=self.annotations.current(name)[0],
            has_video=self.workspace.recording(name) is not None,
        )


def span_bodies(spans: Sequence[Span]) -> list[SpanBody]:
    """Spans as answers hold them."""
    return [SpanBody(start=span.start, stop=span.stop, label=span.label) for span in spans]


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that is asked."""
    services: Services = connection.app.state.services
    return services


Own = Annotated[Services, Depends(services_of)]
"""A parameter of a route that receives the services."""
