"""A model and a temporal head together on a stream: the readings are the offline steps of both."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

import keystep
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.heads import Head, build_head, head_config
from keystep.stream import LiveSteps, Reading

MakeModel = Callable[..., keystep.PJEPA]
TIMELINE = Timeline(rate=Fraction(2))
CAUSAL = {"kind": "causal", "window": 7}
BLOCKS = {"kind": "block_causal", "block": 4}
HEADS = {
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2, "causal": True}),
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 3}),
}


def make_head(name: str, width: int = 16, **changes: object) -> Head:
    kind, settings = HEADS[name]
    head = build_head(head_config(kind, settings | changes), width, 3, seed=0).eval()
    head.names = ("wait", "cut", "tie")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)  # so that the steps differ
    return head


def features(frames: int = 31) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 5)).astype(np.float32)


def offline(model: keystep.PJEPA, head: Head, frames: np.ndarray) -> np.ndarray:
    return head.probabilities(model.encode(torch.from_numpy(frames)[None]))[0].numpy()


def probabilities(readings: list[Reading]) -> np.ndarray:
    return np.stack([reading.probabilities for reading in readings])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("pattern", [CAUSAL, BLOCKS], ids=str)
@pytest.mark.parametrize("size", [1, 5, 31])
def test_readings_are_the_offline_steps_in_order(make_model: MakeModel, name: str, pattern: dict, size: int) -> None:
    model, head, frames = make_model(pattern), make_head(name), features()
    live, readings = LiveSteps(model, head, TIMELINE), []
    for start in range(0, len(frames), size):
        readings += live.feed(frames[start : start + size])
    readings += live.close()
    assert [reading.frame for reading in readings] == list(range(31))
    assert [reading.time for reading in readings] == [index / 2 for index in range(31)]
    np.testing.assert_allclose(probabilities(readings), offline(model, head, frames), atol=1e-5)


def test_the_delay_counts_what_waits_in_the_model_and_in_the_head(make_model: MakeModel) -> None:
    live = LiveSteps(make_model(BLOCKS), make_head("attentive"), TIMELINE)  # blocks of 4, chunks of 3
    readings = [reading for frame in features(12) for reading in live.feed(frame[None])]
    ahead = float(TIMELINE.look_ahead)
    ready = [3, 3, 3, 7, 7, 7, 11, 11, 11, 11, 11, 11]  # the frame with which each one's block and chunk are complete
    assert [reading.delay - ahead for reading in readings] == [(end - i) / 2 for i, end in enumerate(ready)]


@pytest.mark.parametrize("pattern", [CAUSAL, BLOCKS], ids=str)
def test_provisional_readings_are_those_of_the_video_so_far_and_change_nothing(
    make_model: MakeModel, pattern: dict
) -> None:
    model, head, frames = make_model(pattern), make_head("attentive"), features(11)
    live = LiveSteps(model, head, TIMELINE)
    final = live.feed(frames)
    now = live.provisional()
    assert [reading.frame for reading in final + now] == list(range(11)) and not any(r.final for r in now)
    np.testing.assert_allclose(probabilities(final + now), offline(model, head, frames), atol=1e-5)
    rest = live.feed(features()[11:]) + live.close()
    np.testing.assert_allclose(probabilities(final + rest), offline(model, head, features()), atol=1e-5)


def test_a_restart_forgets_what_the_head_knew(make_model: MakeModel) -> None:
    frames, times = features(12), [index / 2 + (10 if index > 5 else 0) for index in range(12)]
    for name in HEADS:
        model, head = make_model(CAUSAL), make_head(name)
        live = LiveSteps(model, head, TIMELINE, on_gap="restart")
        found = live.feed(frames[:8], times[:8]) + live.feed(frames[8:], times[8:]) + live.close()
        parts = np.concatenate([offline(model, head, part) for part in (frames[:6], frames[6:])])
        np.testing.assert_allclose(probabilities(found), parts, atol=1e-5)
        assert [reading.time for reading in found] == times


def test_what_cannot_be_is_refused_in_one_line(make_model: MakeModel) -> None:
    model = make_model(CAUSAL)
    with pytest.raises(InputError, match="this mstcn head reads the whole video; train one with causal=true"):
        LiveSteps(model, make_head("mstcn", causal=False), TIMELINE)
    with pytest.raises(InputError, match="the head expects latents of width 15; the model has 16"):
        LiveSteps(model, make_head("mstcn", width=15), TIMELINE)


@pytest.mark.parametrize("name", HEADS)
def test_a_stream_that_is_over_has_nothing_more_to_say(make_model: MakeModel, name: str) -> None:
    live = LiveSteps(make_model(CAUSAL), make_head(name), TIMELINE)
    live.feed(features(7))  # in the middle of a chunk of 3
    live.close()
    assert live.provisional() == [] and live.close() == []
