"""No softmax that keystep asks for is over nothing, so no kernel can make a NaN of it, whatever the device.

On CUDA in bfloat16 and float16 a wholly hidden row gave its query a NaN for a gradient, and one such step ruined a
model; on a CPU and in float32 the same row is harmless. So what is tested is what the kernels are handed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

import keystep
from keystep.batch import SequenceBatch
from keystep.config.attention import AttentionPattern
from keystep.export import ExportedStep
from keystep.heads import build_head, head_config
from keystep.nn import attention, tiles
from keystep.nn.attention import attend
from keystep.nn.places import Packing, Places, lay_out
from keystep.stream import finish, init, step

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
MakeModel = Callable[..., keystep.PJEPA]


class Masks(TorchFunctionMode):
    """Looks at the mask of every attention kernel and at the scores of every plain softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0
        """Masks that kernels were given."""
        self.softmaxes = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        mask = kwargs.get("attn_mask")
        if mask is not None:
            self.kernels += 1
            lowest = torch.finfo(args[0].dtype).min / 4
            seen = mask if mask.dtype == torch.bool else mask > lowest
            assert bool(seen.any(-1).all()), f"{int((~seen.any(-1)).sum())} rows of a mask are wholly hidden"
        if getattr(func, "__name__", "") in ("softmax", "log_softmax"):
            self.softmaxes += 1
            assert bool((args[0].amax(-1) > torch.finfo(args[0].dtype).min / 4).all()), "a softmax over nothing"
        return func(*args, **kwargs)


@contextmanager
def watched() -> Iterator[Masks]:
    with Masks() as masks:
        yield masks


@st.composite
def patterns(draw: st.DrawFn, kinds: tuple[str, ...], least_window: int | None = None) -> dict[str, Any]:
    kind = draw(st.sampled_from(kinds))
    pattern: dict[str, Any] = {"kind": kind, "window": draw(st.sampled_from([least_window, 1, 2, 5, 60]))}
    if kind == "block_causal":
        pattern["block"] = draw(st.sampled_from([1, 3, 8]))
    if pattern["window"] and draw(st.booleans()):
        pattern |= {
            "stride": draw(st.sampled_from([1, 2, 3, 9])),
            "memory": pattern["window"] + draw(st.integers(1, 30)),
        }
    return pattern


ANY = patterns(("bidirectional", "causal", "block_causal", "segment_causal"))
LIVE = patterns(("causal", "block_causal"))


@st.composite
def paddings(draw: st.DrawFn, rows: int, frames: int) -> Tensor:
    """(B, T) bool: videos of any length, perhaps none of whose frames is real."""
    lengths = draw(st.lists(st.integers(0, frames), min_size=rows, max_size=rows))
    return torch.arange(frames) < torch.tensor(lengths)[:, None]


@st.composite
def pairs(draw: st.DrawFn, rows: int, frames: int) -> tuple[Places, Places | None]:
    """Queries, and keys of the same videos (None: the queries' own)."""
    valid = draw(paddings(rows, frames))
    return draw(layouts(valid)), draw(st.none() | layouts(valid))


