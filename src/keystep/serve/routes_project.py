"""The project, its classes, what happens in it, and whether the server is well."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse

from keystep.serve.annotations import ClassExists
from keystep.serve.schema import ClassBody, Classes, Error, Project
from keystep.serve.services import Own

router = APIRouter()


@router.get("/api/project")
def project(own: Own) -> Project:
    """What is served."""
    return Project(
        **own.workspace.describe(),
        labelled_videos=own.labelled_videos,
        classes=own.classes(),
        lanes=own.lanes,
        learning=own.learner.status(),
        indexed=own.moments.ready,
    )


@router.post("/api/classes", status_code=201, responses={409: {"model": Error}})
def add_class(body: ClassBody, own: Own) -> Classes:
    """Add a class; ids of others stay."""
    try:
        own.annotations.add_class(body.name)
    except ClassExists as error:
        raise HTTPException(409, str(error)) from error
    found = Classes(classes=own.classes())
    own.events.publish("classes", found.model_dump())
    return found


@router.get("/api/events", response_class=StreamingResponse)
async def events(own: Own) -> StreamingResponse:
    """What happens, as server-sent events: learning, annotation, classes, encoding, index, proxy."""
    return StreamingResponse(own.events.subscribe(), media_type="text/event-stream")


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(own: Own) -> PlainTextResponse:
    """Counts, times and sizes, as Prometheus reads them."""
    return PlainTextResponse(own.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/healthz", response_class=PlainTextResponse)
def health() -> str:
    """Whether the server answers."""
    return "ok\n"
