from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn import attention, tiles
from keystep.nn.attention import attend, attend_reference, visible
from keystep.nn.places import Packing, Places, lay_out

Case = tuple[AttentionPattern, tuple[int, int], Places, Places | None]
TOLERANCE = 2e-5
WINDOWED = [
    AttentionPattern(kind="bidirectional", window=64),
    AttentionPattern(kind="causal", window=64),
    AttentionPattern(kind="block_causal", block=32, window=64),
    AttentionPattern(kind="segment_causal", window=64),
    AttentionPattern(kind="causal", window=64, stride=64, memory=1024),
]


@st.composite
def patterns(draw: st.DrawFn) -> AttentionPattern:
    kind = draw(st.sampled_from(["bidirectional", "causal", "block_causal", "segment_causal"]))
    block = draw(st.sampled_from([1, 3, 8])) if kind == "block_causal" else None
    window = draw(st.sampled_from([None, 1, 2, 5, 60]))
    stride = draw(st.sampled_from([None, 1, 2, 3])) if window else None
    memory = window + draw(st.sampled_from([1, 4, 30])) if window and stride else None
    return AttentionPattern(kind=kind, block=block, window=window, stride=stride, memory=memory)


@st.composite
def layouts(draw: st.DrawFn, frames: int, batch: int, segments: Tensor) -> Places:
    """Some of the frames, moved together: gaps between them, padding behind them, perhaps no frame at all."""
    share, seed = draw(st.sampled_from([1.0, 0.6, 0.2, 0.0])), draw(st.integers(0, 10_000))
    keep = torch.rand(batch, frames, generator=torch.Generator().manual_seed(seed)) < share
    return Packing(keep).places(lay_out(torch.ones_like(keep), segments))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A pattern, sizes of tiles and cores, the queries' places and perhaps other ones for the keys."""
    frames, batch = draw(st.sampled_from([1, 2, 7, 16, 33])), draw(st.sampled_from([1, 3]))
    parts = [frames // 3, frames - frames // 3] if frames > 2 else [frames, 0]
    segments = torch.tensor([parts] * batch)
    queries = draw(layouts(frames, batch, segments))
    keys = draw(st.none() | layouts(frames, batch, segments))
    tile = draw(st.sampled_from([1, 3, 8, 128]))
    return draw(patterns()), (tile, tile * draw(st.sampled_from([1, 2, 5]))), queries, keys


def random_heads(
    queries: Places, keys: Places | None, dtype: torch.dtype = torch.float32, heads: int = 2, width: int = 8
) -> list[Tensor]:
    """Query, key and value, (B, heads, N, width) each."""
    generator = torch.Generator().manual_seed(0)
    lengths = [p.positions.shape[1] for p in (queries, keys or queries, keys or queries)]
    batch = len(queries.positions)
    return [torch.randn(batch, heads, n, width, generator=generator, dtype=dtype).requires_grad_() for n in lengths]


def by_hand(pattern: AttentionPattern, queries: Places, keys: Places) -> Tensor:
    """The rule in loops and words, sharing no code with the package."""
    batch, rows = queries.positions.shape
    seen = torch.zeros(batch, rows, keys.positions.shape[1], dtype=torch.bool)
    for b in range(batch):
        for i in range(rows):
            for j in range(seen.shape[2]):
                if queries.valid is not None and not queries.valid[b, i]:
                    continue
                if keys.valid is not None and not keys.valid[b, j]:
                    continue
                here, there = int(queries.positions[b, i]), int(keys.positions[b, j])
                if pattern.kind == "causal" and there > here:
                    continue
                if pattern.block is not None and there // pattern.block > here // pattern.block:
                    continue
                if pattern.kind == "segment_causal":
                    assert keys.segments is not None and queries.segments is not None
                    if keys.segments[b, j] > queries.segments[b, i]:
                        continue
                near = pattern.window is None or abs(here - there) < pattern.window
                far = pattern.stride is not None and there % pattern.stride == 0 and 0 <= here - there < pattern.memory  # type: ignore[operator]
                seen[b, i, j] = near or far
    return seen


@settings(max_examples=250, deadline=None)
@given(cases())
@pytest.mark.parametrize("merging", [True, False])
def test_attend_agrees_with_the_reference_in_outputs_and_gradients(merging: bool, case: Case) -> None:
    pattern, (tile, core), queries, keys = case
    heads = random_heads(queries, keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(tiles, "CORE", core)
        if not merging:
            patch.setattr(attention, "_can_merge", lambda query: False)
        out = attend(*heads, pattern, queries, keys)
        expected = attend_reference(*heads, pattern, queries, keys)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad(out, heads, weights)
    torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=0)
    for grad, wanted in zip(grads, torch.autograd.grad(expected, heads, weights), strict=True):
        torch.testing.assert_close(grad, wanted, atol=TOLERANCE, rtol=0)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_rule_is_what_three_loops_say(case: Case) -> None:
    pattern, _, queries, keys = case
    keys = keys or queries
    seen = visible(pattern, queries, keys)
    assert torch.equal(seen, by_hand(pattern, queries, keys))


@pytest.mark.parametrize("pattern", [*WINDOWED, AttentionPattern(kind="block_causal", block=50)], ids=str)
@pytest.mark.parametrize("length", [tiles.TILE - 1, tiles.TILE, tiles.TILE + 1, 400])
def test_attend_agrees_with_the_reference_around_the_real_tile(pattern: AttentionPattern, length: int) -> None:
    valid = torch.arange(length) < torch.tensor([[length], [length - 100]])
    segments = torch.tensor([[length - 60, 60], [length - 120, 20]])
    places = lay_out(valid, segments)
    heads = random_heads(places, None)
    out, expected = attend(*heads, pattern, places), attend_reference(*heads, pattern, places)
    torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=0)
    grads, wanted = (torch.autograd.grad(x.square().sum(), heads) for x in (out, expected))
    torch.testing.assert_close(grads, wanted, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize(
    "pattern",
    [
        AttentionPattern(kind="block_causal", block=64),
        AttentionPattern(kind="segment_causal"),
        AttentionPattern(kind="causal", window=1000),
        AttentionPattern(kind="bidirectional", window=1000),
        AttentionPattern(kind="causal", window=1000, stride=16, memory=1100),
    ],
    ids=str,
)
@pytest.mark.parametrize(("scale", "dtype"), [(1.0, torch.float32), (30.0, torch.float64)])
def test_attend_agrees_with_the_reference_where_there_are_cores(
    pattern: AttentionPattern, scale: float, dtype: torch.dtype
) -> None:
    """Sharp attention too, where the parts of a query weigh very differently."""
    length = 2 * tiles.CORE + 100
    valid = torch.arange(length) < torch.tensor([[length], [length - 200]])
    places = lay_out(valid, torch.tensor([[length - 900, 900], [length - 1500, 1300]]))
    assert any(tile.full for tile in tiles.make_plan(pattern, places, None, cores=True).tiles)
    query, key, value = random_heads(places, None, dtype, heads=1)
    heads = [(scale * query).detach().requires_grad_(), key, value]
    out, expected = attend(*heads, pattern, places), attend_reference(*heads, pattern, places)
    torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=0)
    grads, wanted = (torch.autograd.grad(x.square().sum(), heads) for x in (out, expected))
    torch.testing.assert_close(grads, wanted, atol=TOLERANCE, rtol=1e-4)


