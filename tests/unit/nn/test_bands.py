"""Held bands are what their definitions say, frame by frame, whichever way the frames come."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.model import HALF_LIVES
from keystep.data.statistics import Statistics
from keystep.export.buffers import Rotations, WholeGraph
from keystep.nn import bands
from keystep.nn.bands import HeldBands, Steady
from keystep.nn.context import Cached, Memory, Whole
from keystep.nn.places import lay_out
from keystep.pjepa import PJEPA
from keystep.target import set_statistics

FULL, CAUSAL = AttentionPattern(), AttentionPattern(kind="causal")
BLOCKS = AttentionPattern(kind="block_causal", block=8)
WIDTH = 3


def made_bands(tau: float, width: int = WIDTH, **fields: Any) -> HeldBands:
    held = HeldBands(ModelConfig(input_dim=width, tau=tau, **fields))
    generator = torch.Generator().manual_seed(0)
    held.norm.mean.normal_(generator=generator)
    held.norm.deviation.uniform_(0.5, 2, generator=generator)
    return held


def made_video(frames: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    """Features that move slowly and lie off zero."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.normal(size=(frames, width)), rng.integers(1, 9, size=frames), axis=0)[:frames]
    return torch.from_numpy((steps + 0.5 * rng.normal(size=steps.shape) + 1).astype(np.float32))


def whole(
    held: HeldBands, videos: Sequence[Tensor], pattern: AttentionPattern, visible: Tensor | None = None
) -> list[dict[str, np.ndarray]]:
    """The bands of whole videos, in one padded batch."""
    batch = SequenceBatch.pad(list(videos))
    found = held(batch.features, Whole(lay_out(batch.valid)), pattern, visible)
    return [{name: band[row, : len(video)].numpy() for name, band in found.items()} for row, video in enumerate(videos)]


def streamed(held: HeldBands, video: Tensor, sizes: Sequence[int]) -> tuple[dict[str, np.ndarray], Memory]:
    """The live bands of a video that comes in pieces, and what is remembered behind it."""
    memory, start, parts = Memory(), 0, []
    for piece in torch.split(video, list(sizes)):
        context = Cached(memory, [start], [len(piece)], len(piece), video.device)
        parts.append(held(piece[None], context, CAUSAL))
        memory, start = context.remembered, start + len(piece)
    return {name: torch.cat([part[name] for part in parts], dim=1)[0].numpy() for name in parts[0]}, memory


