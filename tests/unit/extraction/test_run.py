"""`keystep.extraction.extract`, without the command line."""

import errno
import json
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.data.inspection import inspect_dataset
from keystep.engines import Local
from keystep.errors import InputError
from keystep.extraction import extract
from keystep.extraction.video.decoding import reading
from keystep.progress import Lines

av = pytest.importorskip("av", reason="needs the extra 'video'")

MakeClip = Callable[..., Path]


def test_a_typed_result_says_what_is_there_and_what_was_left_out(make_clip: MakeClip, tmp_path: Path):
    videos = [make_clip(f"{name}.mp4", frames=50) for name in ("a", "b")]
    (tmp_path / "c.mp4").write_text("no video")
    said: list[str] = []
    out = tmp_path / "out"
    done = extract(
        [*videos, tmp_path / "c.mp4"],
        "toy_backbones:moving",
        out=out,
        rate=5,
        window="right",
        on_error="skip",
        progress=Lines(said.append, interval=0),
    )
    assert (done.root, done.videos, done.asked, done.width) == (out, ("a", "b"), 3, 12)
    assert list(done.skipped) == ["c"] and done.warnings == ()
    assert repr(done) == f"Extracted({str(out)!r}, 2 of 3 videos, 1 skipped)"
    assert said[-1].startswith("extracting: 4 of 4 s of video  video 2 of 2, ") and "x real time" in said[-1]
    assert any("2 videos to extract, 1 unreadable" in line for line in said)
    assert open_dataset(out).videos.keys() == {"a", "b"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_that_fails_while_it_is_read_is_left_out_and_no_other(
    make_clip: MakeClip, tmp_path: Path, workers: int
):
    """It is gone after it was checked."""
    videos = [make_clip(f"{name}.mp4", frames=50) for name in ("a", "b", "c")]

    def said(line: str) -> None:
        if "to extract" in line:
            videos[1].unlink(missing_ok=True)

    extracted = partial(extract, videos, "toy_backbones:moving", out=tmp_path / "out", engine=Local(workers))
    done = extracted(on_error="skip", progress=Lines(said, interval=0))
    assert done.videos == ("a", "c") and "b.mp4: no such video file" in done.skipped["b"]
    with pytest.raises(InputError, match="no such file"):
        extracted()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), av.error.InvalidDataError(1, "bad")])
def test_what_the_system_or_ffmpeg_says_of_a_video_is_an_error_about_it(error: Exception):
    with pytest.raises(InputError, match=r"^a\.mp4: cannot be read: "), reading(Path("a.mp4")):
        raise error


def test_labels_of_another_rate_are_refused_before_the_work(make_clip: MakeClip, tmp_path: Path):
    """Half as many lines as frames in one video is a video that was labelled in part; in two it is a rate."""
    videos = [make_clip(f"{name}.mp4", frames=frames) for name, frames in (("a", 50), ("b", 30))]
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "mapping.txt").write_text("0 pour\n")
    for video, lines in zip(videos, (25, 15), strict=True):
        (tmp_path / "groundTruth" / f"{video.stem}.txt").write_text("pour\n" * lines)
    options = {"out": tmp_path / "out", "labels": tmp_path, "rate": 5}
    with pytest.raises(
        InputError, match=r"0\.5 lines per frame in all 2 videos, so the labels are at another rate; give --lab"
    ):
        extract(videos, "toy_backbones:colours", **options)
    assert not (tmp_path / "out" / "features").exists()
    assert extract(videos, "toy_backbones:colours", label_rate=12.5, **options).videos == ("a", "b")
    done = extract(videos[:1], "toy_backbones:colours", **(options | {"out": tmp_path / "one"}))
    assert "the last 25 are unlabelled; are they at another rate (--label-rate)?" in done.warnings[0]


def test_labels_in_doubt_never_replace_good_ones(make_clip: MakeClip, tmp_path: Path):
    video, out = make_clip("a.mp4", frames=50), tmp_path / "out"
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "mapping.txt").write_text("0 pour\n1 stir\n")
    given, kept = tmp_path / "groundTruth" / "a.txt", out / "groundTruth" / "a.txt"
    options = {"out": out, "labels": tmp_path, "rate": 5}
    given.write_text("pour\n" * 50)
    assert extract(video, "toy_backbones:colours", **options).warnings == ()
    good, record = kept.read_text(), (out / "labels.json").read_text()
    given.write_text("stir\n" * 16)
    with pytest.raises(InputError, match=r"a\.txt: labels 10 slots; the new labels would leave 60 % .*--label-rate"):
        extract(video, "toy_backbones:colours", **options)
    assert (kept.read_text(), (out / "labels.json").read_text()) == (good, record)
    done = extract(video, "toy_backbones:colours", on_error="skip", **options)
    assert kept.read_text() == good and "were not taken" in done.skipped["a"]
    (line,) = [line for line in inspect_dataset(out).warnings if "were not taken" in line]
    assert line.startswith("a: ")
    given.write_text("stir\n" * 40)
    done = extract(video, "toy_backbones:colours", **options)
    assert "finished videos get the new ones" in done.warnings[0] and kept.read_text().startswith("stir\n" * 8)


