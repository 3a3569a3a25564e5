"""A stream gives the numbers of the offline run, whatever happens to it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.errors import InputError
from keystep.nn import context
from keystep.stream import StreamState
from keystep.stream import steps as implementation

MakeModel = Callable[..., keystep.PJEPA]
PATTERNS = [
    {"kind": "causal"},
    {"kind": "causal", "window": 7},
    {"kind": "causal", "window": 1},
    {"kind": "causal", "window": 5, "stride": 3, "memory": 17},
    {"kind": "block_causal", "block": 6},
    {"kind": "block_causal", "block": 4, "window": 9},
    {"kind": "block_causal", "block": 5, "window": 4, "stride": 2, "memory": 13},
]
BANDS = {"readout_dim": 24, "tau": 2.5}
"""A read-out of its own width and held bands beside it."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of few columns and short pieces, so that both are replaced often in short tests."""
    monkeypatch.setattr(implementation, "CHUNK", 8)
    monkeypatch.setattr(context, "SPARE", 8)


def random_features(streams: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(streams, frames, 5, generator=torch.Generator().manual_seed(seed))


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
    sizes=st.lists(st.integers(0, 30), max_size=8),
    readout=st.sampled_from(["last", "mean"]),
    centring=st.booleans(),
    held=st.sampled_from([{}, BANDS]),
)
def test_a_stream_gives_the_offline_latents_however_it_is_cut(
    make_model: MakeModel, pattern: dict, sizes: list[int], readout: str, centring: bool, held: dict
) -> None:
    if readout == "mean":  # which no map can read
        held = {**held, "readout_dim": None}
    model = make_model(pattern, readout=readout, centring=centring, **held)
    features = random_features(2, max(60, sum(sizes)))
    offline = model.encode(features)
    torch.testing.assert_close(run_stream(model, features, sizes), offline, atol=1e-5, rtol=0)


@st.composite
def patterns(draw: st.DrawFn) -> dict:
    kind = draw(st.sampled_from(["causal", "block_causal"]))
    pattern: dict[str, object] = {"kind": kind}
    if kind == "block_causal":
        pattern["block"] = draw(st.integers(1, 9))
    if draw(st.booleans()):
        pattern["window"] = window = draw(st.integers(1, 20))
        if draw(st.booleans()):
            pattern |= {"stride": draw(st.integers(1, 7)), "memory": window + draw(st.integers(1, 30))}
    return pattern


class Streams:
    """Independent streams beside the list of everything that each was given since its reset."""

    def __init__(self, model: keystep.PJEPA, count: int) -> None:
        self.model, self.state = model, keystep.stream.init(model, count)
        self.fed: list[list[torch.Tensor]] = [[] for _ in range(count)]
        self.got: list[list[torch.Tensor]] = [[] for _ in range(count)]

    def take(self, latents: torch.Tensor, counts: tuple[int, ...]) -> None:
        for row, count in enumerate(counts):
            self.got[row].append(latents[row, :count])
            assert not latents[row, count:].any(), "rows that give fewer end in zeros"

    def feed(self, size: int, seed: int, counts: list[int] | None = None) -> None:
        chunk = random_features(len(self.fed), size, seed)
        latents, self.state = keystep.stream.step(self.model, chunk, self.state, counts)
        for row, frames in enumerate(chunk):
            self.fed[row].append(frames if counts is None else frames[: counts[row]])
        self.take(latents, self.state.given)

    def look(self) -> None:
        """Provisional latents are those of the videos as far as they go."""
        latents = keystep.stream.provisional(self.model, self.state)
        for row, held in enumerate(self.state.held):
            if held:
                offline = self.model.encode(torch.cat(self.fed[row])[None])[0, -held:]
                torch.testing.assert_close(latents[row, :held], offline, atol=1e-4, rtol=0)
            assert not latents[row, held:].any()

    def reset(self, rows: list[int]) -> None:
        self.check(rows)
        self.state = keystep.stream.reset(self.state, rows)
        for row in rows:
            self.fed[row], self.got[row] = [], []

    def check(self, rows: list[int]) -> None:
        """What a stream gave equals the offline latents of its finished blocks."""
        for row in rows:
            if self.fed[row]:
                got = torch.cat(self.got[row])
                whole = torch.cat(self.fed[row])[None]
                done = len(got)
                assert whole.shape[1] - done < (self.model.config.attention.block or 1)
                if done:
                    torch.testing.assert_close(got, self.model.encode(whole[:, :done])[0], atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None)
