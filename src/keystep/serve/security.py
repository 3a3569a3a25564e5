"""Who may ask for what: token, host, origin, sizes. Pure ASGI, so that streams and sockets pass through it too.

Web pages of others must not reach a server that runs on one's own machine: a page may send requests to
``127.0.0.1``, or have its own name point there (DNS rebinding). So the host has to be one of ours, and whatever says
that it comes from another origin is refused. There is no cookie, so nothing is sent along by browsers on their own.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 4 << 20
"""Bytes of a request: 100,000 spans have fewer."""
TOO_LARGE = f"more than {MOST_BODY} bytes; send less at once"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OPEN = ("/", "/healthz")
"""What needs no token, as everything in ``/static/``: the page's own code, which holds no data and asks for the token,
and whether the server is there."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Access:
    """host: what the server is bound to. token: what every request has to bring; None only on the loopback."""

    host: str = "127.0.0.1"
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and self.host not in LOOPBACK:
            raise ValueError(f"{self.host} can be reached by others, so a token is needed")

    def allows_host(self, name: str) -> bool:
        """Whether a Host header is one of ours. Names that others could point to us are not; addresses cannot be."""
        host = _host_of(name)
        if host in LOOPBACK or (host is not None and host == self.host):
            return True
        if self.host in LOOPBACK or host is None:
            return False
        return _is_address(host) or host in (socket.gethostname().lower(), socket.getfqdn().lower())

    def allows_token(self, given: str | None) -> bool:
        """Whether the token is right; takes as long for a wrong one as for the right one."""
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())


class Guard:
    """Refuses what `Access` does not allow, and puts security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            await _refuse(scope, receive, send, *refused)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, _counted(receive) if scope["type"] == "http" else receive, answer)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if not self.access.allows_host(headers.get("host", "")):
            return 403, "this name does not belong to the server; use the address that keystep printed"
        origin = headers.get("origin")
        if origin is not None and not _same_origin(origin, headers["host"]):
            return 403, "asked for by another page; only keystep's own page may"
        path = scope["path"]
        top = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site") and not (
            top and scope.get("method") == "GET" and path in OPEN
        ):
            return 403, "asked for by another page; only keystep's own page may"
        if (
            path not in OPEN
            and not path.startswith("/static/")
            and not self.access.allows_token(_token(headers, scope))
        ):
            return 401, "a token is needed; use the address that keystep printed, or send Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BODY:
            return 413, TOO_LARGE
        return None


def _token(headers: Headers, scope: Scope) -> str | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    found = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
    return found[0] if found else None


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _host_of(header: str) -> str | None:
    """The name or address in a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _counted(receive: Receive) -> Receive:
    """A receive that refuses to go on behind `MOST_BODY` bytes."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, error: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": error})
        return
    body = json.dumps({"error": error}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **HEADERS}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
