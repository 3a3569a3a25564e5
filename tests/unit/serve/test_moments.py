"""Moments that look alike are found, each once, whatever the size of the index."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.serve import moments
from keystep.serve.moments import Building, Moment, MomentSearch, Vectors
from keystep.serve.workspace import Workspace

RATE = 4


def found(searched: MomentSearch, name: str, slot: int, count: int) -> list[Moment]:
    for _ in range(2_000):
        try:
            return searched.find(name, slot, count)
        except Building:
            time.sleep(0.01)
    raise AssertionError("the index was never built")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three videos of noise, in which the same ten slots of an unusual kind stand at 20, 60 and 100."""
    rng, kind = np.random.default_rng(0), 8 * np.random.default_rng(1).normal(size=(1, 12))
    (tmp_path / "features").mkdir()
    for index, name in enumerate("abc"):
        rows = rng.normal(size=(150, 12))
        place = 20 + 40 * index
        rows[place : place + 10] += kind
        np.save(tmp_path / "features" / f"{name}.npy", rows.astype(np.float32))
    (tmp_path / "store.json").write_text('{"time_axis": 0}')
    return Workspace(open_dataset(tmp_path, source_rate=RATE))


def test_the_like_of_a_moment_is_found_once_in_each_other_video(workspace: Workspace) -> None:
    first = found(MomentSearch(workspace, lambda kind, data: None), "a", 25, 2)
    assert {one.video for one in first} == {"b", "c"}
    for one in first:
        place = {"b": 60, "c": 100}[one.video]
        assert place <= one.slot < place + 10
        assert one.start < one.slot < one.stop
        assert one.score > 0.8


def test_two_moments_of_a_video_are_apart_and_the_own_one_is_left_out(workspace: Workspace) -> None:
    many = found(MomentSearch(workspace, lambda kind, data: None), "a", 25, 30)
    places = [(one.video, one.slot) for one in many] + [("a", 25)]
    assert len(many) == 30
    for index, (video, slot) in enumerate(places):
        assert all(abs(slot - other) > RATE * 2 for name, other in places[:index] if name == video)


def test_growth_is_told_and_an_unreadable_video_is_one_line(workspace: Workspace) -> None:
    told: list[tuple[str, dict]] = []
    found(MomentSearch(workspace, lambda kind, data: told.append((kind, data))), "a", 0, 1)
    assert told[-1] == ("index", {"done": 450, "total": 450})
    (workspace.root / "features" / "b.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"b\.npy"):
        found(MomentSearch(workspace, lambda kind, data: None), "a", 0, 1)


def test_a_large_index_finds_nearly_what_comparing_all_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 24))
    rows = centres[rng.integers(200, size=20_000)] + 0.4 * rng.normal(size=(20_000, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(moments, "EXACT", 1_000)
    index = Vectors(rows[::2], len(rows))
    index.add(rows)
    assert not index.exact
    hits = 0
    for row in rows[::400]:
        best = set(np.argsort(-(rows @ row))[:10].tolist())
        hits += len(best & set(index.nearest(row, 10)[1].tolist()))
    assert hits / 500 > 0.95