@given(pattern=patterns(), centring=st.booleans(), held=st.sampled_from([{}, BANDS]), data=st.data())
def test_streams_side_by_side_with_resets_give_each_its_own_offline_latents(
    make_model: MakeModel, pattern: dict, centring: bool, held: dict, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 3), "streams")
    streams = Streams(make_model(pattern, centring=centring, depth=2, **held), count)
    for seed in range(data.draw(st.integers(1, 12), "events")):
        event = data.draw(st.sampled_from(["feed", "feed", "some", "some", "look", "reset"]))
        if event == "feed":
            streams.feed(data.draw(st.integers(0, 25), "frames"), seed)
        elif event == "some":
            size = data.draw(st.integers(0, 25), "frames")
            streams.feed(size, seed, [data.draw(st.integers(0, size), "own") for _ in range(count)])
        elif event == "look":
            streams.look()
        else:
            streams.reset(data.draw(st.lists(st.integers(0, count - 1), unique=True), "rows"))
    streams.look()
    streams.check(list(range(count)))


def test_counts_that_no_chunk_has_are_refused(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal"})
    for counts in ([1], [0, 4], [-1, 0]):
        with pytest.raises(InputError, match="2 numbers from 0 to 3"):
            keystep.stream.step(model, random_features(2, 3), keystep.stream.init(model, 2), counts)


@settings(max_examples=20, deadline=None)
@given(pattern=patterns(), cut=st.integers(0, 40), chunk=st.integers(1, 13), held=st.sampled_from([{}, BANDS]))
def test_frames_to_come_never_change_what_was_said_bit_for_bit(
    make_model: MakeModel, pattern: dict, cut: int, chunk: int, held: dict
) -> None:
    model = make_model(pattern, **held)
    past, future = random_features(1, 60), random_features(1, 60, seed=2)
    other = torch.cat([past[:, :cut], future[:, cut:]], dim=1)
    known = cut // (pattern.get("block") or 1) * (pattern.get("block") or 1)
    sizes = [chunk] * (60 // chunk)
    assert torch.equal(run_stream(model, past, sizes)[:, :known], run_stream(model, other, sizes)[:, :known])


def test_a_model_for_both_uses_streams_with_its_live_attention(make_model: MakeModel) -> None:
    model = make_model({"kind": "bidirectional"}, live_attention={"kind": "causal", "window": 9}, **BANDS)
    features = random_features(1, 40)
    offline = model.encode(features, pattern=model.config.live_attention)
    torch.testing.assert_close(run_stream(model, features, [1] * 30), offline, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if "window" in pattern], ids=str)
def test_the_state_stops_growing_once_the_window_is_full(make_model: MakeModel, pattern: dict, size: int) -> None:
    model = make_model(pattern, **BANDS)
    state, sizes = keystep.stream.init(model), []
    for _ in range(300 // size):
        _, state = keystep.stream.step(model, random_features(1, size), state)
        sizes.append(state.size_bytes)
    settled = len(sizes) // 3
    assert max(sizes[settled:]) <= max(sizes[:settled])


def test_an_older_state_has_a_second_future(make_model: MakeModel) -> None:
    """Two streams that go on from one state share its past, and neither writes into the other's."""
    model = make_model({"kind": "causal", "window": 20})
    past, one, two = random_features(1, 9), random_features(1, 6, 2), random_features(1, 6, 3)
    _, state = keystep.stream.step(model, past, keystep.stream.init(model))
    first, after_one = keystep.stream.step(model, one, state)
    second, _ = keystep.stream.step(model, two, state)
    torch.testing.assert_close(first, model.encode(torch.cat([past, one], 1))[:, 9:], atol=1e-5, rtol=0)
    torch.testing.assert_close(second, model.encode(torch.cat([past, two], 1))[:, 9:], atol=1e-5, rtol=0)
    third, _ = keystep.stream.step(model, two, after_one)
    torch.testing.assert_close(third, model.encode(torch.cat([past, one, two], 1))[:, 15:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_looking_at_an_older_state_leaves_newer_ones_alone(make_model: MakeModel, pattern: dict) -> None:
    model = make_model(pattern)
    past, one, two, other = (random_features(1, n, seed) for seed, n in enumerate((12, 12, 12, 12)))
    _, before = keystep.stream.step(model, past, keystep.stream.init(model))
    _, after = keystep.stream.step(model, one, before)
    keystep.stream.provisional(model, before)
    keystep.stream.finish(model, before)
    keystep.stream.step(model, other, before)
    keystep.stream.provisional(model, after)
    latents, state = keystep.stream.step(model, two, after)
    rest, _ = keystep.stream.finish(model, state)
    whole = torch.cat([past, one, two], dim=1)
    expected = model.encode(whole)[:, after.frames[0] :]
    torch.testing.assert_close(torch.cat([latents, rest], dim=1), expected, atol=1e-5, rtol=0)


def test_a_stream_that_was_finished_inside_a_block_does_not_go_on(make_model: MakeModel) -> None:
    model = make_model({"kind": "block_causal", "block": 4})
    _, state = keystep.stream.step(model, random_features(1, 6), keystep.stream.init(model))
    _, ended = keystep.stream.finish(model, state)
    with pytest.raises(InputError, match="stream 0 was finished at frame 6, in the middle of a block of 4"):
        keystep.stream.step(model, random_features(1, 6), ended)
    latents, _ = keystep.stream.step(model, random_features(1, 6), keystep.stream.reset(ended))
    torch.testing.assert_close(latents, model.encode(random_features(1, 6))[:, :4], atol=1e-5, rtol=0)
    _, whole = keystep.stream.finish(model, keystep.stream.step(model, random_features(1, 2), state)[1])
    assert keystep.stream.step(model, random_features(1, 4), whole)[0].shape == (1, 4, 16), "a whole block may end"


def test_numbers_that_overflow_inside_the_model_are_refused_and_spoil_nothing(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal", "window": 7})
    first, following, broken = random_features(1, 9), random_features(1, 9, 2), random_features(1, 9, 3)
    broken[0, 4, 1] = 3e38
    _, state = keystep.stream.step(model, first, keystep.stream.init(model))
    with pytest.raises(InputError, match=r"frame \d+ of stream 0, or one near it, is so large"):
        keystep.stream.step(model, broken, state)
    wide = broken.double()
    wide[0, 4, 1] = 1e300  # finite until it becomes float32
    with pytest.raises(InputError, match="frame 13 of stream 0 holds NaN or infinity"):
        keystep.stream.step(model, wide, state)
    expected = model.encode(torch.cat([first, following], dim=1))[:, 9:]
    latents, after = keystep.stream.step(model, following, state)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
    anew, _ = keystep.stream.step(model, first, keystep.stream.reset(after))
    torch.testing.assert_close(anew, model.encode(first), atol=1e-5, rtol=0)


def test_a_state_made_in_inference_mode_goes_on_outside_of_it(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal", "window": 20})
    features = random_features(1, 12)
    with torch.inference_mode():
        _, state = keystep.stream.step(model, features[:, :7], keystep.stream.init(model))
    latents, _ = keystep.stream.step(model, features[:, 7:], state)
    torch.testing.assert_close(latents, model.encode(features)[:, 7:], atol=1e-5, rtol=0)


def test_the_waiting_frames_do_not_keep_the_chunk_that_they_came_in(make_model: MakeModel) -> None:
    model = make_model({"kind": "block_causal", "block": 4, "window": 9})
    _, state = keystep.stream.step(model, random_features(1, 4001), keystep.stream.init(model))
    assert state.waiting.untyped_storage().nbytes() == state.waiting.numel() * 4


def test_the_running_mean_stays_exact_over_many_frames_far_from_zero(make_model: MakeModel) -> None:
    """A sum in float32 would be off by more than this after so many frames."""
    model = make_model({"kind": "causal", "window": 3}, depth=1, input_norm="layer")
    with torch.no_grad():
        model.encoder.proj[0].bias += 300.0
    features = random_features(1, 40_000)
    latents, state = keystep.stream.step(model, features[:, :39_000], keystep.stream.init(model))
    rest, _ = keystep.stream.step(model, features[:, 39_000:], state)
    torch.testing.assert_close(torch.cat([latents, rest], 1), model.encode(features), atol=2e-4, rtol=0)
    projected = model.encoder.project(features)[0].double()
    torch.testing.assert_close(state.memory.states["total"][0], projected[:39_000].sum(0), atol=1e-3, rtol=1e-9)


def test_a_block_causal_stream_answers_at_the_end_of_each_block(make_model: MakeModel) -> None:
    model = make_model({"kind": "block_causal", "block": 6})
    state = keystep.stream.init(model)
    latents, state = keystep.stream.step(model, random_features(1, 5), state)
    assert latents.shape == (1, 0, 16) and state.held == (5,)
    assert keystep.stream.provisional(model, state).shape == (1, 5, 16)
    latents, state = keystep.stream.step(model, random_features(1, 8), state)
    assert latents.shape == (1, 12, 16)
    latents, state = keystep.stream.finish(model, state)
    assert latents.shape == (1, 1, 16)


def test_delays_are_those_until_the_end_of_the_block(make_model: MakeModel) -> None:
    blocks = make_model({"kind": "block_causal", "block": 4})
    assert [keystep.stream.delays(blocks, frame, rate=2.0)[0] for frame in range(5)] == [1.5, 1.0, 0.5, 0.0, 1.5]
    assert keystep.stream.delays(blocks, 1, rate=2.0)[1] == 0.0
    assert keystep.stream.delays(make_model({"kind": "causal"}), 7, rate=2.0) == (0.0, 0.0)


@pytest.mark.parametrize("frame", [10_000_000, 2_000_000_000])
def test_positions_stay_exact_after_ten_million_frames(make_model: MakeModel, frame: int) -> None:
    model = make_model({"kind": "causal", "window": 8}, centring=False)
    features = random_features(1, 40)
    state = keystep.stream.init(model)
    early_latents, _ = keystep.stream.step(model, features, state)
    late_latents, late = keystep.stream.step(model, features, replace(state, frames=(frame,)))
    torch.testing.assert_close(early_latents, late_latents, atol=1e-4, rtol=0)
    assert late.frames == (frame + 40,)


def test_half_precision_streams_too(make_model: MakeModel) -> None:
    model = make_model({"kind": "causal", "window": 7})
    features = random_features(1, 40)
    exact = model.encode(features)
    rough = run_stream(model.bfloat16(), features, [5] * 7)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.02


BAD_CHUNKS = [
    ((1, 3, 6), None, r"\(1, 3, 6\).*\(1, n, 5\)"),
    ((2, 3, 5), None, r"\(2, 3, 5\).*\(1, n, 5\)"),
    ((3, 5), None, r"\(3, 5\)"),
    ((1, 3, 5), torch.nan, "frame 5 of stream 0 holds NaN"),
    ((1, 3, 5), -torch.inf, "frame 5 of stream 0 holds NaN or infinity"),
]


@pytest.mark.parametrize(("shape", "value", "line"), BAD_CHUNKS)
@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[4]], ids=str)
def test_bad_chunks_are_refused_and_leave_the_state_usable(
    make_model: MakeModel, pattern: dict, shape: tuple[int, ...], value: float | None, line: str
) -> None:
    model = make_model(pattern)
    first, following = random_features(1, 4), random_features(1, 20, 2)
    _, state = keystep.stream.step(model, first, keystep.stream.init(model))
    broken = torch.randn(shape)
    if value is not None:
        broken[0, 1, 2] = value
    with pytest.raises(InputError, match=line):
        keystep.stream.step(model, broken, state)
    latents, _ = keystep.stream.step(model, following, state)
    offline = model.encode(torch.cat([first, following], dim=1))[:, state.frames[0] :]
    torch.testing.assert_close(latents, offline[:, : latents.shape[1]], atol=1e-5, rtol=0)


def test_a_model_that_needs_the_future_cannot_stream(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="cannot run on a stream"):
        keystep.stream.init(make_model({"kind": "bidirectional"}))


def test_states_of_other_models_and_unknown_streams_are_refused(make_model: MakeModel) -> None:
    model, other = make_model({"kind": "causal"}), make_model({"kind": "causal", "window": 3})
    state: StreamState = keystep.stream.init(model, 2)
    with pytest.raises(InputError, match="belongs to another model"):
        keystep.stream.step(other, random_features(2, 3), state)
    trained = make_model({"kind": "causal"})
    keystep.stream.step(trained, random_features(2, 3), state)  # the same weights, wherever they are
    with torch.no_grad():
        trained.encoder.norm.bias += 1
    with pytest.raises(InputError, match="belongs to another model"):
        keystep.stream.step(trained, random_features(2, 3), state)
    with pytest.raises(InputError, match="belongs to another model"):
        keystep.stream.step(make_model({"kind": "causal"}).bfloat16(), random_features(2, 3), state)
    with pytest.raises(InputError, match="no stream 2 to reset; this state has 2"):
        keystep.stream.reset(state, [2])
