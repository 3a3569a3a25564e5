"""``keystep serve``: run the web application."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from keystep.cli.data import list_problems, open_data
from keystep.errors import InputError
from keystep.locking import owning

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


def serve_data(
    data: Path,
    videos: Path | None,
    model: str | None,
    head: Path | None,
    host: str,
    port: int,
    token: str | None,
    source_rate: str | None,
    console: Console,
) -> None:
    """Serve a feature folder until Ctrl-C.

    Raises:
        InputError: the extra is missing, unusable data, another server on the same folder, or a port in use.
    """
    check_installed()
    from keystep.serve.workspace import Workspace

    folder = open_data(data, source_rate, None, "skip")
    list_problems(folder, console)
    workspace = Workspace(folder, videos=videos, model=model)
    with ExitStack() as stack:
        if workspace.read_only:
            console.print(f"note: {data} cannot be written to: labels can only be looked at", markup=False)
        else:
            stack.enter_context(owning(data))
        run(workspace, host, port, token, console)


def run(workspace: Workspace, host: str, port: int, token: str | None, console: Console) -> None:
    """Serve a workspace until Ctrl-C."""
    import uvicorn

    from keystep.serve.app import create_app
    from keystep.serve.security import LOOPBACK, Access

    if token is None and host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    app = create_app(workspace, access=Access(host, token))
    listener = _listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
    console.print(f"{len(workspace.names)} videos at {address} (Ctrl-C ends)", soft_wrap=True, markup=False)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_END, ws="websockets-sansio"
    )
    with listener:
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; give another --port") from error
