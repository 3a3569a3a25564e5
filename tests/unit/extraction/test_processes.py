"""Worker processes: what they say, how they end, and that nobody else's process is touched."""

import multiprocessing
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.data.problems import Problems
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.engines import Local
from keystep.errors import InputError
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.folder import Writing
from keystep.extraction.work import Extraction, MakeExtractor, extract_videos

pytest.importorskip("av", reason="needs the extra 'video'")


def extraction(backbone: str, out: Path) -> Extraction:
    writing = Writing(FeatureStore(out, Timeline(rate=Fraction(5))).create())
    config = ExtractionConfig(backbone=f"toy_backbones:{backbone}", rate=Fraction(5))
    return Extraction(writing, MakeExtractor(config, None, "cpu"))


def test_bad_videos_are_told_in_the_workers_words_and_only_workers_are_ended(
    make_clip: Callable[..., Path], tmp_path: Path
):
    ours = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    ours.start()
    videos = {name: make_clip(f"{name}.mp4", frames=50) for name in ("a", "b", "c")}
    videos["b"].write_text("no video")
    work = extraction("colours", tmp_path / "out")
    problems, advances = Problems("skip"), []
    done = list(extract_videos(work, videos, problems, lambda *far: advances.append(far), Local(2)))
    assert sorted(outcome.name for outcome in done) == ["a", "c"]
    assert list(problems.skipped) == ["b"] and "b.mp4: not a readable video" in problems.skipped["b"]
    np.testing.assert_allclose(np.sum(advances, axis=0), [2 * 49 / 25, 100])
    assert multiprocessing.active_children() == [ours]
    ours.kill()


def test_a_worker_that_dies_is_told_in_one_line(make_clip: Callable[..., Path], tmp_path: Path):
    videos = {name: make_clip(f"{name}.mp4") for name in ("a", "b")}
    work = extraction("dying", tmp_path / "out")
    with pytest.raises(InputError, match=r"[ab]: the worker process died, possibly out of memory"):
        list(extract_videos(work, videos, Problems("skip"), lambda *far: None, Local(2)))
    assert multiprocessing.active_children() == []


def test_a_backbone_that_no_worker_can_load_is_told_though_bad_videos_are_skipped(
    make_clip: Callable[..., Path], tmp_path: Path
):
    videos = {name: make_clip(f"{name}.mp4") for name in ("a", "b")}
    work = extraction("nothing", tmp_path / "out")
    problems = Problems("skip")
    with pytest.raises(InputError, match="nothing"):
        list(extract_videos(work, videos, problems, lambda *far: None, Local(2)))
    assert problems.skipped == {} and multiprocessing.active_children() == []
