"""A head on a stream gives its offline scores, however the stream is cut."""

import gc
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keystep.errors import InputError
from keystep.heads import Head, build_head, head_config
from keystep.nn import context
from keystep.stream import StreamState, finish, init, step, steps

WIDTH, CLASSES = 5, 3
STREAMING = {
    "linear": ("linear", {}),
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 4}),
    "two layers": ("attentive", {"dim": 16, "heads": 2, "window": 7, "chunk": 5, "layers": 2}),
    "attentive by frame": ("attentive", {"dim": 16, "heads": 2, "window": 6, "chunk": 1}),
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2, "causal": True}),
    "context": (
        "context",
        {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11, "causal": True},
    ),
    "short memory": (
        "context",
        {"dim": 16, "stages": 1, "layers": 2, "window": 1, "stride": 4, "memory": 4, "causal": True},
    ),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a chunk of a test is cut, as long ones are."""
    monkeypatch.setattr(steps, "CHUNK", 8)
    monkeypatch.setattr(context, "SPARE", 8)


def make(name: str, seed: int = 0) -> Head:
    kind, changes = STREAMING[name]
    head = build_head(head_config(kind, changes), WIDTH, CLASSES, seed=seed).eval()
    head.standardise.mean.fill_(0.5)
    return head


def features(streams: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(streams, frames, WIDTH, generator=torch.Generator().manual_seed(seed))


def run(head: Head, x: torch.Tensor, sizes: list[int], state: StreamState | None = None) -> torch.Tensor:
    """Scores of all frames, fed in chunks of ``sizes`` and then the rest."""
    state = state or init(head, len(x))
    parts, start = [], 0
    for size in [*sizes, max(0, x.shape[1] - sum(sizes))]:
        scores, state = step(head, x[:, start : start + size], state)
        parts.append(scores)
        start += size
    scores, state = finish(head, state)
    return torch.cat([*parts, scores], dim=1)


@pytest.mark.parametrize("name", STREAMING)
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), max_size=10), frames=st.integers(1, 70))
def test_a_stream_gives_the_offline_scores_however_it_is_cut(name: str, sizes: list[int], frames: int) -> None:
    head, x = make(name), features(2, max(frames, sum(sizes)))
    torch.testing.assert_close(run(head, x, sizes), head(x)[-1].detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", STREAMING)
def test_frame_by_frame_over_a_long_video(name: str) -> None:
    head, x = make(name), features(1, 150)
    torch.testing.assert_close(run(head, x, [1] * 150), head(x)[-1].detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", STREAMING)
def test_an_old_state_stays_usable(name: str) -> None:
    head, past, futures = make(name), features(1, 13), [features(1, 9, seed) for seed in (2, 3)]
    _, state = step(head, past, init(head))
    given = step(head, past, init(head))[0].shape[1]
    for future in futures:
        offline = head(torch.cat([past, future], dim=1))[-1].detach()
        torch.testing.assert_close(run(head, future, [2, 3], state), offline[:, given:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", STREAMING)
def test_the_state_stops_growing(name: str) -> None:
    head = make(name)
    state, sizes = init(head), []
    for index in range(40):
        state = step(head, features(1, 12, index), state)[1]
        sizes.append(state.size_bytes)
    assert max(sizes[20:]) <= max(sizes[:20]), "full after 240 frames, farther than any of them reaches"
    for tensor in (state.waiting, *state.memory.states.values()):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4, "no view keeps a chunk in memory"


def test_a_head_by_chunks_waits_for_their_end() -> None:
    head, x = make("attentive"), features(1, 11)
    state, given = init(head), []
    for frame in range(11):
        scores, state = step(head, x[:, frame : frame + 1], state)
        given.append(scores.shape[1])
    assert given == [0, 0, 0, 4] * 2 + [0, 0, 0]
    assert state.held == (3,) and state.frames == (8,)
    scores, ended = finish(head, state)
    assert scores.shape[1] == 3 and ended.held == (0,)
    with pytest.raises(InputError, match="finished at frame 11, in the middle of a chunk of 4"):
        step(head, x, ended)
    step(head, x, state)


@pytest.mark.parametrize("kind", ["mstcn", "context"])
def test_heads_that_see_the_future_are_refused_in_one_line(kind: str) -> None:
    head = build_head(head_config(kind), WIDTH, CLASSES).eval()
    with pytest.raises(InputError, match=f"this {kind} head reads the whole video; train one with causal=true"):
        init(head)


def test_what_does_not_fit_is_refused_and_the_state_is_as_good_as_before() -> None:
    head, x = make("linear"), features(2, 9)
    with torch.no_grad():
        head.steps.weight *= 100
    state = step(head, x, init(head, 2))[1]
    broken = x.clone()
    broken[1, 4, 0] = float("nan")
    for chunk, words in (
        (broken, "frame 13 of stream 1 holds NaN"),
        (x[:1], r"chunk has shape \(1, 9, 5\); this stream takes \(2, n, 5\)"),
        (x[..., :3], r"this stream takes \(2, n, 5\)"),
        (x * 1e38, "overflows"),
    ):
        with pytest.raises(InputError, match=words):
            step(head, chunk, state)
    offline = head(torch.cat([x, x], dim=1))[-1, :, 9:].detach()
    torch.testing.assert_close(run(head, x, [], state), offline, atol=1e-5, rtol=0)


def test_a_state_goes_on_with_an_equal_head_and_with_no_other() -> None:
    head, x = make("context"), features(1, 9)
    state = step(head, x, init(head))[1]
    step(make("context"), x, state)
    with pytest.raises(InputError, match="belongs to another head"):
        step(make("context", seed=1), x, state)
    with pytest.raises(InputError, match="training mode"):
        step(head.train(), x, state)
    with pytest.raises(InputError, match="training mode"):
        init(head)


def test_a_state_keeps_no_head_alive() -> None:
    make_state: Callable[[], StreamState] = lambda: init(make("linear"))  # noqa: E731
    state = make_state()
    gc.collect()
    assert state.owner() is None
