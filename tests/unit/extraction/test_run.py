"""`keystep.extraction.extract`, without the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.extraction import extract
from keystep.progress import Lines

pytest.importorskip("av", reason="needs the extra 'video'")

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
    assert any("2 videos to do, 1 bad" in line for line in said)
    assert open_dataset(out).videos.keys() == {"a", "b"}


def test_one_path_is_enough_and_settings_are_checked_first(make_clip: MakeClip, tmp_path: Path):
    video = make_clip("a.mp4", frames=50)
    with pytest.raises(InputError, match="grid 2 is not for efficientnet-lite0"):
        extract(video, out=tmp_path / "out", settings={"grid": 2})
    with pytest.raises(InputError, match="--label-rate 30 is for --labels"):
        extract(video, out=tmp_path / "out", label_rate=30)
    done = extract(str(video), "toy_backbones:colours", out=str(tmp_path / "out"), half=True)
    assert done.videos == ("a",)
    assert np.load(tmp_path / "out" / "features" / "a.npy").dtype == np.float16
