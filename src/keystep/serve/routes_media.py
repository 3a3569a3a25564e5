"""Recordings: files to play, and single frames."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse, JSONResponse, Response

from keystep.serve.routes_videos import Number
from keystep.serve.schema import Error, Waiting
from keystep.serve.services import Own

router = APIRouter(responses={404: {"model": Error}})

BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
AT_ONCE = 2
"""Threads that decode at the same time; of others, saving must not have to wait for them."""
KINDS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}


@router.get(
    "/api/videos/{video}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": BYTES}}},
)
async def thumbnail(
    video: Number,
    own: Own,
    slot: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    height: Annotated[int, Query(ge=16, le=1080)] = 120,
) -> Response:
    """What the recording shows at a slot, as a JPEG."""
    name, slot, _ = own.stretch(video, slot, slot + 1)
    if own.workspace.recording(name) is None:
        raise HTTPException(404, "there is no recording of this video")
    picture = await to_thread.run_sync(own.media.thumbnail, name, slot, height, limiter=_decoding())
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})


@cache
def _decoding() -> CapacityLimiter:
    return CapacityLimiter(AT_ONCE)


@router.get(
    "/media/{video}",
    response_class=FileResponse,
    response_model=None,
    responses={
        200: {"content": {"video/mp4": BYTES}},
        202: {"model": Waiting, "description": "A file that browsers can play is being made."},
        206: {"content": {"video/mp4": BYTES}, "description": "The part that was asked for."},
        416: {"description": "A part that the file does not have."},
    },
)
def media(video: Number, own: Own, proxy: bool = False) -> FileResponse | JSONResponse:
    """The recording, or with ``proxy`` a file made of it that browsers can play; parts of it by ``Range``."""
    name = own.name(video)
    path = own.workspace.recording(name)
    if path is None:
        raise HTTPException(404, "there is no recording of this video")
    if proxy and not own.media.playable(name):
        made = own.media.proxy(name)
        if made.path is None:
            return JSONResponse(Waiting(progress=made.progress).model_dump(), status_code=202)
        path = made.path
    kind = KINDS.get(path.suffix.lower(), "application/octet-stream")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})
