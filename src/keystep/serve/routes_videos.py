"""Videos, their labels, and the rows of their time lines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response

from keystep.data.annotation import segment_lengths
from keystep.data.spans import Span
from keystep.serve.annotations import Conflict
from keystep.serve.schema import (
    Annotation,
    AnnotationBody,
    ConflictError,
    Error,
    NotReady,
    PredictedSpanItem,
    PredictedSpans,
    SavedAnnotation,
    Slots,
    VideoDetail,
    VideoItem,
    VideoList,
)
from keystep.serve.services import Own, Services, span_bodies
from keystep.serve.tiles import as_bytes, majority, means
from keystep.serve.waiting import NotYet

_BYTES: dict[str, dict[str, object]] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix="/api/videos", responses={404: {"model": Error}, 503: {"model": NotReady}})

Number = Annotated[int, Path(ge=0, le=2**31 - 1, description="A video's place in the order of names.")]
Start = Annotated[int, Query(ge=0, le=2**31 - 1)]
Stop = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
Width = Annotated[int, Query(ge=1, le=8192)]

ORDERS: dict[str, Callable[[VideoItem], tuple[float, str]]] = {
    "name": lambda item: (0, item.name),
    "length": lambda item: (-item.slots, item.name),
    "labelled": lambda item: (item.labelled, item.name),
    "uncertainty": lambda item: (1 if item.uncertainty is None else -item.uncertainty, item.name),
}


@router.get("")
def videos(
    own: Own,
    search: Annotated[str, Query(max_length=200)] = "",
    show: Literal["all", "labelled", "unlabelled"] = "all",
    sort: Literal["name", "length", "labelled", "uncertainty"] = "name",
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> VideoList:
    """A page of the list; longest, least labelled or least certain videos first."""
    words = search.casefold().split()
    found = [own.item(name) for name in own.workspace.names if all(word in name.casefold() for word in words)]
    if show != "all":
        found = [item for item in found if (item.labelled > 0) == (show == "labelled")]
    found.sort(key=ORDERS[sort])
    return VideoList(total=len(found), items=found[offset : offset + limit])


@router.get("/{video}")
def video(video: Number, own: Own) -> VideoDetail:
    """One video."""
    name = own.name(video)
    learned = own.learner.head() is not None
    lanes = [lane.id for lane in own.lanes if learned or lane.id not in ("prediction", "confidence")]
    item = own.item(name)
    playable = own.media.playable(name)
    media = None if not item.has_video else f"/media/{video}" + ("" if playable else "?proxy=1")
    return VideoDetail(**item.model_dump(), lanes=lanes, media=media, playable=playable)


@router.get("/{video}/annotation")
def annotation(video: Number, own: Own) -> Annotation:
    """A video's labels."""
    revision, spans = own.annotations.current(own.name(video))
    return Annotation(revision=revision, spans=span_bodies(spans))


@router.put(
    "/{video}/annotation",
    response_model=SavedAnnotation,
    responses={403: {"model": Error}, 409: {"model": ConflictError}, 507: {"model": Error}},
)
def save(video: Number, body: AnnotationBody, own: Own) -> SavedAnnotation | JSONResponse:
    """Make these spans the labels of a video; when this answers, they are on disk."""
    name = own.name(video)
    spans = [Span(span.start, span.stop, span.label) for span in body.spans]
    try:
        saved = own.annotations.save(name, spans, body.base_revision, body.author)
    except Conflict as conflict:
        theirs = ConflictError(error=str(conflict), revision=conflict.revision, spans=span_bodies(conflict.spans))
        return JSONResponse(theirs.model_dump(), status_code=409)
    own.events.publish("annotation", {"video": video, "revision": saved.revision})
    return SavedAnnotation(revision=saved.revision, spans=span_bodies(saved.spans), merged=saved.merged)


@router.get("/{video}/lanes/{lane}/spans")
def predicted_spans(
    video: Number, lane: Literal["prediction", "head"], own: Own, start: Start = 0, stop: Stop = None
) -> PredictedSpans:
    """What is predicted, as stretches that reach into the part asked for, to accept or to correct."""
    name, start, stop = own.stretch(video, start, stop)
    found = own.prediction(name, lane)
    lengths = segment_lengths(found.ids)
    edges = np.cumsum([0, *lengths]).tolist()
    classes = own.annotations.classes
    runs = [(a, b, int(found.ids[a])) for a, b in pairwise(edges) if a < stop and b > start]
    spans = [
        PredictedSpanItem(start=a, stop=b, label=classes[label], confidence=float(found.confidence[a:b].mean()))
        for a, b, label in runs
        if 0 <= label < len(classes)
    ]
    return PredictedSpans(spans=spans)


@router.get("/{video}/lanes/{lane}", response_class=Response, responses={200: {"content": _BYTES}})
def tile(
    video: Number,
    lane: Literal["labels", "prediction", "confidence", "head", "head-confidence", "change", "colour"],
    own: Own,
    start: Start = 0,
    stop: Stop = None,
    width: Width = 1024,
) -> Response:
    """A row of the time line: ``width`` columns over slots ``start`` to ``stop``, as bytes.

    int16 (little-endian) class ids with -1 for none, uint8 levels, or three uint8 of red, green and blue a column.
    """
    name, start, stop = own.stretch(video, start, stop)
    columns, revision = _columns(own, name, lane, start, stop, width)
    headers = {"X-Revision": str(revision)}
    return Response(columns.tobytes(), media_type="application/octet-stream", headers=headers)


def _columns(own: Services, name: str, lane: str, start: int, stop: int, width: int) -> tuple[np.ndarray, int]:
    if lane == "labels":
        labels = own.annotations.labels(name)
        return majority(labels, start, stop, width).astype("<i2"), own.annotations.current(name)[0]
    if lane in ("prediction", "head"):
        found = own.prediction(name, lane)
        return majority(found.ids, start, stop, width).astype("<i2"), own.learner.revision
    if lane.endswith("confidence"):
        found = own.prediction(name, lane)
        return as_bytes(means(found.confidence, start, stop, width)), own.learner.revision
    _check_represented(own, name)
    rows = own.signals.change(name) if lane == "change" else own.signals.colours(name)
    return np.rint(means(rows, start, stop, width)).astype(np.uint8), 0


def _check_represented(own: Services, name: str) -> None:
    latents = own.workspace.latents
    if latents is not None and not own.workspace.represented(name):
        raise NotYet("this video is being encoded; ask again", latents.done / latents.total)


@router.get("/{video}/changes")
def changes(video: Number, own: Own, start: Start = 0, stop: Stop = None) -> Slots:
    """Change points to snap borders to."""
    name, start, stop = own.stretch(video, start, stop)
    _check_represented(own, name)
    return Slots(slots=own.signals.change_points(name, start, stop))


@router.get("/{video}/similarity", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def similarity(
    video: Number, own: Own, start: Start = 0, stop: Stop = None, size: Annotated[int, Query(ge=2, le=1024)] = 256
) -> Response:
    """How alike all moments of a stretch are to each other, as a PNG."""
    name, start, stop = own.stretch(video, start, stop)
    _check_represented(own, name)
    return Response(own.signals.similarity(name, start, stop, size), media_type="image/png")
