"""``keystep serve``: run the web application."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from keystep.cli.data import list_problems, open_data, show_lines
from keystep.cli.progress import progress_on
from keystep.errors import InputError
from keystep.files import is_writable
from keystep.locking import owning
from keystep.stopping import handling_stops, interruptible

if TYPE_CHECKING:
    from keystep.serve.workspace import Workspace

SECONDS_TO_END = 3
"""How long open connections may take to end when the server is stopped."""


def check_installed() -> None:
    """Refuse to go on without the extra.

    Raises:
        InputError: it is missing.
    """
    missing = [name for name in ("fastapi", "uvicorn", "websockets", "av") if find_spec(name) is None]
    if missing:
        raise InputError(f"{missing[0]} is not installed; install it: pip install 'keystep[serve]'")


@dataclass(frozen=True)
class Listening:
    """Where to listen, what requests have to bring (None: a token is made where one is needed), and whether they may
    name addresses and cameras to be opened."""

    host: str
    port: int
    token: str | None
    sources: bool = False


def serve_data(
    data: Path,
    videos: Path | None,
    model: str | None,
    head: Path | None,
    source_rate: str | None,
    where: Listening,
    console: Console,
    live_window: int | None = None,
) -> None:
    """Serve a feature folder until Ctrl-C; ``live_window`` as of `keystep.serve.workspace.Workspace`.

    Raises:
        InputError: the extra is missing, unusable data, another server on the same folder, or a port in use.
    """
    check_installed()
    from keystep.extraction.listing import find_videos
    from keystep.loading import load
    from keystep.serve.workspace import Workspace

    with ExitStack() as stack:
        if is_writable(data):
            stack.enter_context(owning(data))
        else:
            console.print(f"note: {data} cannot be written to: labels can only be looked at", markup=False)
        folder = open_data(data, source_rate, None, "skip")
        list_problems(folder, console)
        recordings = {} if videos is None else find_videos([videos])
        if not recordings.keys() & folder.videos.keys() and videos is not None:
            console.print(f"note: no file of {videos} is named as a feature file of {data} is", markup=False)
        loaded = None if model is None else load(model)
        run(Workspace(folder, videos=recordings, model=loaded, live_window=live_window), head, where, console)


def label_videos(
    videos: list[Path],
    out: Path,
    where: Listening,
    console: Console,
    live_window: int | None = None,
    **options: Any,
) -> None:
    """Prepare videos and serve them until Ctrl-C; ``options`` as for `keystep.serve.preparing.prepare`.

    Raises:
        InputError: as `serve_data`, or the videos cannot be prepared.
    """
    check_installed()
    from keystep.cli.extraction import show_extracted
    from keystep.loading import load
    from keystep.serve.preparing import prepare
    from keystep.serve.workspace import Workspace

    with interruptible(f"stopped; run again to go on in {out}"):
        found = prepare(videos, out, progress=progress_on(console), **options)
    show_extracted(found.extracted, console, onward=False)
    if found.reason:
        console.print(f"note: {found.reason}", soft_wrap=True, markup=False)
    with owning(found.folder.root):
        model = None if found.model is None else load(found.model)
        window = None if model is None else live_window
        served = Workspace(found.folder, videos=found.recordings, model=model, live_window=window)
        run(served, None, where, console)


def run(workspace: Workspace, head: Path | None, where: Listening, console: Console) -> None:
    """Serve a workspace until Ctrl-C."""
    import uvicorn

    from keystep.serve.app import create_app
    from keystep.serve.routes_streams import MOST_MESSAGE
    from keystep.serve.security import LOOPBACK, Access

    token = where.token
    if token is None and where.host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    if workspace.latents is not None:
        show_lines(workspace.latents.warnings, console)
    app = create_app(workspace, head=head, access=Access(where.host, token), allow_sources=where.sources)
    with _listening(where) as listener:
        name = f"[{where.host}]" if ":" in where.host else where.host
        address = f"http://{name}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
        console.print(f"{len(workspace.names)} videos at {address} (Ctrl-C ends)", soft_wrap=True, markup=False)
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SECONDS_TO_END,
            ws="websockets-sansio",
            ws_max_size=MOST_MESSAGE + 1,
        )
        server = uvicorn.Server(settings)

        def stop(number: int, frame: FrameType | None) -> None:
            app.state.services.hang_up()  # or the server would wait for the pages that listen
            uvicorn.Server.handle_exit(server, number, frame)

        server.handle_exit = stop  # type: ignore[assignment, method-assign]
        with handling_stops(stop):  # also those that uvicorn does not hear, and those that it raises again at its end
            server.run(sockets=[listener])


def _listening(where: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server((where.host, where.port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot listen on {where.host}, port {where.port}: {reason}; give another --host or --port"
        ) from error
