"""Live streams: opened, fed, and told step by step."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, WebSocket
from fastapi.params import Path as PathParameter
from fastapi.responses import Response, StreamingResponse

from keystep.errors import InputError, one_line, plain
from keystep.serve.live import Live
from keystep.serve.schema import Error, NotReady, StreamBody, StreamItem, StreamList, StreamStep
from keystep.serve.services import Own, Services, services_of
from keystep.serve.streams import TooMany

router = APIRouter(prefix="/api/streams", responses={404: {"model": Error}})

Identifier = Annotated[str, PathParameter(pattern="^[0-9a-f]{12}$")]
MOST_MESSAGE = 2 << 20
"""Bytes of a message: a JPEG of a few megapixels, or a hundred frames of features."""
MOST_REASON = 123
"""Bytes of the reason for which a WebSocket is closed."""
REFUSED, TOO_BIG, ENDED = 1008, 1009, 1001


@router.post(
    "",
    status_code=201,
    responses={403: {"model": Error}, 409: {"model": Error}, 429: {"model": Error}, 503: {"model": NotReady}},
)
def open_stream(body: StreamBody, own: Own) -> StreamItem:
    """Open a stream: pushed by a client, read from a file, or from an address or a camera."""
    source = own.sources.checked(body.source)
    try:
        if not own.streams.answers:
            own.live_head.prepare()
        live = own.streams.open(body.name, source)
    except TooMany as error:
        raise HTTPException(429, str(error)) from error
    except InputError as error:
        raise HTTPException(409, str(error)) from error
    return _item(own, live)


@router.get("")
def streams(own: Own) -> StreamList:
    """All streams, and what was said of each last."""
    items = [_item(own, live) for live in own.streams.all()]
    return StreamList(items=items, window=own.streams.window, learning=own.live_head.status())


@router.get("/{stream}")
def stream(stream: Identifier, own: Own) -> StreamItem:
    """One stream."""
    return _item(own, _found(own, stream))


@router.delete("/{stream}", status_code=204, response_class=Response)
def end_stream(stream: Identifier, own: Own) -> None:
    """End a stream and forget it."""
    own.streams.end(_found(own, stream))


@router.get("/{stream}/events", response_class=StreamingResponse)
async def steps(stream: Identifier, own: Own) -> StreamingResponse:
    """The steps from now on, as server-sent events ``step`` {frame, time, step, probability, probabilities, delay}."""
    return StreamingResponse(_found(own, stream).events.subscribe(), media_type="text/event-stream")


@router.websocket("/{stream}/push")
async def push(socket: WebSocket, stream: str, frame: int | None = None) -> None:
    """Feed a stream. First says {next, width, rate, format}, the row or picture to go on with; then takes binary
    messages: float32 little-endian rows, or a JPEG each. ``frame``: go on there, without those in between."""
    own = services_of(socket)
    await socket.accept()
    live = own.streams.find(stream)
    try:
        if live is None:
            raise InputError("there is no such stream; open one with POST /api/streams")
        own.sources.connect(own.streams, live, frame)
    except InputError as error:
        await _close(socket, REFUSED, str(error))
        return
    try:
        await socket.send_json(
            {"next": own.sources.next(live), "width": live.width, "rate": own.sources.rate(live)}
            | {"format": live.source.get("format", "features")}
        )
        await _receive(socket, own, live)
    finally:
        own.streams.connect(live, False)


async def _receive(socket: WebSocket, own: Services, live: Live) -> None:
    """Take messages until the client goes or sends what cannot be used."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is None:
            await _close(socket, REFUSED, "a text message; send binary ones: float32 rows or a JPEG")
            return
        if len(data) > MOST_MESSAGE:
            await _close(socket, TOO_BIG, f"a message of {len(data)} bytes; send at most {MOST_MESSAGE} at once")
            return
        try:
            own.sources.take(own.streams, live, data)
        except InputError as error:
            await _close(socket, ENDED if live.over else REFUSED, str(error))
            return


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    await socket.close(code, plain(one_line(reason)).encode()[:MOST_REASON].decode(errors="ignore"))


def _found(own: Services, stream: str) -> Live:
    live = own.streams.find(stream)
    if live is None:
        raise HTTPException(404, "there is no such stream; it may have been ended")
    return live


def _item(own: Services, live: Live) -> StreamItem:
    return StreamItem(
        id=live.id,
        name=live.name,
        kind=live.source["kind"],
        state=live.state,  # type: ignore[arg-type]  # it is one of these words
        message=live.message,
        frames=live.answered,
        dropped=live.dropped,
        next=own.sources.next(live),
        width=live.width,
        rate=own.sources.rate(live),
        last=None if live.last is None else StreamStep(**live.last),
    )
