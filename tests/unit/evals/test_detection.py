"""Claims about measures of mistakes, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from keystep.errors import InputError
from keystep.evals.calibration import LEAST, Calibration, deviations
from keystep.evals.detection import THRESHOLDS, Detection, Ranking, Truth

RNG = np.random.default_rng(0)


def some_videos(ties: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    wrong = [RNG.random(n) < 0.2 for n in (40, 60, 50)]
    scores = [RNG.normal(size=len(flags)) + flags for flags in wrong]
    return [np.round(own) if ties else own for own in scores], wrong


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_average_precision_agree_with_scikit_learn_for_every_draw_of_videos(ties: bool) -> None:
    scores, wrong = some_videos(ties)
    draws = np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]])
    ranking = Ranking.of(scores, wrong)
    for draw, auc, precision in zip(draws, ranking.auc(draws), ranking.average_precision(draws), strict=True):
        flags, values = (np.concatenate(np.repeat(np.array(x, dtype=object), draw).tolist()) for x in (wrong, scores))
        assert auc == pytest.approx(100 * roc_auc_score(flags, values))
        assert precision == pytest.approx(100 * average_precision_score(flags, values))


def test_many_scores_are_ranked_in_bins_without_a_visible_loss() -> None:
    wrong = [RNG.random(20_000) < 0.1]
    scores = [RNG.normal(size=20_000) + wrong[0]]
    ranking, all_videos = Ranking.of(scores, wrong), np.ones((1, 1))
    assert ranking.auc(all_videos)[0] == pytest.approx(100 * roc_auc_score(wrong[0], scores[0]), abs=0.05)
    expected = 100 * average_precision_score(wrong[0], scores[0])
    assert ranking.average_precision(all_videos)[0] == pytest.approx(expected, abs=0.5)


def test_eda_judges_a_segment_by_its_highest_frame_and_averages_over_thresholds() -> None:
    truth = Truth.of(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0], dtype=bool))
    assert truth.segments == (2, 3, 1)
    scores = np.array([-9.0, 0.05, 9.0, -9.0, -9.0, -9.0])
    above = (THRESHOLDS < 0.05).mean()  # where the first segment is taken for a mistake
    found = Detection.of({"a": scores}, {"a": truth}).measures()["EDA"]
    assert found[0] == pytest.approx(100 * (2 + (1 - above)) / 3)


def test_segments_end_where_mistakes_do() -> None:
    truth = Truth.of(np.array([0, 0, 0, 0, -100, -100]), np.array([0, 1, 1, 0, 1, 1], dtype=bool))
    assert truth.segments == (1, 2, 1, 2)


def test_scores_that_cannot_be_judged_are_refused() -> None:
    right = Truth.of(np.zeros(3, dtype=int), np.zeros(3, dtype=bool))
    wrong = Truth.of(np.zeros(3, dtype=int), np.array([True, False, False]))
    with pytest.raises(InputError, match="mistakes in none"):
        Detection.of({"a": np.zeros(3)}, {"a": right})
    with pytest.raises(InputError, match="a: 2 scores for 3 frames"):
        Detection.of({"a": np.zeros(2)}, {"a": wrong})
    with pytest.raises(InputError, match="NaN"):
        Detection.of({"a": np.array([0, np.nan, 1])}, {"a": wrong})


def test_a_share_counts_correct_frames_of_the_same_step_that_are_at_least_as_unusual() -> None:
    quiet, loud = np.arange(LEAST) / LEAST, 10 + np.arange(LEAST) / LEAST
    rare = np.full(LEAST - 1, 5.0)
    phases = np.repeat([0, 1, 2], [LEAST, LEAST, LEAST - 1])
    calibration = Calibration.of([np.concatenate([quiet, loud, rare])], [phases])
    same = calibration.tail(np.array([9.0, 9.0]), np.array([0, 1]))
    assert same.tolist() == [1 / (LEAST + 1), 1.0]
    assert calibration.tail(np.array([9.0]), np.array([2]))[0] == (LEAST + 1) / (3 * LEAST)
    assert Calibration.of([quiet]).tail(np.array([-1.0, 2.0])).tolist() == [1.0, 1 / (LEAST + 1)]
    with pytest.raises(InputError, match="no frame"):
        Calibration.of([])


def test_small_shares_are_many_deviations_and_all_are_finite() -> None:
    found = deviations(np.array([1.0, 0.5, 0.02275, 0.0]))
    assert found[1] == pytest.approx(0) and found[2] == pytest.approx(2, abs=1e-3)
    assert np.isfinite(found).all() and (np.diff(found) > 0).all()
