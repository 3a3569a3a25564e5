"""All labels as files of another program, from the page."""

from __future__ import annotations

import zipfile
from io import BytesIO
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

from keystep.plugins import FORMATS
from keystep.serve.routes_exchange import NOTES, SAID


def exported(client: TestClient, form: str) -> zipfile.ZipFile:
    answer = client.get("/api/export", params={"format": form})
    assert answer.headers["content-disposition"] == f'attachment; filename="labels-{form}.zip"'
    return zipfile.ZipFile(BytesIO(answer.content))


def test_what_was_just_saved_is_in_the_files(client: TestClient) -> None:
    spans = [{"start": 4, "stop": 8, "label": "tie a knot"}]
    client.put("/api/videos/0/annotation", json={"base_revision": 0, "spans": spans})
    archive = exported(client, "csv")
    start, stop, label = archive.read("video.0.csv").decode().splitlines()[-1].split(",")
    assert (float(start), float(stop), label) == (1.0, 2.0, "tie a knot")


@pytest.mark.parametrize("form", ["webvtt", "elan", "mstcn"])
def test_every_labelled_video_is_in_the_archive(client: TestClient, form: str) -> None:
    names = exported(client, form).namelist()
    assert all(any(f"video.{index}" in name for name in names) for index in range(6))


def test_one_video_alone(client: TestClient) -> None:
    answer = client.get("/api/export", params={"format": "webvtt", "video": 2})
    assert answer.headers["content-disposition"] == 'attachment; filename="labels-webvtt-video.2.zip"'
    assert [name for name in zipfile.ZipFile(BytesIO(answer.content)).namelist() if "NOTES" not in name] == [
        "video.2.vtt"
    ]
    assert client.get("/api/export", params={"video": 99}).status_code == 404


def test_what_the_files_do_not_hold_is_told_in_the_archive_and_beside_it(client: TestClient) -> None:
    answer = client.get("/api/export", params={"format": "elan"})
    told = zipfile.ZipFile(BytesIO(answer.content)).read(NOTES).decode()
    assert "elan counts milliseconds" in told
    assert unquote(answer.headers[SAID]) == told.strip()


def test_every_format_is_listed_with_what_it_loses_and_what_it_lacks_here(client: TestClient) -> None:
    found = {item["name"]: item for item in client.get("/api/formats").json()["items"]}
    assert set(found) == set(FORMATS.names())
    assert "milliseconds" in found["webvtt"]["loses"]
    assert {name for name, item in found.items() if item["problem"]} == {"mp4"}, "there are no recordings"


def test_what_a_format_needs_and_is_not_there_is_one_line(client: TestClient) -> None:
    answer = client.get("/api/export", params={"format": "cvat"})
    assert answer.status_code == 422 and "frame" in answer.json()["error"]


@pytest.mark.parametrize("form", ["os:system", "../csv", ""])
def test_a_request_never_names_code(client: TestClient, form: str) -> None:
    assert client.get("/api/export", params={"format": form}).status_code == 422
