"""A model that attends by segment gives the offline latents live, when its segments are closed."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.boundaries import Segmenter, SegmenterConfig
from keystep.boundaries.sources import Features, Latents
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.heads import Affine, LinearHead
from keystep.stream import LiveSegments, LiveSteps
from keystep.stream import steps as implementation

MakeModel = Callable[..., keystep.PJEPA]
SEGMENTS = {"kind": "segment_causal"}
PATTERNS = [SEGMENTS, SEGMENTS | {"window": 7}, SEGMENTS | {"window": 4, "stride": 3, "memory": 15}]
POSITIONS = ["frame", "segment"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers that are replaced often in short tests, and segments that are longer than a piece."""
    monkeypatch.setattr(implementation, "CHUNK", 8)


def discovered(make_model: MakeModel, pattern: dict, **changes: object) -> keystep.PJEPA:
    return make_model(pattern, boundaries="discovered", **changes)


def features(streams: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(streams, frames, 5, generator=torch.Generator().manual_seed(seed))


def segmenter(model: keystep.PJEPA | None = None, longest: float | None = 10) -> Segmenter:
    config = SegmenterConfig(source="latents" if model else "features", window=1.5, shortest=2, longest=longest)
    source = Latents(model) if model else Features(5)
    return Segmenter(config, Fraction(2), source, np.ones(model.config.dim if model else 5), 0.6)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6), ahead=st.integers(0, 12), centring=st.booleans())
def test_closed_segments_are_the_offline_latents_however_late_they_are_closed(
    make_model: MakeModel, pattern: dict, positions: str, lengths: list[int], ahead: int, centring: bool
) -> None:
    """Each segment is closed with up to ``ahead`` frames of the next ones waiting behind it."""
    model = discovered(make_model, pattern, positions=positions, centring=centring)
    frames = features(1, sum(lengths))
    state, parts, fed, end = keystep.stream.init(model), [], 0, 0
    for length in lengths:
        end += length
        latents, state = keystep.stream.step(model, frames[:, fed : end + ahead], state)
        assert latents.shape == (1, 0, 16), "nothing is final before its segment ends"
        fed = max(fed, min(end + ahead, frames.shape[1]))
        latents, state = keystep.stream.close_segments(model, [length], state)
        assert state.given == (length,) and state.frames == (end,) and state.held == (fed - end,)
        parts.append(latents)
    offline = model.encode(frames, segment_lengths=torch.tensor([lengths]))
    torch.testing.assert_close(torch.cat(parts, dim=1), offline, atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", POSITIONS)
def test_streams_side_by_side_close_their_own_segments(make_model: MakeModel, tmp_path: Path, positions: str) -> None:
    model = discovered(make_model, SEGMENTS | {"window": 9}, positions=positions)
    lengths, frames = [[6, 13, 11], [15, 3, 12]], features(2, 30)
    state, parts = keystep.stream.init(model, 2), ([], [])
    closed = [(0, [6, 0], 10), (10, [0, 15], 20), (20, [13, 3], 30)]
    for start, ready, stop in closed:
        _, state = keystep.stream.step(model, frames[:, start:stop], state)
        latents, state = keystep.stream.close_segments(model, ready, state)
        keystep.stream.save(tmp_path / "state", model, state)
        state = keystep.stream.load(tmp_path / "state", model)
        for row, count in enumerate(ready):
            parts[row].append(latents[row, :count])
    rest, state = keystep.stream.finish(model, state)
    for row in range(2):
        parts[row].append(rest[row, : state.given[row]])
    offline = model.encode(frames, segment_lengths=torch.tensor(lengths))
    torch.testing.assert_close(torch.stack([torch.cat(part) for part in parts]), offline, atol=1e-5, rtol=0)
    state = keystep.stream.reset(state, [1])
    assert state.segments == (3, 0) and state.frames == (30, 0)
    _, state = keystep.stream.step(model, frames[:, :6], state)
    latents, state = keystep.stream.close_segments(model, [0, 6], state)
    first = model.encode(frames[1:, :6], segment_lengths=torch.tensor([[6]]))
    torch.testing.assert_close(latents[1:], first, atol=1e-5, rtol=0)


@pytest.mark.parametrize("source", ["features", "latents"])
@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=8), seed=st.integers(1, 3))
def test_frames_in_latents_out_are_the_offline_run_with_the_offline_boundaries(
    make_model: MakeModel, source: str, positions: str, sizes: list[int], seed: int
) -> None:
    model = discovered(make_model, SEGMENTS, positions=positions)
    found = segmenter(make_model({"kind": "causal"}) if source == "latents" else None)
    frames = features(1, max(100, sum(sizes)), seed)
    live, parts, start = LiveSegments(model, found), [], 0
    for size in [*sizes, frames.shape[1] - sum(sizes)]:
        parts.append(live.feed(frames[0, start : start + size].numpy()))
        start += size
        assert sum(map(len, parts)) + live.waiting == start
        assert live.waiting <= live.segmenter.longest + found.look_ahead, "the promised delay"
    now = live.provisional()
    parts.append(live.close())
    lengths = found.segment(frames[0].numpy())
    assert len(lengths) > 4
    offline = model.encode(frames, segment_lengths=torch.tensor([lengths]))
    torch.testing.assert_close(torch.cat(parts)[None], offline, atol=1e-5, rtol=0)
    assert len(now) == len(parts[-1]) and live.waiting == 0
    assert len(live.feed(frames[0].numpy())) + live.waiting == frames.shape[1], "another video"