def slow_bands(held: HeldBands, video: Tensor, sees: bool, seen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """One video's bands in float64, each frame by itself. seen: (T,) bool; None: all."""
    x = (video.double().numpy() - held.norm.mean.double().numpy()) / held.norm.deviation.double().numpy()
    parts = x if held.basis is None else x @ held.basis.double().numpy()
    seen = np.ones(len(x), bool) if seen is None else seen
    found = {
        "frame": x,
        "around": slow_around(parts, seen, held.tau, sees),
        "memory": slow_memory(parts, seen, held.tau),
    }
    if sees:
        found["ahead"] = slow_memory(parts[::-1], seen[::-1], held.tau)[::-1, :-1]
    return found


def average(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over frames, 0 where none has a weight."""
    return np.average(x, axis=0, weights=weights) if weights.sum() > 0 else np.zeros(x.shape[1])


def slow_around(x: np.ndarray, seen: np.ndarray, tau: float, sees: bool) -> np.ndarray:
    if sees:
        x, times = x - average(x, seen), (0, -0.9, 0.9, -1.8, 1.8, -3.6, 3.6, -7.2, 7.2)
    else:
        x = np.stack([x[t] - average(x[: t + 1], seen[: t + 1]) for t in range(len(x))])
        times = (0, -0.45, -0.9, -1.8, -3.6, -7.2)
    columns = []
    for time in times:
        middle = round(time * tau)
        share = abs(time) * tau if sees else abs(middle)
        half = max(0, round((share / 2 - 1) / 2))  # frames on either side of the one in the middle
        half = half if sees else min(half, abs(middle))
        windows = [np.abs(np.arange(len(x)) - (t + middle)) <= half for t in range(len(x))]
        columns.append([average(x, window * seen) for window in windows])
    ages = [t - np.arange(len(x)) for t in range(len(x))]
    for sign in (1, -1) if sees else (1,):
        for half_life in HALF_LIVES:
            halved = [0.5 ** (np.maximum(sign * age, 0) / (half_life * tau)) for age in ages]
            weights = [halved[t] * (sign * ages[t] >= 0) * seen for t in range(len(x))]
            columns.append([average(x, each) for each in weights])
    return np.concatenate([np.stack(column) for column in columns], axis=1)


def slow_memory(x: np.ndarray, seen: np.ndarray, tau: float) -> np.ndarray:
    rows = []
    for t in range(len(x)):
        past = x[: t + 1][seen[: t + 1]]
        frames = (t + 1) / max(1, len(past)) / tau
        above, below = (np.log1p(np.maximum(sign * past, 0).sum(0) * frames) for sign in (1, -1))
        mean, most = past.sum(0) / max(1, len(past)), np.max(past, axis=0, initial=0)
        rows.append(np.concatenate([mean, above, below, most, [np.log((t + 1) / tau)]]))
    return np.stack(rows)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float) -> None:
    assert list(found) == list(expected)
    for name, band in expected.items():
        np.testing.assert_allclose(found[name], band, atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize("pattern", [FULL, CAUSAL, BLOCKS], ids=str)
@pytest.mark.parametrize("tau", [0.4, 3.0, 6.3])
def test_each_band_is_its_definition_whatever_else_is_in_the_batch(tau: float, pattern: AttentionPattern) -> None:
    held = made_bands(tau)
    videos = [made_video(length, seed=length) for length in (90, 31, 1, 66)]
    found = whole(held, videos, pattern)
    for bands_found, video in zip(found, videos, strict=True):
        assert_same(bands_found, slow_bands(held, video, sees=pattern is FULL), 2e-5)


@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_averages_and_sums_are_made_of_the_visible_frames_alone(pattern: AttentionPattern) -> None:
    """Whatever is hidden may be NaN; sums are made up for it, and the clock runs on."""
    held, videos = made_bands(3.0), [made_video(length, seed=length) for length in (90, 40)]
    visible = torch.rand(2, 90, generator=torch.Generator().manual_seed(0)) < 0.4
    visible[1, :8] = False
    dirty = [video.masked_fill(~visible[row, : len(video), None], torch.nan) for row, video in enumerate(videos)]
    found = whole(held, dirty, pattern, visible)
    for row, video in enumerate(videos):
        slow = slow_bands(held, video, pattern is FULL, visible[row, : len(video)].numpy())
        del slow["frame"], found[row]["frame"]
        assert_same(found[row], slow, 2e-5)


def test_only_the_bands_that_are_asked_for_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    held, video = made_bands(3.0), made_video(9)
    for name in ("_memory", "_ahead"):
        monkeypatch.setattr(HeldBands, name, lambda *_: pytest.fail("nobody asked for it"))
    batch = SequenceBatch.pad([video])
    assert list(held(batch.features, Whole(lay_out(batch.valid)), FULL, None, ["around"])) == ["around"]
    model = PJEPA(ModelConfig(input_dim=WIDTH, dim=16, heads=2, depth=1, tau=3.0))
    hidden = torch.arange(9)[None] % 2 == 0
    assert model(batch, hidden).predictions.shape == (1, 9, 16), "training needs no more"


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 16, 17, 63, 64, 65, 200, 257])
def test_pieces_of_pieces_are_scanned_like_one(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    monkeypatch.setattr(bands, "PIECE", 4)
    held, video = made_bands(2.0), made_video(frames)
    assert_same(whole(held, [video], FULL)[0], slow_bands(held, video, sees=True), 2e-5)


class Graph(nn.Module):
    """All bands of one whole video, as exported programs make them."""

    def __init__(self, held: HeldBands, pattern: AttentionPattern) -> None:
        super().__init__()
        self.held, self.pattern = held, pattern

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(1, T, D_in) -> (1, T, width) each"""
        return tuple(self.held(features, WholeGraph(features.shape[1], Rotations()), self.pattern).values())


@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_a_graph_takes_videos_of_any_length(pattern: AttentionPattern) -> None:
    """Also where there is one piece, or a piece of pieces, or more of these than in the video it was made from."""
    held = made_bands(6.0)
    dynamic = {"features": {1: torch.export.Dim.DYNAMIC}}
    example = torch.zeros(1, 150, WIDTH)
    program = torch.export.export(Graph(held, pattern), (example,), dynamic_shapes=dynamic, strict=False).module()
    for frames in (9, 64, 65, 700, 4096, 4097, 20_000):
        video = made_video(frames)
        found = program(video[None])
        for band, expected in zip(found, whole(held, [video], pattern)[0].values(), strict=True):
            np.testing.assert_allclose(band[0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("pattern", [FULL, CAUSAL, BLOCKS], ids=str)
def test_the_bands_are_as_wide_as_the_config_says(pattern: AttentionPattern) -> None:
    for fields in ({}, {"held_components": 2}, {"bands": ("memory", "around", "context")}):
        held = made_bands(3.0, **fields)
        widths = {name: band.shape[1] for name, band in whole(held, [made_video(9)], pattern)[0].items()}
        assert widths == {name: width for name, width in held.config.widths(pattern).items() if name in bands.NAMES}
        assert ("ahead" in widths) == (pattern is FULL and "bands" not in fields)


@pytest.mark.parametrize("now", [1, 20, 63, 64, 99])
def test_no_live_band_changes_with_what_comes_later(now: int) -> None:
    held, video = made_bands(6.0), made_video(100)
    changed = torch.cat([video[:now], 50 * made_video(100 - now, seed=1)])
    for before, after in zip(*(whole(held, [x], CAUSAL)[0].values() for x in (video, changed)), strict=True):
        np.testing.assert_allclose(before[:now], after[:now], atol=1e-6)
        assert np.abs(before[now:] - after[now:]).max() > 1e-3


def test_memory_knows_what_was_long_ago_and_ahead_what_will_be() -> None:
    held, video = made_bands(2.0), made_video(400)
    changed = video.clone()
    changed[200] += 100
    before, after = (whole(held, [x], FULL)[0] for x in (video, changed))
    differs = {name: np.abs(before[name] - after[name]).max(1) > 1e-4 for name in before}
    assert differs["frame"].nonzero()[0].tolist() == [200]
    assert not differs["memory"][:200].any() and differs["memory"][200:].all()
    assert differs["ahead"][:201].all() and not differs["ahead"][201:].any()


@pytest.mark.parametrize("sizes", [[1] * 150, [7] * 21 + [3], [149, 1], [64, 64, 22], [2, 140, 8]])
def test_a_video_in_pieces_has_the_bands_of_the_whole_one(sizes: list[int]) -> None:
    held, video = made_bands(6.0), made_video(150)
    assert_same(streamed(held, video, sizes)[0], whole(held, [video], CAUSAL)[0], 2e-6)


def test_the_state_stays_exact_and_small_over_forty_thousand_frames_far_from_zero() -> None:
    """Two hours at 5 Hz; sums in float32 would be off by far more."""
    held, video = made_bands(6.0), 300 + made_video(40_000)
    held.norm.mean += 301
    shorter = streamed(held, video[:400], [200] * 2)[1]
    found, memory = streamed(held, video, [256] * 156 + [64])
    assert memory.size_bytes == shorter.size_bytes < 20_000
    expected = whole(held, [video], CAUSAL)[0]
    assert_same(found, expected, 2e-5)
    x = expected["frame"].astype(np.float64)
    np.testing.assert_allclose(expected["memory"][-1], slow_last_memory(x, 6.0), atol=1e-6)
    centred = x - x.cumsum(0) / np.arange(1, len(x) + 1)[:, None]
    slowest = np.average(centred, axis=0, weights=0.5 ** (np.arange(len(x))[::-1] / (64 * 6)))
    np.testing.assert_allclose(expected["around"][-1, -WIDTH:], slowest, atol=2e-6)


def test_the_precision_of_the_model_leaves_the_half_lives_alone() -> None:
    """In float16, what an average keeps from frame to frame would be 1, and its weight 0."""
    video = made_video(300)
    exact = whole(made_bands(60.0), [video], CAUSAL)[0]
    held = made_bands(60.0).half()
    rough = whole(held, [video.half()], CAUSAL)[0]
    assert rough["memory"].dtype == np.float16
    for name in ("frame", "around", "memory"):
        np.testing.assert_allclose(rough[name].astype(np.float32), exact[name], atol=0.02, rtol=0.01)
    turned = whole(made_bands(60.0).half().float(), [video], CAUSAL)[0]
    np.testing.assert_allclose(turned["memory"], exact["memory"], atol=0.02)


def slow_last_memory(x: np.ndarray, tau: float) -> np.ndarray:
    above, below = (np.log1p(np.maximum(sign * x, 0).sum(0) / tau) for sign in (1, -1))
    return np.concatenate([x.mean(0), above, below, np.maximum(x.max(0), 0), [np.log(len(x) / tau)]])


def measured(width: int, tokens: int = 1) -> tuple[Statistics, np.ndarray]:
    """Statistics of correlated tokens, and 2,000 frames of them."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(2000, tokens, 4)) @ rng.normal(size=(4, width)) + 0.05 * rng.normal(size=(1, 1, width))
    frames = (5 + mixed + 0.01 * rng.normal(size=mixed.shape)).astype(np.float32)
    every = frames.reshape(-1, width)
    deviation = every.std(0)
    sample = frames.reshape(2000, -1)
    return Statistics(np.zeros(width, np.float32), deviation, sample, level=every.mean(0)), sample


@pytest.mark.parametrize("tokens", [1, 3])
def test_wide_features_are_held_by_their_leading_components_and_frames_as_they_are(tokens: int) -> None:
    statistics, sample = measured(100, tokens)
    config = ModelConfig(input_dim=100 * tokens, tokens=tokens, dim=16, heads=2, tau=3.0)
    encoder = PJEPA(config).encoder
    set_statistics(encoder, statistics)
    held = encoder.held
    assert held is not None and held.basis is not None and held.basis.shape == (100, 64)
    video = torch.from_numpy(sample[:50])
    single = video.reshape(50, tokens, 100).mean(1)
    assert_same(whole(held, [video], FULL)[0], slow_bands(held, single, sees=True), 5e-5)
    means = sample.reshape(2000, tokens, 100).mean(1) / statistics.deviation
    values, vectors = np.linalg.eigh(np.cov(means.T))
    leading = vectors[:, ::-1][:, :4]
    basis = held.basis.double().numpy()
    assert np.abs(leading.T @ basis[:, :4]).max() == pytest.approx(1 / np.sqrt(values[::-1][:64].mean()), rel=0.01)
    np.testing.assert_allclose(leading @ (leading.T @ basis[:, :4]), basis[:, :4], atol=0.02 * np.abs(basis).max())


def test_held_bands_are_standardised_by_the_level_of_frames_that_are_not_centred() -> None:
    statistics, sample = measured(5)
    encoder = PJEPA(ModelConfig(input_dim=5, dim=16, heads=2, tau=3.0)).encoder
    set_statistics(encoder, statistics)
    assert encoder.held is not None and encoder.held.basis is None
    frames = encoder.held.norm(torch.from_numpy(sample))
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-3)
    assert torch.equal(encoder.proj[0].mean, torch.zeros(5)), "the blocks' input is centred by itself"  # type: ignore[union-attr]


@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_the_latents_are_the_held_bands_with_the_learned_one_behind_them(pattern: AttentionPattern) -> None:
    torch.manual_seed(0)
    model = PJEPA(ModelConfig(input_dim=WIDTH, dim=16, heads=2, depth=1, readout_dim=24, tau=3.0)).eval()
    video = made_video(40)
    latents = model.encode(video, pattern=pattern)
    parts = dict(zip(model.bands(pattern), latents.split(list(model.bands(pattern).values()), dim=1), strict=True))
    assert model.encoder.held is not None
    slow = slow_bands(model.encoder.held, video, sees=pattern is FULL)
    assert_same({name: parts[name].numpy() for name in slow}, slow, 2e-5)
    batch = SequenceBatch.pad([video])
    with torch.no_grad():
        learned = model.encoder.readout(model.encoder(batch, batch.valid, pattern))
    torch.testing.assert_close(parts["context"], learned[0], atol=1e-5, rtol=0)
    assert not any(parameter.requires_grad for parameter in model.encoder.held.parameters()), "nothing in it is learned"


@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_steady_is_the_learned_band_averaged_with_a_half_life_of_tau(pattern: AttentionPattern) -> None:
    tau, lengths = 5.0, [90, 41]
    batch = SequenceBatch.pad([made_video(length, seed=length) for length in lengths])
    found = Steady(tau)(batch.features, Whole(lay_out(batch.valid)), pattern)
    for row, length in enumerate(lengths):
        video = batch.features[row, :length].double().numpy()
        away = np.arange(length)[:, None] - np.arange(length)
        weights = 0.5 ** (np.abs(away) / tau)
        weights = weights + np.eye(length) if pattern is FULL else np.where(away >= 0, weights, 0.0)
        np.testing.assert_allclose(
            found[row, :length].numpy(), weights @ video / weights.sum(1, keepdims=True), atol=1e-5
        )


def test_steady_of_a_stream_is_that_of_the_whole_video_at_any_chunking() -> None:
    video, steady = made_video(200)[None], Steady(4.0)
    memory, start, parts = Memory(), 0, []
    for size in (1, 2, 64, 3, 65, 40, 25):
        piece = video[:, start : start + size]
        context = Cached(memory, [start], [size], size, video.device)
        parts.append(steady(piece, context, CAUSAL))
        memory, start = context.remembered, start + size
    expected = steady(video, Whole(lay_out(torch.ones(1, 200, dtype=torch.bool))), CAUSAL)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=2e-6)
