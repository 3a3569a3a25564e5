from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.places import Packing, lay_out
from keystep.pjepa import PJEPA

WIDTH = 6
CAUSAL = AttentionPattern(kind="causal")
HONEST = [
    CAUSAL,
    AttentionPattern(kind="causal", window=9),
    AttentionPattern(kind="causal", window=9, stride=4, memory=64),
    AttentionPattern(kind="block_causal", block=16),
    AttentionPattern(kind="block_causal", block=16, window=24),
    AttentionPattern(kind="block_causal", block=16, window=24, stride=8, memory=96),
]
ANY = [
    *HONEST,
    AttentionPattern(),
    AttentionPattern(kind="bidirectional", window=9, stride=4, memory=64),
    AttentionPattern(kind="segment_causal"),
    AttentionPattern(kind="segment_causal", window=9),
]


PLAIN: dict[str, Any] = {"readout_dim": None}
BANDS: dict[str, Any] = {"readout_dim": 24, "tau": 2.5}
"""With and without a read-out of its own width and the held bands beside it."""


def made_model(**fields: Any) -> PJEPA:
    torch.manual_seed(0)
    return PJEPA(ModelConfig(input_dim=WIDTH, dim=16, depth=2, heads=2, **{**PLAIN, **fields})).eval()


def made_features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_model_gradients_agree_with_those_of_finite_differences() -> None:
    model = made_model(attention=AttentionPattern(kind="causal", window=3)).double()
    hidden = torch.tensor([[False, True, True, False, True, False]])

    def loss() -> Tensor:
        batch = SequenceBatch(made_features(1, 6).double(), torch.ones(1, 6, dtype=torch.bool))
        return model(batch, hidden).predictions.square().mean()

    loss().backward()
    for parameter in (model.mask_token, model.encoder.proj[1].weight, model.predictor.blocks[0].attn.qkv.weight):  # type: ignore[index, union-attr]
        assert isinstance(parameter, Tensor) and parameter.grad is not None
        flat, wanted = parameter.data.view(-1), parameter.grad.view(-1)[3]
        flat[3] += 1e-5
        above = loss()
        flat[3] -= 2e-5
        torch.testing.assert_close((above - loss()).detach() / 2e-5, wanted, atol=1e-7, rtol=1e-4)
        flat[3] += 1e-5