def test_provisional_latents_take_what_waits_as_one_segment_and_change_nothing(make_model: MakeModel) -> None:
    model = discovered(make_model, SEGMENTS)
    live, undisturbed = LiveSegments(model, segmenter()), LiveSegments(model, segmenter())
    frames = features(1, 60)[0].numpy()
    for start in range(0, 60, 7):
        chunk = frames[start : start + 7]
        torch.testing.assert_close(live.feed(chunk), undisturbed.feed(chunk), atol=0, rtol=0)
        now, seen = live.provisional(), min(60, start + 7)
        starts, _ = live.segmenter.step(frames[:seen], live.segmenter.begin())
        lengths = torch.tensor(np.diff([0, *starts, seen]))[None]
        offline = model.encode(torch.from_numpy(frames[None, :seen]), segment_lengths=lengths)[0]
        torch.testing.assert_close(now, offline[seen - live.waiting :], atol=1e-5, rtol=0)


def test_the_delay_is_the_longest_segment_and_the_look_ahead(make_model: MakeModel) -> None:
    model = discovered(make_model, SEGMENTS)
    assert LiveSegments(model, segmenter()).delay == 10 + (2 + 3) / 2
    assert LiveSegments(model, segmenter(longest=None)).delay is None
    assert keystep.stream.delays(model, 5, 2.0) == (math.inf, 0.0)


def test_an_error_leaves_the_stream_as_it_was(make_model: MakeModel) -> None:
    live = LiveSegments(discovered(make_model, SEGMENTS), segmenter())
    frames = features(1, 30)[0].numpy()
    live.feed(frames)
    before, broken = live.state, frames.copy()
    broken[3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        live.feed(broken)
    assert live.state is before


def test_what_has_no_segments_to_close_or_knows_them_from_the_annotation_is_refused(make_model: MakeModel) -> None:
    model = discovered(make_model, SEGMENTS)
    state = keystep.stream.init(model)
    with pytest.raises(InputError, match="cannot be closed where"):
        keystep.stream.close_segments(model, [1], state)
    causal = make_model({"kind": "causal"})
    with pytest.raises(InputError, match="no segments to close"):
        keystep.stream.close_segments(causal, [0], keystep.stream.init(causal))
    with pytest.raises(InputError, match=r"segment_causal \(ORACLE\) and has no live_attention"):
        keystep.stream.init(make_model(SEGMENTS))
    with pytest.raises(InputError, match="needs no segmenter"):
        LiveSegments(causal, segmenter())


@pytest.fixture
def head() -> LinearHead:
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(3))
    return LinearHead(Affine(weight, torch.zeros(3)), names=("wait", "cut", "tie"))


@pytest.mark.parametrize("size", [1, 7, 60])
def test_readings_are_the_offline_steps_and_no_later_than_promised(
    make_model: MakeModel, head: LinearHead, size: int
) -> None:
    model, found, frames = discovered(make_model, SEGMENTS), segmenter(), features(1, 60)
    live = LiveSteps(model, head, Timeline(rate=Fraction(2)), segmenter=found)
    readings = [r for start in range(0, 60, size) for r in live.feed(frames[0, start : start + size])]
    promised = LiveSegments(model, found).delay + live.timeline.look_ahead + (size - 1) / 2
    assert readings and max(reading.delay for reading in readings) <= promised
    now = live.provisional()
    assert [r.frame for r in now] == list(range(len(readings), 60)) and not any(r.final for r in now)
    readings += live.close()
    lengths = torch.tensor([found.segment(frames[0].numpy())])
    expected = head.probabilities(model.encode(frames, segment_lengths=lengths)[0])
    assert [r.frame for r in readings] == list(range(60)) and [r.time for r in readings] == [n / 2 for n in range(60)]
    np.testing.assert_allclose(np.stack([r.probabilities for r in readings]), expected, atol=1e-5)
    assert live.close() == []
    with pytest.raises(InputError, match="this stream is over"):
        live.feed(frames[0])


def test_a_restart_begins_the_segments_anew(make_model: MakeModel, head: LinearHead) -> None:
    model, found, frames = discovered(make_model, SEGMENTS), segmenter(), features(1, 60)
    live = LiveSteps(model, head, Timeline(rate=Fraction(2)), on_gap="restart", segmenter=found)
    readings = live.feed(frames[0], [n / 2 + (50 if n >= 33 else 0) for n in range(60)]) + live.close()
    parts = []
    for part in (frames[:, :33], frames[:, 33:]):
        lengths = torch.tensor([found.segment(part[0].numpy())])
        parts.append(head.probabilities(model.encode(part, segment_lengths=lengths)[0]))
    np.testing.assert_allclose(np.stack([r.probabilities for r in readings]), torch.cat(parts), atol=1e-5)


def test_steps_need_a_segmenter_of_their_rate_and_are_not_saved(
    make_model: MakeModel, head: LinearHead, tmp_path: Path
) -> None:
    model = discovered(make_model, SEGMENTS)
    with pytest.raises(InputError, match="give the segmenter that finds them"):
        LiveSteps(model, head, Timeline(rate=Fraction(2)))
    with pytest.raises(InputError, match="fitted at 2 Hz, the stream has 4 Hz"):
        LiveSteps(model, head, Timeline(rate=Fraction(4)), segmenter=segmenter())
    with pytest.raises(InputError, match="cannot be saved yet"):
        LiveSteps(model, head, Timeline(rate=Fraction(2)), segmenter=segmenter()).save(tmp_path / "state")
