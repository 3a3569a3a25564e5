"""Many tokens a slot: what pooling gives, sees and learns, by itself and inside the model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import keystep
from keystep import stream
from keystep.batch import SequenceBatch
from keystep.config import ModelConfig, ObjectiveConfig, TargetConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.data.statistics import Statistics
from keystep.errors import InputError
from keystep.nn.pooling import AttentivePooler, mean_token, split_tokens
from keystep.objectives import frame_sums
from keystep.target import ClusterTarget, EmaTarget, FeatureTarget, feature_width

MakeModel = Callable[..., keystep.PJEPA]
TOKENS, WIDTH = 6, 16


def make_pooler(depth: int) -> AttentivePooler:
    """One whose scores are no longer zero, as training leaves it."""
    torch.manual_seed(0)
    pooler = AttentivePooler(WIDTH, TOKENS, heads=2, depth=depth).eval()
    torch.nn.init.normal_(pooler.score.weight)
    torch.nn.init.normal_(pooler.positions)
    return pooler


@pytest.fixture(params=[0, 1])
def token_model(request: pytest.FixtureRequest, make_model: MakeModel) -> keystep.PJEPA:
    """A causal model of 4 tokens a slot, each 5 wide, whose scores are no longer zero."""
    model = make_model({"kind": "causal", "window": 7}, input_dim=20, tokens=4, pooler_depth=request.param)
    assert model.encoder.pooler is not None
    torch.manual_seed(1)
    torch.nn.init.normal_(model.encoder.pooler.score.weight)
    return model


def test_an_untrained_pooler_without_blocks_is_the_plain_mean() -> None:
    tokens = torch.randn(2, 5, TOKENS, WIDTH)
    torch.testing.assert_close(AttentivePooler(WIDTH, TOKENS, heads=2)(tokens), tokens.mean(2))


def test_pooling_is_attention_of_one_query_a_head_written_out() -> None:
    pooler = make_pooler(0)
    slot = torch.randn(TOKENS, WIDTH)
    keys = torch.nn.functional.layer_norm(slot + pooler.positions[0], (WIDTH,))
    expected = []
    for head, query in enumerate(pooler.score.weight):
        weights = torch.tensor([(query @ key).item() for key in keys]).exp()
        channels = slot[:, head * WIDTH // 2 : (head + 1) * WIDTH // 2]
        expected.append((weights[:, None] * channels).sum(0) / weights.sum())
    torch.testing.assert_close(pooler(slot[None, None])[0, 0], torch.cat(expected))


@pytest.mark.parametrize("depth", [0, 1])
def test_other_slots_never_change_a_pooled_vector(depth: int) -> None:
    pooler, tokens = make_pooler(depth), torch.randn(2, 5, TOKENS, WIDTH)
    changed = tokens.clone()
    changed[0, :2] += 1
    changed[0, 3:] = 0
    changed[1] *= -3
    torch.testing.assert_close(pooler(changed)[0, 2], pooler(tokens)[0, 2])
    assert not torch.allclose(pooler(changed)[0, 3], pooler(tokens)[0, 3])


@pytest.mark.parametrize("depth", [0, 1])
def test_the_order_of_tokens_matters_by_their_learned_places_alone(depth: int) -> None:
    pooler, tokens = make_pooler(depth), torch.randn(1, 3, TOKENS, WIDTH)
    order = torch.randperm(TOKENS)
    assert not torch.allclose(pooler(tokens[:, :, order]), pooler(tokens), atol=1e-3)
    with torch.no_grad():
        pooler.positions.zero_()
    torch.testing.assert_close(pooler(tokens[:, :, order]), pooler(tokens))


def test_tokens_lie_side_by_side() -> None:
    features = torch.arange(12.0).reshape(1, 2, 6)
    assert split_tokens(features, 2)[0, 1].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert mean_token(features, 2)[0].tolist() == [[2, 3], [8, 9]]
    assert mean_token(features, 6) is features


def test_streaming_equals_offline_with_tokens(token_model: keystep.PJEPA) -> None:
    features = torch.randn(2, 40, 20)
    offline = token_model.encode(features)
    state, parts = stream.init(token_model, batch_size=2), []
    for chunk in features.split([1, 7, 2, 30], dim=1):
        latents, state = stream.step(token_model, chunk, state)
        parts.append(latents)
    torch.testing.assert_close(torch.cat(parts, dim=1), offline, atol=1e-5, rtol=1e-5)


def test_long_videos_are_pooled_in_parts_to_the_same_latents(token_model: keystep.PJEPA) -> None:
    features = torch.randn(1, 700, 20)  # more than one part of 1024 tokens
    with torch.no_grad():
        whole = token_model.encoder._pool(features)
        torch.testing.assert_close(token_model.encoder.project(features), whole)


def test_padding_and_hidden_frames_reach_nothing(token_model: keystep.PJEPA) -> None:
    features = torch.randn(1, 12, 20)
    valid = torch.ones(1, 12, dtype=torch.bool)
    valid[:, 9:] = False
    hidden = torch.zeros(1, 12, dtype=torch.bool)
    hidden[:, 4:6] = True
    noisy = features.clone()
    noisy[:, 9:] = float("nan")
    noisy[:, 4:6] = 100
    plain, other = (token_model(SequenceBatch(x, valid), hidden) for x in (features, noisy))
    torch.testing.assert_close(other.predictions, plain.predictions)


def test_the_loss_reaches_every_weight_of_the_pooler(token_model: keystep.PJEPA) -> None:
    batch = SequenceBatch(torch.randn(2, 12, 20), torch.ones(2, 12, dtype=torch.bool))
    hidden = torch.rand(2, 12) < 0.5
    predictions = token_model(batch, hidden).predictions
    sums = frame_sums(predictions, torch.randn_like(predictions), hidden, batch.valid, ObjectiveConfig())
    (sums.hidden + sums.visible).backward()
    assert token_model.encoder.pooler is not None
    for name, weight in token_model.encoder.pooler.named_parameters():
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0, name


def test_a_model_with_a_pooler_is_saved_and_loaded(token_model: keystep.PJEPA, tmp_path: object) -> None:
    token_model.save_pretrained(f"{tmp_path}/model")
    loaded = keystep.PJEPA.from_pretrained(f"{tmp_path}/model")
    features = torch.randn(1, 9, 20)
    assert loaded.config == token_model.config
    assert torch.equal(loaded.encode(features), token_model.encode(features))


def test_one_token_a_slot_needs_no_pooler_and_changes_nothing(make_model: MakeModel) -> None:
    plain, single = make_model({"kind": "causal"}), make_model({"kind": "causal"}, tokens=1)
    assert plain.encoder.pooler is single.encoder.pooler is None
    assert plain.state_dict().keys() == single.state_dict().keys()
    features = torch.randn(1, 9, 5)
    assert torch.equal(plain.encode(features), single.encode(features))


def test_tokens_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="input_dim 20 is not a multiple of tokens 3"):
        build(ModelConfig, {"input_dim": 20, "tokens": 3})


def sample_statistics(tokens: int, width: int) -> Statistics:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(300, tokens * width)) @ rng.normal(size=(tokens * width, tokens * width))
    single = sample.reshape(-1, width)
    return Statistics(*(part.astype(np.float32) for part in (single.mean(0), single.std(0), sample)))


@pytest.mark.parametrize("room", [1024, 12])  # all components of a token, or 3 of its 5
def test_a_features_target_keeps_the_leading_components_of_all_tokens(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("keystep.target.TOKEN_COMPONENTS", room)
    statistics = sample_statistics(4, 5)
    batch = SequenceBatch(torch.from_numpy(statistics.sample)[None], torch.ones(1, 300, dtype=torch.bool))
    got = FeatureTarget(statistics, True, 1, 3)(batch, AttentionPattern())[0].numpy()
    standard = statistics.sample / np.tile(statistics.deviation, 4)
    if room == 12:
        single = standard.reshape(-1, 5)
        own = np.linalg.svd(single - single.mean(0), full_matrices=False)[2][:3].T
        standard = (single @ own).reshape(300, -1)
    standard = standard - standard.mean(0)
    left, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    expected = left[:, :3] * sizes[:3] / np.sqrt(np.square(sizes[:3]).mean() / 300)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=2e-3)  # a component may point either way
    assert feature_width(TargetConfig(components=3), 20) == 3


def test_a_features_target_without_components_is_every_token_standardised() -> None:
    statistics, features = sample_statistics(4, 5), torch.randn(2, 30, 20)
    batch = SequenceBatch(features, torch.ones(2, 30, dtype=torch.bool))
    got = FeatureTarget(statistics, False, 1)(batch, AttentionPattern())
    tokens = (features.reshape(2, 30, 4, 5) - torch.from_numpy(statistics.mean)) / torch.from_numpy(
        statistics.deviation
    )
    torch.testing.assert_close(got, tokens.reshape(2, 30, 20))


def test_clusters_are_those_of_the_mean_token() -> None:
    statistics, features = sample_statistics(4, 5), torch.randn(2, 30, 20)
    valid = torch.ones(2, 30, dtype=torch.bool)
    tokens, means = SequenceBatch(features, valid), SequenceBatch(mean_token(features, 5), valid)
    mean_sample = mean_token(torch.from_numpy(statistics.sample), 5).numpy()  # as the target's: numpy rounds otherwise
    plain = Statistics(statistics.mean, statistics.deviation, mean_sample)
    pattern = AttentionPattern()
    several = ClusterTarget(statistics, True, 1, 4, 0)
    assert torch.equal(several(tokens, pattern), ClusterTarget(plain, True, 1, 4, 0)(means, pattern))


def test_the_slow_copy_follows_the_pooler(token_model: keystep.PJEPA) -> None:
    target = EmaTarget(token_model.encoder, TargetConfig(kind="ema"))
    with torch.no_grad():
        for weight in token_model.encoder.pooler.parameters():  # type: ignore[union-attr]
            weight.add_(1.0)
    target.follow(token_model.encoder, 0.5)
    own = dict(target.encoder.pooler.named_parameters())  # type: ignore[union-attr]
    for name, weight in token_model.encoder.pooler.named_parameters():  # type: ignore[union-attr]
        torch.testing.assert_close(own[name], weight - 0.5)
