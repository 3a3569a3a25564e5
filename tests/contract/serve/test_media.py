"""Recordings: parts of files, single frames, and files that browsers can play."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from clips import read_number, write_clip
from fastapi.testclient import TestClient
from PIL import Image

from keystep.data.folder import open_dataset
from keystep.extraction.backbone import Picture
from keystep.extraction.listing import find_videos
from keystep.extraction.video import open_video
from keystep.serve.media import transcode
from keystep.serve.workspace import Workspace

SHOWS = Picture(height=48, width=64)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of three of the six videos, 25 frames for 5 slots (of 20 to 45) at 5 Hz."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "video.0.mp4", frames=100)
    write_clip(folder / "video.1.avi", frames=125, codec="mpeg4")
    (folder / "video.2.mp4").write_bytes(b"not a video at all")
    return folder


@pytest.fixture
def filmed(mstcn: Path, films: Path, opened: Callable[..., TestClient]) -> Iterator[TestClient]:
    with opened(Workspace(open_dataset(mstcn, source_rate=5), videos=find_videos([films]))) as client:
        yield client


def test_videos_say_whether_browsers_play_them(filmed: TestClient) -> None:
    found = [filmed.get(f"/api/videos/{video}").json() for video in range(4)]
    assert [each["has_video"] for each in found] == [True, True, True, False]
    assert [each["media"] for each in found] == ["/media/0", "/media/1?proxy=1", "/media/2?proxy=1", None]
    assert [each["playable"] for each in found] == [True, False, False, False]


def test_parts_of_a_file_are_the_parts_that_were_asked_for(filmed: TestClient, films: Path) -> None:
    whole = (films / "video.0.mp4").read_bytes()
    answer = filmed.get("/media/0")
    assert answer.status_code == 200 and answer.content == whole and answer.headers["accept-ranges"] == "bytes"
    for asked, expected in (("0-99", whole[:100]), ("100-", whole[100:]), ("-50", whole[-50:])):
        part = filmed.get("/media/0", headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206 and part.content == expected
        assert part.headers["content-range"].endswith(f"/{len(whole)}")
    assert filmed.get("/media/0", headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert filmed.get("/media/3").status_code == 404


@pytest.mark.parametrize("video", [0, 1])
@pytest.mark.parametrize("slot", [0, 7, 19])
def test_thumbnails_show_the_frame_of_the_slot(filmed: TestClient, video: int, slot: int) -> None:
    answer = filmed.get(f"/api/videos/{video}/thumbnail", params={"slot": slot, "height": 48})
    assert answer.headers["content-type"] == "image/jpeg"
    assert read_number(np.asarray(Image.open(BytesIO(answer.content)))) == 5 * slot


def test_thumbnails_have_the_height_that_was_asked_for(filmed: TestClient) -> None:
    answer = filmed.get("/api/videos/0/thumbnail", params={"height": 24})
    assert Image.open(BytesIO(answer.content)).size == (32, 24)


def test_without_a_recording_there_is_no_thumbnail_and_a_damaged_one_is_told(filmed: TestClient) -> None:
    assert filmed.get("/api/videos/3/thumbnail").status_code == 404
    damaged = filmed.get("/api/videos/2/thumbnail")
    assert damaged.status_code == 422 and "video.2.mp4" in damaged.json()["error"]


def test_a_proxy_is_made_once_and_shows_the_same_frames_at_the_same_times(filmed: TestClient, mstcn: Path) -> None:
    first = filmed.get("/media/1", params={"proxy": 1})
    assert first.status_code == 202 and 0 <= first.json()["progress"] <= 1
    for _ in range(200):
        made = filmed.get("/media/1", params={"proxy": 1})
        if made.status_code == 200:
            break
        time.sleep(0.05)
    assert made.headers["content-type"] == "video/mp4"
    (path,) = (mstcn / ".serve" / "proxies").rglob("*.mp4")
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, file.streams.audio) == ("h264", "yuv420p", ())
    frames = [(frame.time, read_number(frame.rgb(SHOWS))) for frame in open_video(path).frames()]
    assert frames == [(Fraction(number, 25), number) for number in range(125)]
    part = filmed.get("/media/1", params={"proxy": 1}, headers={"Range": "bytes=0-9"})
    assert part.status_code == 206 and part.content == path.read_bytes()[:10]


def test_a_proxy_keeps_the_sound_in_step_with_the_pictures(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "a.mkv", frames=50, codec="mpeg4", audio=2)
    transcode(open_video(film), tmp_path / "a.mp4", lambda share: None)
    heard = samples(tmp_path / "a.mp4")
    expected = samples(film)
    assert abs(len(heard) - len(expected)) < 2 * 1024
    assert np.corrcoef(heard[8000:40000], expected[8000:40000])[0, 1] > 0.99
    times = [frame.time for frame in open_video(tmp_path / "a.mp4").frames()]
    assert times == [Fraction(number, 25) for number in range(50)]


def test_sound_that_is_damaged_leaves_the_pictures_as_they_are(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "a.avi", frames=50, codec="mpeg4", audio=2)
    with av.open(str(film)) as file:
        places = [packet.pos for packet in file.demux(audio=0) if packet.size > 20][5:]
    data = bytearray(film.read_bytes())
    for place in places:
        data[place + 12 : place + 40] = b"\xff" * 28
    film.write_bytes(data)
    transcode(open_video(film), tmp_path / "a.mp4", lambda share: None)
    assert len([*open_video(tmp_path / "a.mp4").frames()]) == 50


def samples(path: Path) -> np.ndarray:
    """(N,) of the sound at 48 kHz, from second 0 on."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=48_000)
    with av.open(str(path)) as file:
        frames = [each for frame in file.decode(audio=0) for each in resampler.resample(frame)]
    assert frames[0].pts is not None
    first = round(frames[0].pts * frames[0].time_base * 48_000)
    found = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.pad(found, (first, 0)) if first >= 0 else found[-first:]


def test_a_proxy_that_cannot_be_made_is_one_line(filmed: TestClient) -> None:
    for _ in range(200):
        answer = filmed.get("/media/2", params={"proxy": 1})
        if answer.status_code != 202:
            break
        time.sleep(0.05)
    assert answer.status_code == 422 and "video.2.mp4" in answer.json()["error"]


def test_a_server_that_ends_leaves_no_half_of_a_proxy(
    mstcn: Path, films: Path, opened: Callable[..., TestClient]
) -> None:
    with opened(Workspace(open_dataset(mstcn, source_rate=5), videos=find_videos([films]))) as client:
        client.get("/media/1", params={"proxy": 1})
    left = [path for path in (mstcn / ".serve").rglob("*") if path.is_file()]
    assert all(path.suffix == ".mp4" and not path.name.startswith(".") for path in left)