def test_parts_are_merged_only_where_the_kernel_tells_their_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, on other devices and in half precision, each query keeps to one tile."""
    assert attention._can_merge(torch.zeros(1)) and attention._can_merge(torch.zeros(1).double())
    assert not attention._can_merge(torch.zeros(1).bfloat16())
    assert not attention._can_merge(torch.zeros(1, device="meta"))
    monkeypatch.setattr(attention, "KERNEL", "no_such_kernel")
    assert not attention._can_merge(torch.zeros(1))


def weights_of(pattern: AttentionPattern, length: int) -> Tensor:
    """(T, T) attention weights, read off values that are one-hot; equal scores, so each is 1 / (keys seen)."""
    query = torch.zeros(1, 1, length, length)
    return attend(query, query, torch.eye(length)[None, None], pattern, Places(torch.arange(length)[None]))[0, 0]


@pytest.mark.parametrize("window", [1, 2, 7, 128, 129])
def test_a_causal_window_shows_exactly_so_many_frames_the_own_included(window: int) -> None:
    weights = weights_of(AttentionPattern(kind="causal", window=window), 300)
    seen = torch.tensor([[max(0, t - window + 1) <= key <= t for key in range(300)] for t in range(300)])
    assert torch.equal(weights > 0, seen)
    assert int((weights[-1] > 0).sum()) == window


def test_no_key_is_counted_twice() -> None:
    for stride, memory in ((1, 40), (2, 40), (5, 300)):
        pattern = AttentionPattern(kind="bidirectional", window=20, stride=stride, memory=memory)
        weights = weights_of(pattern, 300)
        counts = (weights > 0).sum(1, keepdim=True)
        torch.testing.assert_close(weights, (weights > 0) / counts)  # a key counted twice would weigh double


def test_a_query_without_keys_gives_zeros_and_finite_gradients() -> None:
    queries, keys = Places(torch.tensor([[3, 50]])), Places(torch.tensor([[4, 49]]))
    for pattern in (AttentionPattern(kind="causal", window=2), AttentionPattern(kind="causal")):
        heads = random_heads(queries, keys)
        out = attend(*heads, pattern, queries, keys)
        assert torch.equal(out[:, :, 0], torch.zeros(1, 2, 8)) and bool(out[:, :, 1].ne(0).all())
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), heads))


@pytest.mark.parametrize("kind", ["bidirectional", "causal"])
def test_a_video_of_padding_alone_gives_zeros_and_finite_gradients(kind: str) -> None:
    places = lay_out(torch.tensor([[True, True, True], [False, False, False]]))
    heads = random_heads(places, None)
    out = attend(*heads, AttentionPattern(kind=kind), places)  # type: ignore[arg-type]
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), heads))


@pytest.mark.parametrize("pattern", WINDOWED, ids=str)
@pytest.mark.parametrize("core", [3, tiles.CORE])
def test_gradients_are_the_derivatives_in_double_precision(
    pattern: AttentionPattern, core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", 3)
    monkeypatch.setattr(tiles, "CORE", core)
    pattern = pattern.model_copy(update={"window": 3, **({"stride": 2, "memory": 6} if pattern.stride else {})})
    valid = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    places = lay_out(valid, torch.tensor([[5, 3], [2, 3]]))
    heads = random_heads(places, None, torch.float64, heads=1, width=2)
    assert torch.autograd.gradcheck(lambda *x: attend(*x, pattern, places), heads)


@pytest.mark.parametrize("pattern", WINDOWED, ids=str)
def test_half_precision_stays_close(pattern: AttentionPattern) -> None:
    places = lay_out(torch.ones(1, 300, dtype=torch.bool), torch.tensor([[200, 100]]))
    exact = random_heads(places, None)
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    out = attend(*rough, pattern, places)
    expected = attend_reference(*exact, pattern, places)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=0)
    grads, wanted = (torch.autograd.grad(x.sum(), y) for x, y in ((out, rough), (expected, exact)))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad.float(), want, atol=1e-1, rtol=5e-2)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result held."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("pattern", [*WINDOWED, AttentionPattern(kind="block_causal", block=64)], ids=str)
def test_no_tensor_of_all_pairs_is_ever_made(pattern: AttentionPattern) -> None:
    length = 4096
    places = lay_out(torch.ones(1, length, dtype=torch.bool), torch.full((1, 64), 64))
    heads = random_heads(places, None)
    with LargestTensor() as largest:
        attend(*heads, pattern, places).sum().backward()
    assert largest.elements <= length * 64  # a sixty-fourth of all pairs
    assert all(x.grad is not None for x in heads)


def test_blocks_share_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[AttentionPattern] = []
    plan: Callable[..., object] = tiles._plan
    monkeypatch.setattr(tiles, "_plan", lambda pattern, *rest: (made.append(pattern), plan(pattern, *rest))[1])
    places, other = lay_out(torch.ones(1, 9, dtype=torch.bool)), lay_out(torch.ones(1, 9, dtype=torch.bool))
    heads = random_heads(places, None)
    first, second = (AttentionPattern(kind="causal", window=window) for window in (2, 3))
    for pattern in (first, first, second, first):
        out = attend(*heads, pattern, places)
        torch.testing.assert_close(out, attend_reference(*heads, pattern, places), atol=TOLERANCE, rtol=0)
    assert made == [first, second]
    attend(*heads, first, places, other)
    attend(*heads, first, other)
    assert made == [first, second, first, first]


def test_segments_are_needed_where_the_pattern_reads_them() -> None:
    places = lay_out(torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="segment_lengths"):
        attend(*random_heads(places, None), AttentionPattern(kind="segment_causal"), places)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "block_causal"},
        {"kind": "causal", "block": 4},
        {"kind": "causal", "window": 0},
        {"kind": "causal", "window": 4, "stride": 2},
        {"kind": "causal", "stride": 2, "memory": 8},
        {"kind": "causal", "window": 8, "stride": 2, "memory": 8},
        {"kind": "sideways"},
    ],
    ids=str,
)
def test_patterns_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AttentionPattern.model_validate(fields)


def test_a_pattern_says_what_it_is() -> None:
    assert str(AttentionPattern(kind="segment_causal", window=8)) == "segment_causal, window 8 (ORACLE)"
    strided = AttentionPattern(kind="block_causal", block=4, window=8, stride=2, memory=32)
    assert str(strided) == "block_causal(4), window 8, every 2 to 32"