@st.composite
def layouts(draw: st.DrawFn, valid: Tensor) -> Places:
    """Some frames of padded videos of two segments, moved together as the encoder does."""
    lengths = valid.sum(1)
    segments = torch.stack([lengths - lengths // 3, lengths // 3], dim=1)
    share, seed = draw(st.sampled_from([1.0, 0.6, 0.1])), draw(st.integers(0, 10_000))
    keep = torch.rand(valid.shape, generator=torch.Generator().manual_seed(seed)) < share
    packed = draw(st.booleans())
    return Packing(keep & valid).places(lay_out(valid, segments)) if packed else lay_out(valid, segments)


def heads_of(queries: Places, keys: Places, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = [p.positions.shape[1] for p in (queries, keys, keys)]
    return [
        torch.randn(len(queries.positions), 2, n, 8, generator=generator).to(dtype).requires_grad_() for n in lengths
    ]


def assert_attention_is_open(
    pattern: AttentionPattern, queries: Places, keys: Places | None, dtype: torch.dtype, merging: bool
) -> int:
    """Forward and backward; returns how many masks there were. Outputs of who sees nothing are zeros as ever."""
    inputs = heads_of(queries, keys or queries, dtype)
    with pytest.MonkeyPatch.context() as patch, watched() as masks:
        if not merging:
            patch.setattr(attention, "_can_merge", lambda query: False)
        out = attend(*inputs, pattern, queries, keys)
        grads = torch.autograd.grad(out.float().square().sum(), inputs)
    blind = ~attention.visible(pattern, queries, keys or queries).any(-1)[:, None, :, None].expand_as(out)
    assert not out[blind].any() and all(bool(grad.isfinite().all()) for grad in grads)
    assert not grads[0][blind].any()
    return masks.kernels


@settings(max_examples=200, deadline=None)
@given(data=st.data(), pattern=ANY, rows=st.integers(1, 3), frames=st.sampled_from([1, 7, 16, 33]))
def test_no_row_of_any_plan_is_wholly_hidden(data: st.DataObject, pattern: dict, rows: int, frames: int) -> None:
    queries, keys = data.draw(pairs(rows, frames))
    tile, cores = data.draw(st.sampled_from([1, 3, 8, 192])), data.draw(st.sampled_from([1, 2, 5]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(tiles, "CORE", tile * cores)
        assert_attention_is_open(
            AttentionPattern.model_validate(pattern),
            queries,
            keys,
            data.draw(st.sampled_from(DTYPES)),
            merging=data.draw(st.booleans()),
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("merging", [True, False])
@pytest.mark.parametrize("length", [200, 2 * tiles.CORE])
def test_nor_at_the_real_size_of_tiles_and_cores(length: int, merging: bool, dtype: torch.dtype) -> None:
    """Of two videos of 200 frames, one cut to 100, came the NaN."""
    places = lay_out(torch.arange(length) < torch.tensor([[length], [length // 2]]))
    for pattern in (
        AttentionPattern(kind="block_causal", block=64),
        AttentionPattern(kind="causal", window=64),
        AttentionPattern(kind="bidirectional", window=64, stride=16, memory=500),
    ):
        assert assert_attention_is_open(pattern, places, None, dtype, merging)


def test_the_same_when_a_tiles_hidden_scores_are_far_above_those_seen() -> None:
    """Where tiles overlap, a query sees nothing in some; their scores must not overflow beside its total."""
    length = 30
    places = lay_out(torch.ones(1, length, dtype=torch.bool))
    pattern = AttentionPattern(kind="causal", window=12)
    query, key, value = (x.detach() for x in heads_of(places, places, torch.float32))
    query, key = query.abs(), key.abs()
    key[:, :, :10] *= 1e4  # out of the last queries' sight
    inputs = [x.requires_grad_() for x in (query, key, value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 3)
        patch.setattr(tiles, "CORE", 6)
        assert tiles.make_plan(pattern, places, None, cores=True).overlap
        out = attend(*inputs, pattern, places)
    expected = attention.attend_reference(*inputs, pattern, places)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=0)
    grads, wanted = (torch.autograd.grad(x[:, :, 22:].square().sum(), inputs) for x in (out, expected))
    torch.testing.assert_close(grads, wanted, atol=2e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), pattern=ANY, half=st.booleans(), tokens=st.sampled_from([1, 5]))
def test_nor_in_a_training_step_of_the_model(
    make_model: MakeModel, data: st.DataObject, pattern: dict, half: bool, tokens: int
) -> None:
    """Encoder, predictor and pooler, as Fabric runs them."""
    model = make_model(pattern, tokens=tokens, pooler_depth=1, input_dim=5).train()
    valid = data.draw(paddings(3, 33))
    lengths = valid.sum(1)
    batch = SequenceBatch(torch.randn(3, 33, 5), valid, torch.stack([lengths - lengths // 3, lengths // 3], dim=1))
    with watched(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(batch, torch.rand(valid.shape) < 0.5).predictions.float().square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 4, "layers": 2}),
    "context": ("context", {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11}),
    "shortest memory": ("context", {"dim": 16, "stages": 1, "layers": 2, "window": 1, "stride": 4, "memory": 4}),
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2}),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("causal", [False, True])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), half=st.booleans())
def test_nor_in_heads_over_whole_videos_and_on_streams(
    name: str, causal: bool, data: st.DataObject, half: bool
) -> None:
    kind, changes = HEADS[name]
    if kind != "attentive":
        changes = changes | {"causal": causal}
    head = build_head(head_config(kind, changes), 5, 3, seed=0)
    valid = data.draw(paddings(3, 40))
    with watched() as masks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        head(torch.randn(3, 40, 5), valid).float().square().sum().backward()
    assert masks.kernels or kind == "mstcn" or not valid.any()
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)
    if head.delay is None:
        return
    head.eval()
    state = init(head, 2)
    with watched():
        for size in data.draw(st.lists(st.integers(0, 30), max_size=5)):
            _, state = step(head, torch.randn(2, size, 5), state)
        finish(head, state)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), pattern=LIVE)
def test_nor_on_streams_that_are_reset_at_different_moments(
    make_model: MakeModel, data: st.DataObject, pattern: dict
) -> None:
    model = make_model(pattern)
    state = keystep.stream.init(model, 3)
    with watched():
        for size in data.draw(st.lists(st.integers(0, 30), max_size=6)):
            _, state = keystep.stream.step(model, torch.randn(3, size, 5), state)
            keystep.stream.provisional(model, state)
            state = keystep.stream.reset(state, data.draw(st.lists(st.integers(0, 2), unique=True)))
        latents, _ = keystep.stream.finish(model, state)
    assert bool(latents.isfinite().all())


@settings(max_examples=30, deadline=None)
@given(pattern=patterns(("causal", "block_causal"), least_window=4), calls=st.integers(1, 3), data=st.data())
def test_nor_in_exported_steps_wherever_a_stream_stands(
    make_model: MakeModel, pattern: dict, calls: int, data: st.DataObject
) -> None:
    """There a frame sees its own column at least, so the program needs no further operation."""
    step = ExportedStep(make_model(pattern), calls * pattern.get("block", 1), 2)
    state = step.initial()
    with torch.no_grad(), watched() as masks:
        for _ in range(data.draw(st.integers(1, 5))):
            latents, *rest = step(torch.randn(step.input_shape), *state)
            state = tuple(rest)
            if data.draw(st.booleans()):  # a stream begins anew
                state[0][data.draw(st.integers(0, 1))] = 0
    assert masks.softmaxes and bool(latents.isfinite().all())
