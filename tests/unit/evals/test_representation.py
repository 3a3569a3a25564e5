"""Representations that need not fit into memory give the same numbers as those that do."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keystep.data.statistics import principal_colours
from keystep.errors import InputError
from keystep.evals import labelled_frames, probe
from keystep.evals.controls import FramePCA
from keystep.evals.history import Amounts
from keystep.evals.probe import ProbeConfig, fit_probe
from keystep.evals.representation import Computed, Listed, stored

RANDOM = np.random.default_rng(0)
VIDEOS = {f"video{i}": RANDOM.normal(size=(20 + 7 * i, 5)).astype(np.float32) for i in range(9)}
LABELS = [RANDOM.integers(-1, 3, len(video)) for video in VIDEOS.values()]
LABELS = [np.where(labels < 0, -100, labels) for labels in LABELS]


def test_what_does_not_fit_is_computed_again_and_the_rest_is_kept() -> None:
    asked: list[str] = []

    def compute(name: str) -> np.ndarray:
        asked.append(name)
        return VIDEOS[name]

    found = Computed(VIDEOS, compute, most=VIDEOS["video0"].nbytes + VIDEOS["video1"].nbytes)
    for _ in range(2):
        assert all(np.array_equal(found[name], VIDEOS[name]) for name in found)
    assert asked == [*VIDEOS, *list(VIDEOS)[2:]]
    assert "other" not in found and len(found) == len(VIDEOS)
    with pytest.raises(KeyError):
        found["other"]


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_latents_are_the_same_from_a_temporary_file(tmp_path: Path, most: int) -> None:
    found = stored(VIDEOS.items(), tmp_path / "probes", most)
    for name in reversed(VIDEOS):
        np.testing.assert_array_equal(found[name], VIDEOS[name])
    found["video0"][:] = 0  # a copy, which callers may change
    np.testing.assert_array_equal(found["video0"], VIDEOS["video0"])
    assert not any((tmp_path / "probes").iterdir()), "nothing is left behind, however the process ends"


def test_where_nothing_can_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: latents cannot be written"):
        stored(VIDEOS.items(), tmp_path / "file")


def test_a_probe_on_blocks_of_frames_is_the_probe_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    names, config = list(VIDEOS), ProbeConfig(penalties=(0.1, 0.01), choice_frames=50)
    parts = Listed(VIDEOS, names[:6]), LABELS[:6], Listed(VIDEOS, names[6:]), LABELS[6:]
    whole = fit_probe(*parts, classes=3, config=config, bands={"first": 2, "second": 3})
    monkeypatch.setattr(labelled_frames, "BLOCK", 17)
    blocks = fit_probe(*parts, classes=3, config=config, bands={"first": 2, "second": 3})
    np.testing.assert_allclose(blocks.weight, whole.weight, atol=1e-5)
    assert (blocks.strengths, blocks.valid_accuracy) == (whole.strengths, whole.valid_accuracy)


def made_up(count: int) -> Computed:
    """Videos of 2,000 frames that are made on each access."""

    def compute(name: str) -> np.ndarray:
        return np.random.default_rng(int(name)).normal(size=(2_000, 40)).astype(np.float32)

    return Computed(map(str, range(count)), compute, most=0)


def peak(work: Callable[[], object]) -> int:
    """Most bytes of arrays that a call holds."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fit_all(count: int) -> None:
    """A probe, and what controls fit, on ``count`` videos."""
    videos = made_up(count)
    every, labels = Listed(videos, list(videos)), [np.arange(2_000, dtype=np.int16) % 4] * count
    fit_probe(every, labels, every, labels, classes=4, config=ProbeConfig(penalties=(0.1,), choice_frames=1_000))
    FramePCA.fit(every, 3)
    Amounts.fit(every)
    principal_colours(Computed("0", videos.__getitem__))


def test_memory_does_not_grow_with_the_number_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_frames, "BLOCK", 1_000)
    monkeypatch.setattr(probe, "MOST_SCORES", 4_000)
    few, many = peak(lambda: fit_all(3)), peak(lambda: fit_all(12))
    assert many < 1.1 * few, f"{few:,} bytes for 3 videos, {many:,} for 12"
