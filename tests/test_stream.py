import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.config import ModelConfig, build
from keystep.errors import InputError

PATTERNS = [
    {"kind": "causal"},
    {"kind": "causal", "window": 7},
    {"kind": "causal", "window": 5, "stride": 3, "memory": 17},
    {"kind": "block_causal", "block": 6},
    {"kind": "block_causal", "block": 4, "window": 9},
    {"kind": "block_causal", "block": 5, "window": 4, "stride": 2, "memory": 13},
]


def make_model(pattern: dict, **changes: object) -> keystep.PJEPA:
    settings = {"input_dim": 5, "dim": 16, "depth": 3, "heads": 2, "live_attention": None, "attention": pattern}
    torch.manual_seed(0)
    model = keystep.PJEPA(build(ModelConfig, settings, changes)).eval()
    if model.config.input_norm == "channel":
        model.encoder.proj[0].mean.normal_()
    return model


def run_stream(model: keystep.PJEPA, features: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Latents of all frames, fed in chunks of ``sizes`` and then the rest, with what an open block holds at the end."""
    state = keystep.stream.init(model, len(features))
    parts, start = [], 0
    for size in [*sizes, max(0, features.shape[1] - sum(sizes))]:
        latents, state = keystep.stream.step(model, features[:, start : start + size], state)
        parts.append(latents)
        start += size
    latents, state = keystep.stream.finish(model, state)
    return torch.cat([*parts, latents], dim=1)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 11), max_size=8), readout=st.sampled_from(["last", "mean"]), centring=st.booleans()
)
def test_a_stream_gives_the_offline_latents_however_it_is_cut(
    pattern: dict, sizes: list[int], readout: str, centring: bool
) -> None:
    model = make_model(pattern, readout=readout, centring=centring)
    features = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(1))
    offline = model.encode(features)
    torch.testing.assert_close(run_stream(model, features, sizes), offline, atol=1e-5, rtol=0)


def test_a_model_for_both_uses_streams_with_its_live_attention() -> None:
    model = make_model({"kind": "bidirectional"}, live_attention={"kind": "causal", "window": 9})
    features = torch.randn(1, 40, 5)
    offline = model.encode(features, pattern=model.config.live_attention)
    torch.testing.assert_close(run_stream(model, features, [1] * 30), offline, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if "window" in pattern], ids=str)
def test_the_state_stops_growing_once_the_window_is_full(pattern: dict) -> None:
    model = make_model(pattern)
    state, sizes = keystep.stream.init(model), []
    for _ in range(40):
        _, state = keystep.stream.step(model, torch.randn(1, 20, 5), state)
        sizes.append(state.size_bytes)
    assert max(sizes[20:]) <= max(sizes[2:20])


def test_a_block_causal_stream_answers_at_the_end_of_each_block() -> None:
    model = make_model({"kind": "block_causal", "block": 6})
    state = keystep.stream.init(model)
    latents, state = keystep.stream.step(model, torch.randn(1, 5, 5), state)
    assert latents.shape == (1, 0, 16)
    latents, state = keystep.stream.step(model, torch.randn(1, 8, 5), state)
    assert latents.shape == (1, 12, 16)
    latents, state = keystep.stream.finish(model, state)
    assert latents.shape == (1, 1, 16)


def test_positions_stay_exact_after_ten_million_frames() -> None:
    model = make_model({"kind": "causal", "window": 8}, centring=False)
    features = torch.randn(1, 40, 5)
    state = keystep.stream.init(model)
    late = keystep.stream.StreamState(10_000_000, state.positions, state.layers, state.waiting, state.total)
    early_latents, _ = keystep.stream.step(model, features, state)
    late_latents, _ = keystep.stream.step(model, features, late)
    torch.testing.assert_close(early_latents, late_latents, atol=1e-4, rtol=0)


def test_bad_chunks_are_refused_and_leave_the_state_usable() -> None:
    model = make_model({"kind": "causal", "window": 7})
    state = keystep.stream.init(model)
    first = torch.randn(1, 4, 5)
    _, state = keystep.stream.step(model, first, state)
    broken = torch.randn(1, 3, 5)
    broken[0, 1, 2] = torch.nan
    with pytest.raises(InputError, match="frame 5 holds NaN"):
        keystep.stream.step(model, broken, state)
    with pytest.raises(InputError, match=r"\(1, 3, 6\).*\(1, n, 5\)"):
        keystep.stream.step(model, torch.randn(1, 3, 6), state)
    following = torch.randn(1, 3, 5)
    latents, _ = keystep.stream.step(model, following, state)
    offline = model.encode(torch.cat([first, following], dim=1))[:, 4:]
    torch.testing.assert_close(latents, offline, atol=1e-5, rtol=0)


def test_a_model_that_needs_the_future_cannot_stream() -> None:
    with pytest.raises(InputError, match="cannot run on a stream"):
        keystep.stream.init(make_model({"kind": "bidirectional"}))
