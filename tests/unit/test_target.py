from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig, TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.config.times import averaged_frames
from keystep.data.statistics import Statistics, moving_average
from keystep.errors import InputError
from keystep.nn.encoder import Encoder
from keystep.target import (
    ClusterTarget,
    EmaTarget,
    FeatureTarget,
    Neighbourhood,
    Target,
    build_target,
    prediction_width,
    shifts_of,
)

WIDTH = 5
FULL, CAUSAL = AttentionPattern(), AttentionPattern(kind="causal")


def encoder(**fields: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder(ModelConfig(input_dim=WIDTH, dim=16, depth=3, heads=2, **fields))


def batch(padding: float = 0.0) -> SequenceBatch:
    generator = torch.Generator().manual_seed(0)
    made = SequenceBatch.pad([3 * torch.randn(length, WIDTH, generator=generator) + 2 for length in (9, 14, 1)])
    return SequenceBatch(made.features.masked_fill(~made.valid[..., None], padding), made.valid)


def statistics(frames: int = 300) -> Statistics:
    sample = np.random.default_rng(0).normal(2, 3, size=(frames, WIDTH)).astype(np.float32)
    return Statistics(sample.mean(0), sample.std(0), sample)


def ema(**fields: Any) -> tuple[EmaTarget, Encoder]:
    learned = encoder()
    return EmaTarget(learned, TargetConfig(kind="ema", **fields)), learned


def slow_input(centring: bool, smooth: int = 1) -> list[np.ndarray]:
    """What feature targets should be, one video at a time."""
    made, measured = batch(), statistics()
    rows = []
    for features, length in zip(made.features.numpy(), made.lengths, strict=True):
        row = (features[: int(length)].astype(np.float64) - measured.mean) / measured.deviation
        row = row - row.mean(0) if centring else row
        half = smooth // 2
        rows.append(np.stack([row[max(0, t - half) : t + half + 1].mean(0) for t in range(len(row))]))
    return rows


@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_at_the_start_ema_targets_are_the_encoders_own_latents(pattern: AttentionPattern) -> None:
    target, learned = ema()
    made = batch()
    # the copy runs without gradients, for which attention may take another kernel
    torch.testing.assert_close(target(made, pattern), learned(made, made.valid, pattern), atol=1e-5, rtol=0)


def test_the_copy_follows_by_the_formula_and_shares_nothing() -> None:
    target, learned = ema()
    before = {name: tensor.clone() for name, tensor in target.encoder.named_parameters()}
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(torch.randn(parameter.shape))
    for name, tensor in target.encoder.named_parameters():
        assert torch.equal(tensor, before[name]), "what trains the encoder leaves the copy alone"
    target.follow(learned, 0.9)
    new = dict(learned.named_parameters())
    for name, tensor in target.encoder.named_parameters():
        torch.testing.assert_close(tensor, 0.9 * before[name] + 0.1 * new[name])
    target.follow(learned, 1.0)
    still = {name: tensor.clone() for name, tensor in target.encoder.named_parameters()}
    target.follow(learned, 0.0)
    for name, tensor in target.encoder.named_parameters():
        torch.testing.assert_close(tensor, new[name])
        assert not torch.equal(still[name], new[name])


def test_many_steps_of_following_are_an_exponential_average() -> None:
    target, learned = ema()
    own, new = (module.get_parameter("proj.1.weight") for module in (target.encoder, learned))
    start = own.clone()
    for _ in range(20):
        target.follow(learned, 0.8)
    assert torch.equal(own, start), "an encoder that stands still is not left"
    with torch.no_grad():
        new.add_(1)
    for _ in range(20):
        target.follow(learned, 0.8)
    torch.testing.assert_close(own, start + 1 - 0.8**20, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ema", "features", "clusters"])
def test_no_target_has_anything_to_train(kind: str) -> None:
    config = TargetConfig(kind=kind, clusters=4, offsets=(0,))  # type: ignore[arg-type]
    learned = encoder()
    target = build_target(config, learned, statistics(), 0, 1)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in learned.parameters())
    assert not target(batch(), FULL).requires_grad
    assert prediction_width(config, WIDTH, 16, 5) == {"ema": None, "features": WIDTH, "clusters": 4}[kind]


@pytest.mark.parametrize("kind", ["ema", "features", "clusters"])
@pytest.mark.parametrize("pattern", [FULL, CAUSAL], ids=str)
def test_nan_at_padding_changes_no_target(kind: str, pattern: AttentionPattern) -> None:
    for normalise in ("none", "frame", "time"):
        config = TargetConfig(kind=kind, clusters=4, normalise=normalise, smooth=3, offsets=(0,))  # type: ignore[arg-type]
        target = build_target(config, encoder(), statistics(), 0, 1)
        clean, dirty = target(batch(), pattern), target(batch(float("nan")), pattern)
        assert torch.equal(clean[batch().valid], dirty[batch().valid])
        assert bool(torch.isfinite(dirty.float()).all())


def test_layers_average_the_last_blocks() -> None:
    made = batch()
    learned = encoder()
    for layers in (1, 2, 3):
        target = EmaTarget(learned, TargetConfig(kind="ema", layers=layers))
        torch.testing.assert_close(target(made, FULL), learned(made, made.valid, FULL, layers))


def test_frame_normalisation_standardises_each_vector() -> None:
    plain, made = ema()[0](batch(), FULL), batch()
    found = ema(normalise="frame")[0](made, FULL)
    for row, frame in made.valid.nonzero().tolist():
        vector = plain[row, frame].double()
        wanted = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(found[row, frame].double(), wanted, atol=1e-5, rtol=0)


def test_time_normalisation_standardises_each_channel_over_one_videos_frames() -> None:
    plain, made = ema()[0](batch(), FULL), batch()
    found = ema(normalise="time")[0](made, FULL)
    for row, length in enumerate(made.lengths.tolist()):
        video = plain[row, :length].double()
        wanted = (video - video.mean(0)) / (video.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(found[row, :length].double(), wanted, atol=1e-5, rtol=0)
    assert bool((found[~made.valid] == 0).all())


@pytest.mark.parametrize("centring", [False, True])
@pytest.mark.parametrize("smooth", [1, 5])
def test_feature_targets_are_the_standardised_input(centring: bool, smooth: int) -> None:
    found = FeatureTarget(statistics(), centring, smooth)(batch(), FULL)
    for row, wanted in enumerate(slow_input(centring, smooth)):
        np.testing.assert_allclose(found[row, : len(wanted)].numpy(), wanted, atol=1e-5)
    assert bool((found[~batch().valid] == 0).all())


@pytest.mark.parametrize("centring", [False, True])
@pytest.mark.parametrize("smooth", [1, 3])
def test_cluster_targets_are_the_nearest_centres(centring: bool, smooth: int) -> None:
    target = ClusterTarget(statistics(), centring, smooth, 7, 0)
    found = target(batch(), FULL)
    centres = target.centres.double().numpy()
    assert centres.shape == (7, WIDTH) and found.dtype == torch.int64
    for row, frames in enumerate(slow_input(centring, smooth)):
        wanted = [int(np.argmin([np.sum((frame - centre) ** 2) for centre in centres])) for frame in frames]
        assert found[row, : len(frames)].tolist() == wanted


def test_clusters_depend_on_the_seed_alone_and_describe_standardised_frames() -> None:
    first, second, other = (ClusterTarget(statistics(), True, 1, 8, seed).centres for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert float(first.abs().max()) < 4, "centres lie where standardised numbers lie"


def test_clusters_find_groups_that_are_there() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 100)
    sample = (10 * np.eye(4, WIDTH)[groups] + 0.1 * rng.normal(size=(400, WIDTH))).astype(np.float32)
    target = ClusterTarget(Statistics(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), sample), False, 1, 4, 0)
    found = target(SequenceBatch.pad([sample]), FULL)[0].numpy()
    assert all(len(set(found[groups == group])) == 1 for group in range(4)) and len(set(found)) == 4


def test_too_few_frames_for_the_clusters_are_refused() -> None:
    with pytest.raises(InputError, match="6 frames cannot form 7 clusters"):
        ClusterTarget(statistics(6), True, 1, 7, 0)


def test_a_targets_state_comes_back_from_its_tensors() -> None:
    made = batch()
    for kind in ("ema", "features", "clusters"):
        config = TargetConfig(kind=kind, clusters=4, offsets=(0,))
        first = build_target(config, encoder(), statistics(), 0, 1)
        other = Statistics(*(2 * part for part in (statistics().mean, statistics().deviation, statistics().sample)))
        second: Target = build_target(
            config, Encoder(ModelConfig(input_dim=WIDTH, dim=16, depth=3, heads=2)), other, 5, 1
        )
        wanted: Tensor = first(made, FULL)
        assert not torch.equal(second(made, FULL), wanted)
        second.load_state_dict(first.state_dict())
        assert torch.equal(second(made, FULL), wanted)


def test_the_sample_that_is_clustered_is_smoothed_as_the_targets_are() -> None:
    rng = np.random.default_rng(3)
    frames = rng.normal(size=(11, 4)).astype(np.float32)
    by_hand = np.stack([frames[max(0, t - 2) : t + 3].mean(axis=0) for t in range(11)])
    np.testing.assert_allclose(moving_average(frames, 5), by_hand, atol=1e-5)
    statistics = Statistics(np.zeros(4, np.float32), np.ones(4, np.float32), frames)
    padded = SequenceBatch.pad([frames, frames[:6]])
    targets = FeatureTarget(statistics, centring=False, smooth=5)(padded, AttentionPattern())
    np.testing.assert_allclose(targets[0].numpy(), by_hand, atol=1e-5)
    np.testing.assert_allclose(targets[1, :6].numpy(), moving_average(frames[:6], 5), atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "features", "clusters"])
