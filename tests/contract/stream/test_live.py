"""Readings on a stream: the offline steps, with the delay they come with."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import keystep
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.heads import Affine, LinearHead, linear_head
from keystep.stream import LiveSteps, Smoothing

MakeModel = Callable[..., keystep.PJEPA]
TIMELINE = Timeline(rate=Fraction(2))
CAUSAL = {"kind": "causal", "window": 7}
BLOCKS = {"kind": "block_causal", "block": 4}


@pytest.fixture
def head() -> LinearHead:
    generator = torch.Generator().manual_seed(3)
    return linear_head(Affine(torch.randn(3, 16, generator=generator), torch.zeros(3)), names=("wait", "cut", "tie"))


def features(frames: int = 30) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 5)).astype(np.float32)


def offline(model: keystep.PJEPA, head: LinearHead, frames: np.ndarray) -> torch.Tensor:
    return head.probabilities(model.encode(torch.from_numpy(frames)[None])[0])


@pytest.mark.parametrize("pattern", [CAUSAL, BLOCKS], ids=str)
@pytest.mark.parametrize("size", [1, 3, 30])
def test_readings_are_the_offline_steps_in_order(
    make_model: MakeModel, head: LinearHead, pattern: dict, size: int
) -> None:
    model, frames = make_model(pattern), features()
    live = LiveSteps(model, head, TIMELINE)
    readings = []
    for start in range(0, len(frames), size):
        readings += live.feed(frames[start : start + size])
    readings += live.close()
    expected = offline(model, head, frames)
    assert [reading.frame for reading in readings] == list(range(30))
    assert [reading.time for reading in readings] == [index / 2 for index in range(30)]
    assert [reading.step for reading in readings] == expected.argmax(-1).tolist()
    found = np.stack([reading.probabilities for reading in readings])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert all(reading.final and reading.probability == reading.probabilities.max() for reading in readings)


class Counted(TorchDispatchMode):
    """Counts the operations of torch, and the numbers that they give."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += 1
        self.numbers += sum(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


@pytest.mark.parametrize("pattern", [CAUSAL, {**BLOCKS, "window": 8}], ids=str)
@pytest.mark.parametrize("size", [64, 300])
def test_a_chunk_is_as_much_work_after_many_as_after_a_few(
    make_model: MakeModel, head: LinearHead, pattern: dict, size: int
) -> None:
    """Operations, numbers computed, memory and moments kept: none grows with what has been seen."""
    live, frames, costs = LiveSteps(make_model(pattern), head, TIMELINE), features(size), []
    for _ in range(16):
        with Counted() as counted:
            live.feed(frames)
        costs.append((counted.count, counted.numbers, live.state.position.size_bytes, len(live.state.times)))
    assert [max(cost) for cost in zip(*costs[9:], strict=True)] == [max(cost) for cost in zip(*costs[2:9], strict=True)]


def test_a_delay_is_the_time_from_the_frame_to_the_last_one_fed(make_model: MakeModel, head: LinearHead) -> None:
    ahead = float(TIMELINE.look_ahead)
    one_by_one = LiveSteps(make_model(BLOCKS), head, TIMELINE)
    readings = [reading for frame in features(8) for reading in one_by_one.feed(frame[None])]
    assert [reading.delay - ahead for reading in readings] == [1.5, 1.0, 0.5, 0.0] * 2
    at_once = LiveSteps(make_model(CAUSAL), head, TIMELINE)
    assert [reading.delay - ahead for reading in at_once.feed(features(3))] == [1.0, 0.5, 0.0]
    right = Timeline(rate=Fraction(2), alignment="right")
    assert LiveSteps(make_model(CAUSAL), head, right).feed(features(1))[0].delay == 0.0


def test_provisional_readings_are_those_of_the_video_so_far_and_change_nothing(
    make_model: MakeModel, head: LinearHead
) -> None:
    model, frames = make_model(BLOCKS), features(10)
    live, undisturbed = (LiveSteps(model, head, TIMELINE, Smoothing(half_life=1)) for _ in range(2))
    final = live.feed(frames)
    now = live.provisional()
    assert [reading.frame for reading in now] == [8, 9] and not any(reading.final for reading in now)
    assert [reading.delay for reading in now] == [0.5 + float(TIMELINE.look_ahead), float(TIMELINE.look_ahead)]
    assert live.provisional()[0].step == now[0].step
    undisturbed.feed(frames)
    rest = features(12)[10:]
    again, expected = live.feed(rest), undisturbed.feed(rest)
    assert [r.probability for r in again] == [r.probability for r in expected]
    assert len(final) == 8 and len(again) == 4


def test_times_of_the_source_are_kept(make_model: MakeModel, head: LinearHead) -> None:
    live = LiveSteps(make_model(BLOCKS), head, TIMELINE)
    times = [100.0, 100.45, 101.0, 101.52, 102.0]
    readings = live.feed(features(5)[:3], times[:3]) + live.feed(features(5)[3:], times[3:]) + live.close()
    assert [reading.time for reading in readings] == times


@pytest.mark.parametrize(
    ("times", "line"),
    [
        ([5.0, 4.5], "time goes backwards: a frame at 4.5 s follows one at 5 s"),
        ([1.0, 1.5], "time goes backwards: a frame at 1 s follows one at 1 s"),
        ([1.5, 4.0], "a gap: the frame at 4 s follows one at 1.5 s, at 2 Hz"),
        ([9.0, 9.5], "a gap: the frame at 9 s follows one at 1 s"),
        ([1.5], "2 frames with 1 times"),
        ([1.5, float("nan")], "time goes backwards"),
        ([1.5, 1.6], "frames at 1.5 s and 1.6 s are too close for 2 Hz"),
        (None, "frame 3: some frames have a time and some do not"),
    ],
)
def test_times_that_cannot_be_are_refused_and_change_nothing(
    make_model: MakeModel, head: LinearHead, times: list[float] | None, line: str
) -> None:
    live, undisturbed = (LiveSteps(make_model(CAUSAL), head, TIMELINE) for _ in range(2))
    for stream in (live, undisturbed):
        stream.feed(features(3), [0.0, 0.5, 1.0])
    with pytest.raises(InputError, match=line):
        live.feed(features(5)[3:], times)
    readings, expected = (stream.feed(features(5)[3:], [1.5, 2.0]) for stream in (live, undisturbed))
    assert [r.probability for r in readings] == [r.probability for r in expected]
    assert live.state.frames == undisturbed.state.frames == 5


def test_a_bridged_gap_goes_on_and_a_restart_forgets(make_model: MakeModel, head: LinearHead) -> None:
    frames, times = features(12), [index / 2 + (10 if index > 5 else 0) for index in range(12)]
    for pattern in (CAUSAL, BLOCKS):
        model = make_model(pattern)
        bridged = LiveSteps(model, head, TIMELINE, on_gap="bridge")
        found = bridged.feed(frames, times) + bridged.close()
        assert [r.step for r in found] == offline(model, head, frames).argmax(-1).tolist() and bridged.state.gaps == 1
        restarted = LiveSteps(model, head, TIMELINE, on_gap="restart")
        found = restarted.feed(frames[:8], times[:8]) + restarted.feed(frames[8:], times[8:]) + restarted.close()
        parts = torch.cat([offline(model, head, part) for part in (frames[:6], frames[6:])])
        np.testing.assert_allclose(np.stack([r.probabilities for r in found]), parts.numpy(), atol=1e-5)
        assert [r.frame for r in found] == list(range(12)) and [r.time for r in found] == times
        assert restarted.state.gaps == 1


@pytest.mark.parametrize("pattern", [CAUSAL, BLOCKS], ids=str)
def test_a_saved_stream_goes_on_with_the_same_readings(
    make_model: MakeModel, head: LinearHead, tmp_path: Path, pattern: dict
) -> None:
    model, frames = make_model(pattern), features()
    smoothing = Smoothing(half_life=1.0, hold=1.0)
    first = LiveSteps(model, head, TIMELINE, smoothing)
    first.feed(frames[:17])
    first.save(tmp_path / "state")
    second = LiveSteps(model, head, TIMELINE, smoothing)
    second.resume(tmp_path / "state")
    one, two = (stream.feed(frames[17:]) + stream.close() for stream in (first, second))
    assert [(r.frame, r.time, r.step, r.probability, r.delay) for r in one] == [
        (r.frame, r.time, r.step, r.probability, r.delay) for r in two
    ]
    keystep.stream.save(tmp_path / "bare", model, first.state.position.model)
    with pytest.raises(InputError, match="bare: the state of a model; resume it with exactly these"):
        second.resume(tmp_path / "bare")


def test_a_resumed_stream_needs_its_head_and_its_rate(make_model: MakeModel, head: LinearHead, tmp_path: Path) -> None:
    model = make_model(CAUSAL)
    live = LiveSteps(model, head, TIMELINE)
    live.feed(features(9))
    live.save(tmp_path / "state", {"source": "x"})
    other = linear_head(Affine(head.steps.weight + 1, head.steps.bias), names=head.names)
    with pytest.raises(InputError, match="state: the state of another head"):
        LiveSteps(model, other, TIMELINE).resume(tmp_path / "state")
    with pytest.raises(InputError, match=r"state: the state of a stream with the timeline .*'rate': '2'"):
        LiveSteps(model, head, Timeline(rate=Fraction(4))).resume(tmp_path / "state")
    again = LiveSteps(model, head, TIMELINE)
    assert again.resume(tmp_path / "state") == {"source": "x"} and again.state.frames == 9


def test_smoothing_goes_on_where_it_was(make_model: MakeModel, head: LinearHead, tmp_path: Path) -> None:
    """Saved in the middle of a hold, at every frame, so that forgetting how long a step has led would show."""
    model, frames = make_model(CAUSAL), features()
    smoothing = Smoothing(hold=1.0)
    whole = [r.step for r in LiveSteps(model, head, TIMELINE, smoothing).feed(frames)]
    assert len(set(whole)) > 1
    for cut in range(1, len(frames)):
        first, second = (LiveSteps(model, head, TIMELINE, smoothing) for _ in range(2))
        before = first.feed(frames[:cut])
        first.save(tmp_path / "state")
        second.resume(tmp_path / "state")
        assert [r.step for r in before + second.feed(frames[cut:])] == whole


def test_a_head_with_activity_announces_what_it_predicts(make_model: MakeModel) -> None:
    """Eleven steps against the background: the likeliest class is not always what the head predicts."""
    generator = torch.Generator().manual_seed(0)
    steps, activity = (Affine(torch.randn(n, 16, generator=generator), torch.zeros(n)) for n in (11, 2))
    head = linear_head(steps, activity, background=3)
    model, frames = make_model(CAUSAL), features(200)
    latents = model.encode(torch.from_numpy(frames)[None])[0]
    expected = head.predict(latents)
    assert (expected != head.probabilities(latents).argmax(-1)).any()
    found = [r.step for r in LiveSteps(model, head, TIMELINE).feed(frames)]
    assert found == expected.tolist()


def test_an_error_behind_a_restart_takes_nothing(make_model: MakeModel, head: LinearHead) -> None:
    live, undisturbed = (LiveSteps(make_model(BLOCKS), head, TIMELINE, on_gap="restart") for _ in range(2))
    for stream in (live, undisturbed):
        stream.feed(features(6), [index / 2 for index in range(6)])
    with pytest.raises(InputError, match="this stream takes"):
        live.feed(np.zeros((2, 6), np.float32), [100.0, 100.5])
    assert live.state.waiting == 2 and live.state.gaps == 0
    after = [[r.probability for r in stream.feed(features(8)[6:], [3.0, 3.5])] for stream in (live, undisturbed)]
    assert after[0] == after[1] and len(after[0]) == 4


def test_hours_leave_nothing_behind_but_the_state(make_model: MakeModel, head: LinearHead) -> None:
    live = LiveSteps(make_model(CAUSAL), head, TIMELINE)
    for _ in range(50):
        live.feed(features(20))
    assert len(live.state.times) == 1


def test_what_does_not_fit_is_refused(make_model: MakeModel, head: LinearHead) -> None:
    with pytest.raises(InputError, match="expects latents of width 16; the model has 20"):
        LiveSteps(make_model(CAUSAL, dim=20), head, TIMELINE)
    live = LiveSteps(make_model(CAUSAL), head, TIMELINE, on_gap="restart")
    with pytest.raises(InputError, match=r"shape \(5,\); expected \(n, D_in\)"):
        live.feed(features(1)[0])
    broken = features(4)
    broken[3, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        live.feed(broken, [0.0, 0.5, 30.0, 30.5])
    assert live.state.frames == 0 and live.state.gaps == 0, "nothing of a refused chunk is taken"
