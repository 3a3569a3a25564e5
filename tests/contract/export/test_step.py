"""The step as plain tensors: the numbers of `keystep.stream`, whatever the attention, the call and the stream."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.errors import InputError
from keystep.export import ExportedStep
from keystep.heads import Affine, linear_head
from keystep.nn.rope import RealRotation, rotary_tables, rotate

MakeModel = Callable[..., keystep.PJEPA]


def random_features(streams: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(streams, frames, 5, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(
    step: ExportedStep, features: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Latents of all frames, and the state behind them."""
    state = step.initial() if state is None else state
    parts = []
    for chunk in features.split(step.frames, dim=1):
        latents, *rest = step(chunk, *state)
        state = tuple(rest)
        parts.append(latents)
    return torch.cat(parts, dim=1), state


@st.composite
def patterns(draw: st.DrawFn) -> dict:
    kind = draw(st.sampled_from(["causal", "block_causal"]))
    pattern: dict[str, object] = {"kind": kind, "window": draw(st.integers(1, 12))}
    if kind == "block_causal":
        pattern["block"] = draw(st.integers(1, 6))
    if draw(st.booleans()):
        pattern |= {"stride": draw(st.integers(1, 7)), "memory": pattern["window"] + draw(st.integers(1, 30))}
    return pattern


@settings(max_examples=40, deadline=None)
@given(pattern=patterns(), calls=st.integers(1, 3), streams=st.integers(1, 2), cut=st.integers(0, 8))
@pytest.mark.parametrize(
    "fields", [{}, {"rotary": "tiled"}, {"tau": 2.5, "readout_dim": 24}], ids=["relative", "tiled", "bands"]
)
def test_every_windowed_pattern_gives_the_latents_of_the_stream_from_anywhere(
    make_model: MakeModel, fields: dict, pattern: dict, calls: int, streams: int, cut: int
) -> None:
    """From the first frame, and taken over from `keystep.stream` in the middle."""
    model = make_model(pattern, **fields)
    frames = calls * pattern.get("block", 1)
    step = ExportedStep(model, frames, streams)
    features = random_features(streams, frames * (45 // frames + 9))
    expected = model.encode(features)
    torch.testing.assert_close(run(step, features)[0], expected, atol=1e-5, rtol=0)
    past = cut * frames
    _, state = keystep.stream.step(model, features[:, :past], keystep.stream.init(model, streams))
    later, _ = run(step, features[:, past:], step.taken_over(state))
    torch.testing.assert_close(later, expected[:, past:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_pooler_of_tokens_is_part_of_the_program(make_model: MakeModel, depth: int) -> None:
    model = make_model({"kind": "causal", "window": 4}, tokens=5, pooler_depth=depth)
    assert model.encoder.pooler is not None
    torch.nn.init.normal_(model.encoder.pooler.score.weight)
    step = ExportedStep(model, 2)
    program = torch.export.export(step, (torch.zeros(step.input_shape), *step.initial())).module()
    features = random_features(1, 2)
    torch.testing.assert_close(program(features, *step.initial())[0], model.encode(features), atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [8, 9, 10, 16, 22])
@pytest.mark.parametrize("variant", ["relative", "tiled"])
def test_real_rotation_is_the_complex_one(width: int, variant: str) -> None:
    positions = torch.tensor([[0, 1, 77, 144_000, 10_000_000, 2_000_000_000]])
    x = torch.randn(1, 3, 6, width)
    rotation = RealRotation(width, variant)
    expected = rotate(x, rotary_tables(positions, width, variant))
    torch.testing.assert_close(rotation(positions)(x), expected, atol=2e-6, rtol=0)


def test_a_stream_whose_counter_is_set_to_zero_begins_anew_and_the_other_goes_on(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal", "window": 5, "stride": 3, "memory": 17}, tau=2.5)
    step = ExportedStep(model, 1, 2)
    past, following = random_features(2, 40), random_features(2, 30, seed=2)
    _, (frame, *rest) = run(step, past)
    frame[1] = 0
    latents, _ = run(step, following, (frame, *rest))
    torch.testing.assert_close(latents[1:], model.encode(following[1:]), atol=1e-5, rtol=0)
    both = torch.cat([past, following], dim=1)[:1]
    torch.testing.assert_close(latents[:1], model.encode(both)[:, 40:], atol=1e-5, rtol=0)


def test_a_head_adds_class_probabilities(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal", "window": 5})
    head = linear_head(Affine(torch.randn(2, 16), torch.randn(2)), Affine(torch.randn(2, 16), torch.randn(2)), 1)
    step = ExportedStep(model, 2, 1, head)
    with torch.no_grad():
        latents, probabilities, *state = step(random_features(1, 2), *step.initial())
    torch.testing.assert_close(probabilities, head.probabilities(latents))
    assert step.outputs == {"latents": (1, 2, 16), "probabilities": (1, 2, 3)} and len(state) == len(step.state)


def test_the_state_is_what_it_says(make_model: MakeModel) -> None:
    """Nothing but fixed shapes: the window and a call, the strided columns, and one column for nothing."""
    step = ExportedStep(make_model({"kind": "causal", "window": 7, "stride": 4, "memory": 17}, centring=False), 2, 3)
    names = [tensor.name for tensor in step.state]
    assert names == ["frame", "keys.0", "values.0", "keys.1", "values.1"], "no running sum without centring"
    assert step.state[1].shape == (3, 2, (7 - 1 + 2) + 5 + 1, 8)
    _, state = run(step, random_features(3, 60))
    assert [(x.shape, x.dtype) for x in state] == [(x.shape, x.dtype) for x in step.initial()]


REFUSED = [
    ({"kind": "causal"}, 1, "causal attention without a window.*give --window N.*changes its latents"),
    ({"kind": "block_causal", "block": 4}, 4, "without a window.*--window N"),
    ({"kind": "block_causal", "block": 4, "window": 9}, 6, "frames must be a multiple of the model's block, 4, not 6"),
    ({"kind": "causal", "window": 9}, 0, "frames and streams must be at least 1, not 0 and 1"),
    ({"kind": "bidirectional", "window": 9}, 1, "cannot be exported as a streaming step"),
    ({"kind": "segment_causal", "window": 9}, 1, "cannot be exported as a streaming step"),
]


@pytest.mark.parametrize(("pattern", "frames", "line"), REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_line(
    make_model: MakeModel, pattern: dict, frames: int, line: str
) -> None:
    with pytest.raises(InputError, match=line) as refusal:
        ExportedStep(make_model(pattern), frames)
    assert "\n" not in str(refusal.value)


def test_heads_and_states_that_do_not_fit_are_refused(make_model: MakeModel) -> None:
    model = make_model({"kind": "block_causal", "block": 4, "window": 9})
    with pytest.raises(InputError, match="the head expects latents of width 3, but the model has 16"):
        ExportedStep(model, 4, 1, linear_head(Affine(torch.zeros(2, 3), torch.zeros(2))))
    step = ExportedStep(model, 4)
    _, waiting = keystep.stream.step(model, random_features(1, 6), keystep.stream.init(model))
    with pytest.raises(InputError, match="with up to 2 pending frames"):
        step.taken_over(waiting)
    with pytest.raises(InputError, match="state of 2 streams"):
        step.taken_over(keystep.stream.init(model, 2))
    with pytest.raises(InputError, match="a model with other settings"):
        step.taken_over(keystep.stream.init(make_model({"kind": "causal"})))