def test_more_features_than_frames_a_second_are_told(make_clip: MakeClip, tmp_path: Path):
    videos = [make_clip("a.mp4", frames=25, rate=25), make_clip("b.mp4", frames=10, rate=10)]
    done = extract(videos, "toy_backbones:colours", out=tmp_path / "out", rate=20)
    (line,) = done.warnings
    assert line.startswith(
        "1 videos have fewer than 20 frames per second, such as b with 10, so adjacent features repeat"
    )
    assert extract(videos, "toy_backbones:colours", out=tmp_path / "slow", rate=10).warnings == ()


def test_what_deserves_a_look_is_noted_and_kept(make_clip: MakeClip, tmp_path: Path):
    """A clock that jumps, and files that are no videos."""
    folder, piece = tmp_path / "videos", make_clip("piece.ts", frames=50)
    folder.mkdir()
    (folder / "a.ts").write_bytes(2 * piece.read_bytes())
    (folder / "a.srt").write_text("")
    done = extract(folder, "toy_backbones:colours", out=tmp_path / "out", rate=5)
    left, jump = done.warnings
    assert "ignored: 1 files without a known video ending (1 .srt)" in left
    assert jump.startswith("a: its clock jumps by -2.0 s at 2.0 s; ")
    record = json.loads((tmp_path / "out" / "features" / "a.json").read_text())
    assert (record["status"], record["notes"]) == ("complete", [jump.removeprefix("a: ")])
    assert record["slots"] == 20


def test_slots_without_a_picture_are_left_out_and_counted(make_clip: MakeClip, tmp_path: Path):
    times = [Fraction(number, 5) + 3600 * (number >= 10) for number in range(20)]
    options = {"out": tmp_path / "out", "rate": 5, "settings": {"longest_hold": 10}}
    done = extract(make_clip("a.mp4", frames=20, times=times), "toy_backbones:colours", **options)
    assert done.warnings == (
        "a: one picture is shown from 1.8 to 3602.0 s",
        "a: 17950 slots omitted, as one picture was shown for too long (limit: --set longest_hold=SECONDS)",
    )
    seconds = open_dataset(tmp_path / "out").times("a")
    assert np.allclose(seconds, [*np.arange(0, 11.9, 0.2), *np.arange(3602, 3603.9, 0.2)])


def test_one_path_is_enough_and_settings_are_checked_first(make_clip: MakeClip, tmp_path: Path):
    video = make_clip("a.mp4", frames=50)
    with pytest.raises(InputError, match="grid 2: efficientnet-lite0 has no such setting"):
        extract(video, out=tmp_path / "out", settings={"grid": 2})
    with pytest.raises(InputError, match="--label-rate 30 is for --labels"):
        extract(video, out=tmp_path / "out", label_rate=30)
    done = extract(str(video), "toy_backbones:colours", out=str(tmp_path / "out"), half=True)
    assert done.videos == ("a",)
    assert np.load(tmp_path / "out" / "features" / "a.npy").dtype == np.float16


def test_features_in_tar_files_are_those_of_a_folder_and_are_resumed(make_clip: MakeClip, tmp_path: Path):
    videos = [make_clip(f"{name}.mp4", frames=50) for name in ("a", "b")]
    options = {"rate": 5, "backbone": "toy_backbones:colours"}
    extract(videos, **options, out=tmp_path / "folder")
    extract(videos[:1], **options, out=tmp_path / "tar", sink="tar")
    said: list[str] = []
    done = extract(videos, **options, out=tmp_path / "tar", sink="tar", progress=Lines(said.append))
    assert done.videos == ("a", "b") and any("1 videos to extract, 1 finished" in line for line in said)
    one, other = (open_dataset(tmp_path / sink) for sink in ("folder", "tar"))
    assert one.fingerprint() == other.fingerprint() and not list((tmp_path / "tar").glob("features/*"))
    assert inspect_dataset(tmp_path / "tar").problems == ()


def test_a_list_names_videos_from_its_own_folder(make_clip: MakeClip, tmp_path: Path):
    for name in ("a", "b", "c"):
        make_clip(f"{name}.mp4", frames=50)
    (tmp_path / "some.txt").write_text(f"a.mp4\n{tmp_path / 'c.mp4'}\n")
    done = extract(tmp_path / "some.txt", "toy_backbones:colours", rate=5, out=tmp_path / "out")
    assert done.videos == ("a", "c")
