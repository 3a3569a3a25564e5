"""All labels as files of another program, from the page."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest
from fastapi.testclient import TestClient


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


def test_what_a_format_needs_and_is_not_there_is_one_line(client: TestClient) -> None:
    answer = client.get("/api/export", params={"format": "cvat"})
    assert answer.status_code == 422 and "frame" in answer.json()["error"]


@pytest.mark.parametrize("form", ["os:system", "../csv", ""])
def test_a_request_never_names_code(client: TestClient, form: str) -> None:
    assert client.get("/api/export", params={"format": form}).status_code == 422