def test_a_neighbourhood_is_each_frames_targets_at_the_offsets_and_unknown_outside_of_the_crop(kind: str) -> None:
    config = TargetConfig(kind=kind, clusters=4, offsets=(1.0, -0.4, 0), spread=0, cluster_weight=0)  # type: ignore[arg-type]
    alone = build_target(config.model_copy(update={"offsets": (0,)}), encoder(), statistics(), 0, rate=5)
    single, found = alone(batch(), FULL), build_target(config, encoder(), statistics(), 0, rate=5)(batch(), FULL)
    single = single if single.ndim == 3 else single[..., None]
    width, shifts = single.shape[-1], (-2, 0, 5)
    assert found.shape[-1] == 3 * width and found.dtype == single.dtype
    wanted_width = prediction_width(config, WIDTH, 16, 5)
    assert wanted_width == (3 * 4 if kind == "clusters" else found.shape[-1])
    for row, length in enumerate(batch().lengths.tolist()):
        for frame in range(length):
            for place, shift in enumerate(shifts):
                part = found[row, frame, place * width : (place + 1) * width]
                if 0 <= frame + shift < length:
                    torch.testing.assert_close(part, single[row, frame + shift])  # a difference of sums
                else:
                    assert bool((part.isnan() if part.is_floating_point() else part == -100).all())


