"""From videos to what can be labelled, in steps that are not done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip

from keystep.config.base import assignments
from keystep.errors import InputError
from keystep.serve import preparing
from keystep.serve.preparing import PreparedVideos, prepare

QUICK = assignments(
    ["model.dim=16", "model.heads=2", "model.depth=1", "model.readout_dim=16", "train.steps=2", "train.crop=16"]
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of four seconds, of changing colours."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(3):
        rng = np.random.default_rng(index)
        pictures = rng.integers(0, 255, (20, 16, 16, 3)).astype(np.uint8)
        write_clip(
            folder / f"v{index}.avi",
            frames=20,
            rate=5,
            height=16,
            width=16,
            codec="mpeg4",
            picture=pictures.__getitem__,
        )
    return folder


@pytest.fixture
def run(videos: Path, tmp_path: Path) -> Callable[..., PreparedVideos]:
    def run(**options: object) -> PreparedVideos:
        given = {"backbone": "toy_backbones:colours", "settings": QUICK, **options}
        return prepare([videos], tmp_path / "out", **given)  # type: ignore[arg-type]

    return run


def test_too_few_videos_are_said_to_be_and_served_by_their_features(run: Callable[..., PreparedVideos]) -> None:
    found = run()
    assert found.model is None and "3 videos" in found.reason and "too few" in found.reason
    assert set(found.folder.videos) == set(found.recordings) == {"v0", "v1", "v2"}
    assert not (found.folder.root.parent / "run").exists()


def test_enough_videos_get_a_model_once(run: Callable[..., PreparedVideos], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "FEWEST_VIDEOS", 3)
    monkeypatch.setattr(preparing, "FEWEST_MINUTES", 0)
    found = run()
    assert found.model is not None and not found.reason
    monkeypatch.setattr(preparing, "pretrain", None)
    assert run().model == found.model, "it is there already"


def test_no_model_is_learned_where_that_is_asked(run: Callable[..., PreparedVideos]) -> None:
    assert run(learn=False).reason == "as asked, no model is learned"


def test_videos_that_cannot_be_read_are_left_out_unless_none_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not one of 1 videos"):
        prepare([tmp_path / "a.mp4"], tmp_path / "out", backbone="toy_backbones:colours")
