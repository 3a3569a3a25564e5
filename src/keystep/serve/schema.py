"""What requests and answers hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_SLOTS = 2**31 - 1
MOST_SPANS = 100_000

Slot = Annotated[int, Field(ge=0, le=MOST_SLOTS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Body(BaseModel):
    """Base of what clients send: names that are not listed are errors, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SpanBody(Body):
    """Slots ``start`` to ``stop`` (exclusive) with one label."""

    start: Slot
    stop: Slot
    label: Name


class AnnotationBody(Body):
    """An edit: all spans of the video, and the revision that they were made from."""

    base_revision: Slot
    spans: Annotated[list[SpanBody], Field(max_length=MOST_SPANS)]
    author: Annotated[str, StringConstraints(max_length=80)] = ""


class ClassBody(Body):
    """A new class."""

    name: Name


class Error(BaseModel):
    """What went wrong, in one line."""

    error: str


class Waiting(BaseModel):
    """Something is being made; ``progress`` from 0 to 1."""

    progress: float


class NotReady(Error, Waiting):
    """Something is being made, so that this cannot be answered yet."""


class ConflictError(Error):
    """Somebody else has changed the same slots; what they saved."""

    revision: int
    spans: list[SpanBody]


class Annotation(BaseModel):
    """A video's labels."""

    revision: int
    spans: list[SpanBody]


class SavedAnnotation(Annotation):
    """What was saved; ``merged``: together with somebody else's changes."""

    merged: bool


class ClassItem(BaseModel):
    """A class; ``key``: what names it from the keyboard, empty where keys have run out."""

    id: int
    name: str
    colour: str
    key: str


class Classes(BaseModel):
    """All classes by id."""

    classes: list[ClassItem]


class Lane(BaseModel):
    """A row of the time line."""

    id: str
    kind: Literal["classes", "level", "colour"]
    title: str


class Project(BaseModel):
    """What is served."""

    name: str
    rate: float
    start: float
    videos: int
    labelled_videos: int
    classes: list[ClassItem]
    model: str | None
    lanes: list[Lane]
    learning: dict[str, Any]
    indexed: bool
    read_only: bool


class VideoItem(BaseModel):
    """A video in the list; ``labelled`` from 0 to 1, ``uncertainty`` null before anything was learned."""

    id: int
    name: str
    slots: int
    seconds: float
    labelled: float
    uncertainty: float | None
    revision: int
    has_video: bool


class VideoList(BaseModel):
    """A page of the list."""

    total: int
    items: list[VideoItem]


class VideoDetail(VideoItem):
    """A video, its lanes, and where its recording is; ``playable``: browsers know its codec."""

    lanes: list[str]
    media: str | None
    playable: bool


class Slots(BaseModel):
    """Places on the time line."""

    slots: list[int]


class PredictedSpanItem(SpanBody):
    """A predicted stretch; ``confidence`` from 0 to 1, the mean over its slots."""

    confidence: float


class PredictedSpans(BaseModel):
    """Predicted stretches of a video."""

    spans: list[PredictedSpanItem]


class MomentItem(BaseModel):
    """A moment around a slot; ``score``: the cosine to the slot that was asked for."""

    video: int
    name: str
    slot: int
    start: int
    stop: int
    score: float


class MomentList(BaseModel):
    """Moments, best first; ``exact``: every slot of all videos was compared."""

    items: list[MomentItem]
    exact: bool


class SuggestionItem(BaseModel):
    """A stretch that is worth labelling next, and why."""

    video: int
    name: str
    start: int
    stop: int
    reason: str
    score: float


class Suggestions(BaseModel):
    """Best first."""

    items: list[SuggestionItem]


class FormatItem(BaseModel):
    """A format of other programs. ``loses``: what of the labels it cannot hold; ``problem``: why it cannot be written
    here, empty where it can."""

    name: str
    loses: str
    problem: str


class Formats(BaseModel):
    """All formats that labels can be exported to."""

    items: list[FormatItem]


class PushSource(Body):
    """A client pushes over a WebSocket: float32 rows, or JPEG pictures of which there are ``rate`` a second."""

    kind: Literal["push"]
    format: Literal["features", "jpeg"] = "features"
    rate: Annotated[float, Field(gt=0, le=120)] | None = None


class FileSource(Body):
    """A file of features or a video in the folders that are served, at the speed of a live stream."""

    kind: Literal["file"]
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class UrlSource(Body):
    """The address of a stream, or the number of a camera; only where the server was started with --allow-sources."""

    kind: Literal["url"]
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]


Source = Annotated[PushSource | FileSource | UrlSource, Field(discriminator="kind")]
"""Where the frames of a stream come from."""


class StreamBody(Body):
    """A new stream."""

    source: Source
    name: Annotated[str, StringConstraints(max_length=200)] = ""


class StreamStep(BaseModel):
    """What is said of a frame. ``probabilities``: of the likeliest classes. ``delay``: seconds since the frame came."""

    frame: int
    time: float
    step: str
    probability: float
    probabilities: dict[str, float]
    delay: float


class StreamItem(BaseModel):
    """A live stream.

    ``frames`` were answered, ``dropped`` were too many to wait; ``next`` is the row or picture that is expected next,
    ``width`` the numbers of a row and ``rate`` rows a second.
    """

    id: str
    name: str
    kind: Literal["push", "file", "url"]
    state: Literal["waiting", "live", "ended", "failed"]
    message: str
    frames: int
    dropped: int
    next: int
    width: int
    rate: float
    last: StreamStep | None


class StreamList(BaseModel):
    """All live streams, the oldest first.

    ``window``: seconds of the past that the model attends to, null where a head reads features. ``learning``: as of
    ``/api/learning``, of the head that is learned for live streams; null where that is another one.
    """

    items: list[StreamItem]
    window: float | None
    learning: dict[str, Any] | None
