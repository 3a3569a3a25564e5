"""A model card tells the scores of an evaluation of these very weights, with intervals, verdicts and leaks."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_results import NO_CURVES, NO_VIDEOS, made_result, write_result

import keystep
from keystep.errors import InputError
from keystep.evals.card import card_scores


def judged(folder: Path, weights: str, **data: object) -> Path:
    result = made_result()
    result["data"] |= data
    result["models"] = [{"name": "pjepa", "seed": seed, "weights": f"{weights}{'+' * seed}"} for seed in range(3)]
    return write_result(folder, result, NO_VIDEOS, NO_CURVES)


def test_scores_have_intervals_baselines_and_the_gates_verdicts(
    make_model: Callable[..., keystep.PJEPA], tmp_path: Path
) -> None:
    model = make_model({"kind": "causal"})
    scores = card_scores(judged(tmp_path / "result", model.fingerprint), model)
    assert "assembly, split 1, 12 test videos" in scores and "(3 of this model)" in scores and "`f00d`" in scores
    assert "| offline | **pjepa** | 64.1 (" in scores and "| offline | **pjepa ++ best control** | 67.9 (" in scores
    assert "| raw features | 41.2 (" in scores and "reconstruction" not in scores
    assert "| offline | alone, against the best control (moving average + progress) | +5.2 (+3.9 to +6.5) |" in scores
    model.save_pretrained(tmp_path / "shared", scores=scores)
    assert scores in (tmp_path / "shared" / "README.md").read_text()


def test_test_videos_that_were_seen_stand_in_the_card(make_model: Callable[..., keystep.PJEPA], tmp_path: Path) -> None:
    model = make_model({"kind": "causal"})
    leak = ["pjepa (runs/a) was pretrained, without labels, on 5 of the test videos"]
    scores = card_scores(judged(tmp_path / "result", model.fingerprint, leaks=leak), model)
    assert "**Mind: pjepa was pretrained, without labels, on 5 of the 12 test videos.**" in scores


def test_scores_of_other_weights_are_refused(make_model: Callable[..., keystep.PJEPA], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not judge these weights, but those of pjepa$"):
        card_scores(judged(tmp_path / "result", "0" * 64), make_model({"kind": "causal"}))
