"""Who may ask for what. Each rule is a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.serve.annotations import AnnotationStore
from keystep.serve.security import MOST_BODY, Access, Guard
from keystep.serve.workspace import Workspace

TOKEN = "a-token-of-our-own"
PUT = {"base_revision": 0, "spans": []}


@pytest.fixture
def guarded(workspace: Workspace, opened: Callable[..., TestClient]) -> TestClient:
    return opened(workspace, "http://192.0.2.7:8000", access=Access("0.0.0.0", TOKEN))


def test_another_address_than_ones_own_needs_a_token() -> None:
    with pytest.raises(ValueError, match="token"):
        Access("0.0.0.0")


def test_on_ones_own_machine_no_token_is_needed(client: TestClient) -> None:
    assert client.get("/api/project").status_code == 200


def test_with_a_token_nothing_is_told_without_it(guarded: TestClient) -> None:
    for method, path in (
        ("GET", "/api/project"),
        ("GET", "/openapi.json"),
        ("PUT", "/api/videos/0/annotation"),
        ("GET", "/media/0"),
    ):
        answer = guarded.request(method, path)
        assert answer.status_code == 401 and "token" in answer.json()["error"]


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN + "x", "\u00fc", TOKEN.upper()])
def test_a_wrong_token_is_refused(guarded: TestClient, wrong: str) -> None:
    assert guarded.get("/api/project", params={"token": wrong}).status_code == 401
    assert guarded.get("/api/project", headers={"Authorization": f"Bearer {wrong}".encode()}).status_code == 401


def test_the_right_token_is_taken_as_a_header_or_in_the_address(guarded: TestClient) -> None:
    assert guarded.get("/api/project", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/api/project", params={"token": TOKEN}).status_code == 200


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("hmac.compare_digest", lambda *pair: asked.append(pair) or False)
    assert not Access("0.0.0.0", TOKEN).allows_token("wrong")
    assert asked == [(b"wrong", TOKEN.encode())]


def test_what_holds_no_data_needs_no_token(guarded: TestClient) -> None:
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/static/nothing.js").status_code == 404


def test_no_cookie_is_ever_set(client: TestClient, guarded: TestClient) -> None:
    for answer in (client.get("/"), client.get("/api/project"), guarded.get("/", params={"token": TOKEN})):
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.0.0.1"])
def test_names_of_ones_own_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/project", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "192.0.2.7"])
def test_a_name_that_somebody_else_pointed_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/project", headers={"Host": host}).status_code == 403


def test_with_a_token_addresses_are_answered_and_foreign_names_are_not(guarded: TestClient) -> None:
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/api/project", headers={**token, "Host": "192.0.2.7:8000"}).status_code == 200
    assert guarded.get("/api/project", headers={**token, "Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "file://"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_other_pages_can_neither_write_nor_read(client: TestClient, headers: dict[str, str]) -> None:
    assert client.put("/api/videos/0/annotation", json=PUT, headers=headers).status_code == 403
    assert client.get("/api/project", headers=headers).status_code == 403
    assert client.get("/api/videos/0/annotation").json()["revision"] == 0


def test_ones_own_page_can(client: TestClient) -> None:
    headers = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.put("/api/videos/0/annotation", json=PUT, headers=headers).status_code == 200


def test_a_link_from_elsewhere_opens_the_page(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/healthz", headers=headers).status_code == 200
    assert client.get("/api/export", headers=headers).status_code == 403  # work and a download that nobody asked for


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}],
)
def test_sockets_are_held_to_the_same_rules(headers: dict[str, str]) -> None:
    async def greet(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/push", greet)])
    client = TestClient(Guard(app, Access("0.0.0.0", TOKEN)), base_url="http://192.0.2.7")
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect("ws://192.0.2.7/push", headers=headers),
    ):
        pass
    assert refused.value.code == 1008
    own = {"Origin": "http://192.0.2.7", "Authorization": f"Bearer {TOKEN}"}
    with client.websocket_connect("ws://192.0.2.7/push", headers=own) as socket:
        assert socket.receive_text() == "hello"


def test_no_answer_lets_other_origins_read_it(client: TestClient) -> None:
    answer = client.options(
        "/api/project", headers={"Origin": "http://127.0.0.1:8000", "Access-Control-Request-Method": "PUT"}
    )
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("path", ["/api/project", "/api/nothing", "/healthz", "/openapi.json"])
def test_every_answer_forbids_scripts_in_the_page_and_frames_around_it(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_refusals_carry_the_headers_too(client: TestClient) -> None:
    answer = client.get("/api/project", headers={"Host": "evil.example"})
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_body_that_says_it_is_too_large_is_refused_unread(client: TestClient) -> None:
    answer = client.put("/api/videos/0/annotation", content=b"x" * (MOST_BODY + 1))
    assert answer.status_code == 413 and set(answer.json()) == {"error"}


def test_a_body_that_does_not_say_how_large_it_is_is_counted(client: TestClient) -> None:
    pieces = (b"x" * (1 << 20) for _ in range(6))
    answer = client.put("/api/videos/0/annotation", content=pieces)
    assert answer.status_code == 413 and set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/media/..%2f..%2fetc%2fpasswd",
        "/api/videos/..%2f..",
    ],
)
def test_no_path_leads_out_of_the_folders(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422) and "root:" not in answer.text and "FastAPI" not in answer.text


def test_nothing_is_fetched_from_elsewhere_to_read_the_description(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404 and client.get("/redoc").status_code == 404


def test_a_folder_of_a_stranger_cannot_have_other_files_written(mstcn: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("")
    (mstcn / "annotations.jsonl").symlink_to(secret)
    with pytest.raises(InputError, match="a link"):
        AnnotationStore(mstcn, {"video.0": 20})
    (mstcn / ".serve").symlink_to(tmp_path)
    with pytest.raises(InputError, match="a link"):
        Workspace(open_dataset(mstcn, source_rate=4))