def test_offsets_are_rounded_to_frames_and_counted_once() -> None:
    assert shifts_of((-8, -1, 0, 0.4, 1, 8), rate=1) == (-8, -1, 0, 1, 8)
    assert shifts_of((-8, 8), rate=0.05) == (0,)


def test_a_neighbourhood_follows_the_encoder() -> None:
    learned = encoder()
    target = build_target(TargetConfig(kind="ema", offsets=(0, 1)), learned, statistics(), 0, 1)
    with torch.no_grad():
        learned.proj[1].weight.add_(1)
    target.follow(learned, 0.0)
    assert torch.equal(target.state_dict()["target.encoder.proj.1.weight"], learned.proj[1].weight)


def test_features_wider_than_the_components_are_reduced_to_the_leading_ones() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    sample = (rng.normal(size=(4000, WIDTH)) * [9, 4, 1, 0.1, 0.1] @ directions.T).astype(np.float32)
    measured = Statistics(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), sample)
    target = FeatureTarget(measured, centring=False, smooth=1, components=2)
    made = SequenceBatch.pad([torch.from_numpy(sample[:50])])
    found = target(made, FULL)[0].double().numpy()
    scale = np.sqrt((81 + 16) / 2)
    wanted = sample[:50] @ directions[:, :2] / scale
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=0.05)
    assert FeatureTarget(measured, centring=False, smooth=1, components=WIDTH).basis is None


