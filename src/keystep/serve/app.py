"""The web application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from keystep import __version__
from keystep.errors import InputError, one_line, plain
from keystep.serve import (
    routes_exchange,
    routes_learning,
    routes_media,
    routes_moments,
    routes_project,
    routes_streams,
    routes_videos,
)
from keystep.serve.annotations import AnnotationStore, NotSaved, ReadOnly
from keystep.serve.events import Events
from keystep.serve.learner import Publish, make_learner
from keystep.serve.learning import LabelLearner
from keystep.serve.live_head import LiveHead
from keystep.serve.media import MediaFiles
from keystep.serve.metrics import Measured, ServerMetrics
from keystep.serve.moments import MomentSearch
from keystep.serve.saved_head import SavedHead
from keystep.serve.security import HEADERS, Access, Guard
from keystep.serve.services import Services
from keystep.serve.signals import Signals
from keystep.serve.stream_sources import Sources
from keystep.serve.streams import Streams
from keystep.serve.waiting import NotYet
from keystep.serve.workspace import Workspace

STATIC = Path(__file__).parent / "static"

ROUTES = (
    routes_project,
    routes_videos,
    routes_media,
    routes_learning,
    routes_moments,
    routes_exchange,
    routes_streams,
)

MakeLearner = Callable[[Workspace, AnnotationStore, Publish], LabelLearner]


def create_app(
    workspace: Workspace,
    *,
    learner: MakeLearner = make_learner,
    head: Path | None = None,
    access: Access | None = None,
    allow_sources: bool = False,
) -> FastAPI:
    """The application that serves a workspace, to be run by any ASGI server.

    Args:
        learner: makes what learns from the labels.
        head: file of a head that ``keystep eval`` wrote, whose predictions are shown as well.
        access: who may ask; by default whoever is on this machine.
        allow_sources: live streams may be opened from addresses and cameras.

    Raises:
        InputError: labels or a log of changes that cannot be read, or a head that does not fit.
    """
    services = _services(workspace, learner, head, allow_sources)
    app = FastAPI(
        title="keystep serve", version=__version__, docs_url=None, redoc_url=None, lifespan=partial(_lifespan, services)
    )
    app.state.services = services
    for part in ROUTES:
        app.include_router(part.router)
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
    app.add_middleware(Guard, access=access or Access())
    app.add_middleware(Measured, metrics=services.metrics)
    _gauge(services)
    return app


def _services(workspace: Workspace, learner: MakeLearner, head: Path | None, allow_sources: bool) -> Services:
    """What the routes ask; a model begins to encode the videos."""
    events, metrics = Events(), ServerMetrics()
    annotations = AnnotationStore(workspace.root, workspace.slots, read_only=workspace.read_only)
    saved = None if head is None else SavedHead(workspace, head)
    learns = learner(workspace, annotations, events.publish)
    sources = Sources(workspace, allow_sources)
    live_head = LiveHead(workspace, annotations, learns, None if saved is None else saved.head)
    services = Services(
        workspace,
        annotations,
        events,
        learns,
        Signals(workspace),
        MediaFiles(workspace, events.publish),
        MomentSearch(workspace, events.publish),
        metrics,
        sources,
        Streams(workspace, live_head.now, metrics, sources.feed),
        live_head,
        saved,
    )
    if workspace.latents is not None:
        workspace.latents.begin(lambda done, total: events.publish("encoding", {"done": done, "total": total}))
    return services


@asynccontextmanager
async def _lifespan(services: Services, app: FastAPI) -> AsyncIterator[None]:
    """Close what runs beside the requests when the server ends."""
    yield
    services.hang_up()
    services.streams.close()
    services.live_head.close()
    if services.workspace.latents is not None:
        services.workspace.latents.close()
    services.learner.close()
    services.media.close()
    services.moments.close()
    services.annotations.close()


def _gauge(services: Services) -> None:
    """Make known what is asked for whenever the metrics are read."""
    gauge, workspace, annotations = services.metrics.gauge, services.workspace, services.annotations
    gauge("keystep_videos", "Videos that are served.", lambda: len(workspace.names))
    gauge("keystep_labelled_videos", "Videos with a label.", lambda: services.labelled_videos)
    gauge("keystep_revisions", "Saved changes of labels.", lambda: annotations.revisions)
    gauge("keystep_pages", "Pages that listen to events.", lambda: services.events.subscribers)
    gauge("keystep_learner_fits", "Heads that were fitted.", lambda: services.learner.revision)
    if workspace.latents is not None:
        latents = workspace.latents
        gauge("keystep_encoded_videos", "Videos whose latents are there.", lambda: latents.done)


def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


def _answer(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": plain(one_line(text))}, status_code=status)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = _answer(error.status_code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return _answer(422, f"{place}: {first['msg']}" if place else str(first["msg"]))


def _unusable(request: Request, error: Exception) -> JSONResponse:
    return _answer(507 if isinstance(error, NotSaved) else 422, str(error))


def _read_only(request: Request, error: Exception) -> JSONResponse:
    return _answer(403, str(error))


def _fault(request: Request, error: Exception) -> JSONResponse:
    text = f"a fault of keystep ({type(error).__name__}); where the server was started, it is told in full"
    return JSONResponse({"error": text}, status_code=500, headers=HEADERS)


def _not_yet(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NotYet)
    found = {"error": str(error), "progress": error.progress}
    return JSONResponse(found, status_code=503, headers={"Retry-After": "1"})


ANSWERS = {
    HTTPException: _http_error,
    RequestValidationError: _invalid,
    InputError: _unusable,
    ReadOnly: _read_only,
    NotYet: _not_yet,
    Exception: _fault,
}
"""What is answered to each kind of error."""