@pytest.mark.parametrize("pattern", HONEST, ids=str)
@pytest.mark.parametrize("length", [33, 128, 300])
@pytest.mark.parametrize("fields", [PLAIN, BANDS], ids=["plain", "bands"])
def test_future_frames_never_change_past_outputs(
    pattern: AttentionPattern, length: int, fields: dict[str, Any]
) -> None:
    features = made_features(1, length)
    for model, given_pattern in (
        (made_model(attention=pattern, **fields), None),
        (made_model(live_attention=pattern, **fields), pattern),
    ):
        before = model.encode(features, pattern=given_pattern)
        for now in (1, 17, length // 2, length - 1):
            changed = features.clone()
            changed[:, now:] = 100 * made_features(1, length - now, seed=1)
            after = model.encode(changed, pattern=given_pattern)
            closed = now // (pattern.block or 1) * (pattern.block or 1)
            assert torch.equal(before[:, :closed], after[:, :closed])
            assert not torch.equal(before[:, now], after[:, now])


def test_the_open_block_does_see_its_own_future() -> None:
    model, features = made_model(attention=HONEST[3]), made_features(1, 40)
    changed = features.clone()
    changed[:, 31] += 1
    assert bool((model.encode(features) != model.encode(changed))[:, 16:32].any(-1).all())


@pytest.mark.parametrize("pattern", HONEST, ids=str)
@pytest.mark.parametrize("fields", [PLAIN, BANDS], ids=["plain", "bands"])
def test_a_video_that_goes_on_keeps_its_past_outputs(pattern: AttentionPattern, fields: dict[str, Any]) -> None:
    model, features = made_model(attention=pattern, **fields), made_features(1, 160)
    torch.testing.assert_close(model.encode(features[:, :96]), model.encode(features)[:, :96], atol=1e-5, rtol=0)


def test_another_attention_than_was_learned_is_refused_where_bands_depend_on_it() -> None:
    features = made_features(1, 6)
    assert made_model(live_attention=None).encode(features, pattern=CAUSAL).shape == (1, 6, 16)
    with pytest.raises(InputError, match=r"was trained with bidirectional; .* does not support c"):
        made_model(live_attention=None, **BANDS).encode(features, pattern=CAUSAL)
    windowed = AttentionPattern(kind="causal", window=3)
    assert made_model(**BANDS).encode(features, pattern=windowed).shape[1] == 6


@pytest.mark.parametrize("fields", [PLAIN, BANDS], ids=["plain", "bands"])
def test_predictions_never_depend_on_later_visible_frames(fields: dict[str, Any]) -> None:
    model, features = made_model(attention=CAUSAL, **fields), made_features(1, 30)
    valid, hidden = torch.ones(1, 30, dtype=torch.bool), (torch.arange(30) % 3 == 1)[None]
    changed = features.clone()
    changed[:, 15:] += 1
    before, after = (model(SequenceBatch(x, valid), hidden).predictions for x in (features, changed))
    assert torch.equal(before[:, :15], after[:, :15]) and not torch.equal(before[:, 15:], after[:, 15:])


@pytest.mark.parametrize("pattern", ANY, ids=str)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("fields", [PLAIN, BANDS], ids=["plain", "bands"])
def test_padding_never_leaks_and_gives_exact_zeros(
    pattern: AttentionPattern, garbage: float, fields: dict[str, Any]
) -> None:
    model = made_model(attention=pattern, **fields)
    valid = torch.arange(50) < torch.tensor([[50], [31]])
    segments = torch.tensor([[20, 30], [30, 1]])
    features, hidden = made_features(2, 50), torch.rand(2, 50, generator=torch.Generator().manual_seed(0)) < 0.6
    clean, dirty = (features.masked_fill(~valid[..., None], value) for value in (0.0, garbage))
    latents = model.encode(dirty, valid, segments)
    assert torch.equal(latents, model.encode(clean, valid, segments))
    assert torch.equal(latents[~valid], torch.zeros(19, model.latent_dim()))
    output = model(SequenceBatch(dirty, valid, segments), hidden)
    assert torch.equal(output.predictions[~valid], torch.zeros(19, 16))
    assert torch.equal(output.latents[hidden | ~valid], torch.zeros_like(output.latents[hidden | ~valid]))
    output.predictions.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("pattern", ANY, ids=str)
@pytest.mark.parametrize("fields", [PLAIN, PLAIN | {"readout": "mean"}, BANDS], ids=["last", "mean", "bands"])
def test_a_padded_batch_gives_what_each_video_gives_alone(pattern: AttentionPattern, fields: dict[str, Any]) -> None:
    model = made_model(attention=pattern, **fields)
    videos = [made_features(length, seed=length) for length in (150, 64, 1)]
    segments = [[100, 50], [10, 54], [1]]
    batch = SequenceBatch.pad(videos, segments)
    together = model.encode(batch.features, batch.valid, batch.segment_lengths)
    for row, (video, lengths) in enumerate(zip(videos, segments, strict=True)):
        alone = model.encode(video[None], segment_lengths=torch.tensor([lengths]))
        torch.testing.assert_close(together[row, : len(video)], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", HONEST, ids=str)
def test_gaps_between_real_frames_keep_their_places(pattern: AttentionPattern) -> None:
    """A gap is as good as frames that nobody may see: hidden ones."""
    model, features = made_model(attention=pattern), made_features(2, 60)
    valid = torch.rand(2, 60, generator=torch.Generator().manual_seed(1)) < 0.7
    every = SequenceBatch(features, torch.ones_like(valid))
    with torch.no_grad():
        expected = model.encoder(every, valid, pattern, model.config.averaged_blocks)
    torch.testing.assert_close(model.encode(features, valid), expected, atol=1e-5, rtol=0)
    assert torch.equal(expected[~valid], torch.zeros_like(expected[~valid]))


@pytest.mark.parametrize("pattern", ANY, ids=str)
@pytest.mark.parametrize("fields", [PLAIN, BANDS], ids=["plain", "bands"])
def test_hidden_frames_never_reach_the_context_encoder_and_predictions_do_use_the_visible(
    pattern: AttentionPattern, fields: dict[str, Any]
) -> None:
    model, features = made_model(attention=pattern, **fields), made_features(2, 60)
    valid, segments = torch.ones(2, 60, dtype=torch.bool), torch.tensor([[20, 40], [59, 1]])
    hidden = torch.rand(2, 60, generator=torch.Generator().manual_seed(2)) < 0.6
    hidden[:, 0] = False
    before = model(SequenceBatch(features, valid, segments), hidden)
    other = SequenceBatch(features.masked_fill(hidden[..., None], float("nan")), valid, segments)
    unseen = model(other, hidden)
    assert torch.equal(before.latents, unseen.latents) and torch.equal(before.predictions, unseen.predictions)
    moved = model(SequenceBatch(torch.where(hidden[..., None], features, 2 * features), valid, segments), hidden)
    late = hidden & ((~hidden).cumsum(1) > 1)  # a running mean leaves nothing of the first visible frame
    assert bool((before.predictions != moved.predictions)[late].any(-1).all())


def test_a_video_without_frames_gives_zeros() -> None:
    for pattern, fields in product((*HONEST, AttentionPattern()), (PLAIN, BANDS)):
        model = made_model(attention=pattern, **fields)
        width, valid = model.latent_dim(), torch.tensor([[True, True, False], [False, False, False]])
        assert torch.equal(model.encode(made_features(2, 3), valid)[1], torch.zeros(3, width))
        assert torch.equal(model.encode(made_features(2, 3), torch.zeros_like(valid)), torch.zeros(2, 3, width))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_packing_moves_kept_frames_to_the_front_and_back(rows: list[list[bool]]) -> None:
    keep = torch.tensor(rows)
    features = made_features(len(rows), 5).masked_fill(~keep[..., None], float("nan"))
    packing = Packing(keep)
    packed = packing.pack(features)
    for row in range(len(rows)):
        count = int(keep[row].sum())
        assert torch.equal(packed[row, :count], features[row, keep[row]])
        assert torch.equal(packed[row, count:], torch.zeros_like(packed[row, count:]))
    assert torch.equal(packing.unpack(packed), features.masked_fill(~keep[..., None], 0.0))
    places = packing.places(lay_out(torch.ones_like(keep)))
    for row in range(len(rows)):
        assert places.positions[row, : int(keep[row].sum())].tolist() == keep[row].nonzero()[:, 0].tolist()


def test_segments_count_valid_frames_and_skip_gaps() -> None:
    valid = torch.tensor([[True, False, True, True, False, True], [True, True, True, False, False, False]])
    places = lay_out(valid, torch.tensor([[1, 3], [3, 0]]))
    assert places.segments is not None and places.segment_frames is not None
    assert places.segments[valid].tolist() == [0, 1, 1, 1, 0, 0, 0]
    assert places.segment_frames[valid].tolist() == [0, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("fields", [{"attention": ANY[-1]}, {"positions": "segment"}], ids=["attention", "positions"])
def test_oracle_models_need_segment_lengths(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"ORACLE.*segment_lengths"):
        made_model(**fields).encode(made_features(1, 6))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([3, 0, 3], "zero or negative"), ([7, -1], "zero or negative"), ([3, 2], "sums to 5, but 6 frames are valid")],
)
def test_wrong_segment_lengths_are_refused(lengths: list[int], message: str) -> None:
    model = made_model(attention=AttentionPattern(kind="segment_causal"))
    with pytest.raises(InputError, match=message):
        model.encode(made_features(1, 6), segment_lengths=torch.tensor([lengths]))


def test_a_frame_that_is_no_number_is_named() -> None:
    features = made_features(2, 6)
    features[1, 4, 2] = float("nan")
    with pytest.raises(InputError, match="sequence 1, frame 4"):
        made_model().encode(features)
    with pytest.raises(InputError, match=f"width 3; this model expects {WIDTH}"):
        made_model().encode(made_features(2, 6)[..., :3])


@pytest.mark.parametrize("output_dim", [None, 7])
@pytest.mark.parametrize("readout_dim", [None, 24])
def test_visible_frames_may_be_predicted_from_their_latents_alone(
    output_dim: int | None, readout_dim: int | None
) -> None:
    model = made_model(output_dim=output_dim, readout_dim=readout_dim)
    batch = SequenceBatch(made_features(2, 9), torch.arange(9) < torch.tensor([[9], [6]]))
    hidden = torch.rand(2, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    latents, predictions = model(batch, hidden)
    seen, read = batch.valid & ~hidden, model.encoder.readout(latents)
    torch.testing.assert_close(read[seen], model.encode(batch.features, seen)[seen])
    assert model.predictor.visible_output is not None
    torch.testing.assert_close(predictions[seen], model.predictor.visible_output(read[seen]))
    assert not bool(predictions[~batch.valid].any())
    with torch.no_grad():
        for parameter in model.predictor.blocks.parameters():
            parameter.add_(0.1)
    changed = model(batch, hidden).predictions
    torch.testing.assert_close(changed[seen], predictions[seen])
    assert not torch.equal(changed[hidden & batch.valid], predictions[hidden & batch.valid])
    assert made_model(visible_predictions="predictor").predictor.visible_output is None