@pytest.mark.parametrize("kind", ["ema", "features"])
def test_a_target_is_averaged_over_its_share_of_the_distance(kind: str) -> None:
    config = TargetConfig(kind=kind, offsets=(-6, 0, 2), spread=0.5, cluster_weight=0)  # type: ignore[arg-type]
    single = build_target(config.model_copy(update={"offsets": (0,)}), encoder(), statistics(), 0, 1)
    found = build_target(config, encoder(), statistics(), 0, 1)(batch(), FULL)
    assert found.shape[-1] == prediction_width(config, WIDTH, 16, 1)
    parts = dict(zip([(3, -6), (1, 0), (1, 2)], found.chunk(3, dim=-1), strict=True))
    for row, length in enumerate(batch().lengths.tolist()):
        frames = single(batch(), FULL)[row, :length].numpy()
        for (width, shift), part in parts.items():
            wanted = moving_average(frames, width)
            for frame in range(length):
                if 0 <= frame + shift < length:
                    np.testing.assert_allclose(part[row, frame].numpy(), wanted[frame + shift], atol=1e-5)
                else:
                    assert bool(part[row, frame].isnan().all())


def test_calibrated_targets_all_vary_alike() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(600, WIDTH)).astype(np.float32) * [1, 10, 0.1, 3, 1]
    measured = Statistics(sample.mean(0), sample.std(0), sample.astype(np.float32))
    config = TargetConfig(kind="features", offsets=(-40, -10, 0, 10, 40), cluster_weight=0)
    target = build_target(config, encoder(), measured, 0, 1)
    assert isinstance(target, Neighbourhood)
    video = SequenceBatch.pad([torch.from_numpy(sample.astype(np.float32))])
    before = target(video, FULL)[0]
    target.calibrate([video], FULL)
    after = target(video, FULL)[0]
    deviations = np.nanstd(after.numpy(), axis=0)
    np.testing.assert_allclose(deviations, 1, atol=1e-3)
    assert np.nanstd(before.numpy(), axis=0).min() < 0.3
    torch.testing.assert_close(after.isnan(), before.isnan())


def test_a_column_that_never_changes_is_left_as_it_is_by_the_calibration() -> None:
    still = np.random.default_rng(0).normal(size=(50, WIDTH)).astype(np.float32)
    still[:, 2] = 1.0
    measured = Statistics(still.mean(0), np.where(np.arange(WIDTH) == 2, 1, still.std(0)).astype(np.float32), still)
    target = build_target(TargetConfig(offsets=(0, 4), cluster_weight=0), encoder(), measured, 0, 1)
    assert isinstance(target, Neighbourhood)
    target.calibrate([SequenceBatch.pad([torch.from_numpy(still)])], FULL)
    assert float(target.deviation[2]) == 1.0 == float(target.deviation[WIDTH + 2])


def test_shares_of_clusters_are_counted_in_the_windows_of_the_features() -> None:
    config = TargetConfig(offsets=(-2.0, 0.0, 1.0), spread=1.5, clusters=4, cluster_weight=1.0)
    found = build_target(config, encoder(), statistics(), seed=0, rate=2)
    alone = build_target(config.model_copy(update={"cluster_weight": 0.0}), encoder(), statistics(), seed=0, rate=2)
    clusters = build_target(TargetConfig(kind="clusters", offsets=(0,), clusters=4), encoder(), statistics(), 0, 2)
    made = batch()
    assert found.shares is not None
    own, shares = found.shares.split(found(made, FULL))
    assert own.shape[-1] + shares[0, 0].numel() == prediction_width(config, WIDTH, 16, 2)
    torch.testing.assert_close(own, alone(made, FULL), equal_nan=True)
    ids = clusters(made, FULL)
    for row, length in enumerate(made.lengths.tolist()):
        for frame in range(length):
            for place, (shift, width) in enumerate(((-4, averaged_frames(6.0)), (0, 1), (2, averaged_frames(3.0)))):
                middle = frame + shift
                if not 0 <= middle < length:
                    assert shares[row, frame, place].isnan().all()
                    continue
                around = ids[row, max(0, middle - width // 2) : min(length, middle + width // 2 + 1)]
                expected = torch.bincount(around, minlength=4) / len(around)
                torch.testing.assert_close(shares[row, frame, place], expected, rtol=0, atol=1e-6)


def test_shares_of_clusters_stand_beside_features_at_several_offsets_only() -> None:
    assert TargetConfig().has_shares
    for config in (TargetConfig(kind="ema"), TargetConfig(offsets=(0,)), TargetConfig(cluster_weight=0)):
        assert not config.has_shares
        settled = config.model_copy(update={"offsets": (0.0,)})
        assert build_target(settled, encoder(), statistics(), seed=0, rate=2).shares is None
