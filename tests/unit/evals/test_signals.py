"""Scores of change are what their definition says, and surprise depends on nothing later, however the frames come."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keystep
from keystep.errors import InputError
from keystep.evals.signals import Surprise, change_scores

MakeModel = Callable[..., keystep.PJEPA]
CAUSAL = {"kind": "causal"}


def steps_of_a_video(frames: int, seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """(frames, 5): a look that changes every 5 to 20 frames, and noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 20, frames)
    looks = np.repeat(rng.normal(size=(frames, 5)), lengths, axis=0)[:frames]
    return (looks + noise * rng.normal(size=looks.shape)).astype(np.float32)


@pytest.mark.parametrize("window", [1, 3])
def test_a_score_compares_the_means_of_the_windows_on_either_side(window: int) -> None:
    video = steps_of_a_video(60)
    expected = []
    for t in range(window, len(video) - window + 1):
        change = video[t : t + window].mean(0, dtype=float) - video[t - window : t].mean(0, dtype=float)
        expected.append(np.sqrt((change**2).mean()))
    np.testing.assert_allclose(change_scores(video, window), expected, atol=1e-12)


def test_the_score_is_highest_where_the_look_changes() -> None:
    true = np.random.default_rng(0).integers(8, 40, 40)
    starts = np.cumsum(true)[:-1]
    looks = np.random.default_rng(1).normal(size=(40, 5))
    video = np.repeat(looks, true, axis=0) + 0.1 * np.random.default_rng(2).normal(size=(true.sum(), 5))
    scores = change_scores(video, 3)
    hits = [abs(int(scores[start - 6 : start + 1].argmax()) - 3) <= 1 for start in starts]  # of frames around it
    assert np.mean(hits) > 0.95


@given(cut=st.integers(6, 50), window=st.integers(1, 3))
def test_scores_of_chunks_are_those_of_the_whole_video(cut: int, window: int) -> None:
    video = steps_of_a_video(60)
    kept = video[cut - 2 * window + 1 :]
    parts = [change_scores(video[:cut], window), change_scores(kept, window)]
    np.testing.assert_allclose(np.concatenate(parts), change_scores(video, window), atol=1e-12)


def test_a_video_without_room_for_two_windows_has_no_scores() -> None:
    assert len(change_scores(np.zeros((5, 2)), 3)) == 0 and len(change_scores(np.zeros((6, 2)), 3)) == 1
    for rows, window in ((np.zeros(5), 3), (np.zeros((5, 2)), 0)):
        with pytest.raises(InputError, match=r"expected \(T, D\) and a window of at least 1"):
            change_scores(rows, window)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), max_size=8), frames=st.integers(0, 60))
def test_surprise_is_the_same_however_the_frames_come(make_model: MakeModel, sizes: list[int], frames: int) -> None:
    source, video = Surprise(make_model(CAUSAL), span=4, context=9), steps_of_a_video(frames)
    state, parts, start = source.begin(), [], 0
    for size in [*sizes, frames]:
        rows, state = source.step(video[start : start + size], state)
        parts.append(rows)
        start = min(frames, start + size)
        assert start - sum(map(len, parts)) <= source.delay
    whole = source.of_video(video)
    assert whole.shape == (frames, 1)
    np.testing.assert_allclose(np.concatenate([*parts, source.finish(state)]), whole, atol=1e-6)


def test_surprise_depends_on_nothing_later_and_is_lower_where_the_model_sees_the_frame(make_model: MakeModel) -> None:
    source = Surprise(make_model(CAUSAL, output_dim=7), span=4, context=9, clusters=7)
    video = steps_of_a_video(22)
    rows, state = source.step(video, source.begin())
    assert len(rows) == 20 and len(source.finish(state)) == 2 and (rows >= 0).all() and (rows <= np.log(2)).all()
    changed = video.copy()
    changed[10:] += 3
    np.testing.assert_allclose(source.step(changed, source.begin())[0][:10], rows[:10], atol=1e-6)
    assert np.abs(source.step(changed, source.begin())[0][10:] - rows[10:]).max() > 1e-3


def test_surprise_compares_the_clusters_of_each_offset_and_averages(make_model: MakeModel) -> None:
    """A model of three offsets against three that have one of them each."""
    together = make_model(CAUSAL, output_dim=12)
    video, alone = steps_of_a_video(22), []
    for offset in range(3):
        single = make_model(CAUSAL, output_dim=4)
        rows = slice(4 * offset, 4 * offset + 4)
        single.load_state_dict(
            {
                name: tensor[rows] if "predictor.output" in name or "visible_output" in name else tensor
                for name, tensor in together.state_dict().items()
            }
        )
        alone.append(Surprise(single, span=4, context=9, clusters=4))
    found = Surprise(together, span=4, context=9, clusters=4).of_video(video)
    np.testing.assert_allclose(found, np.mean([source.of_video(video) for source in alone], axis=0), atol=1e-6)
    with pytest.raises(InputError, match="12 outputs are not a multiple of 5 clusters"):
        Surprise(together, span=4, context=9, clusters=5)


def test_models_that_see_the_future_or_true_boundaries_have_no_surprise(make_model: MakeModel) -> None:
    seeing = ({"kind": "bidirectional"}, {"kind": "block_causal", "block": 4}, {"kind": "segment_causal"})
    for model in (*map(make_model, seeing), make_model(CAUSAL, positions="segment")):
        with pytest.raises(InputError, match="surprise needs causal attention"):
            Surprise(model, span=4, context=9)
    ahead = make_model(CAUSAL, predictor_attention={"kind": "bidirectional"})
    with pytest.raises(InputError, match="surprise needs a predictor with causal attention"):
        Surprise(ahead, span=4, context=9)
