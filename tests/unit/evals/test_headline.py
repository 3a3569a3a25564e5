"""The sentence, the rows and the video that a report opens with."""

from typing import Any

import numpy as np
import pytest
from made_results import ALONE, BESIDE, LIVE, MEDIAN, PAIRED, ROWS, VIDEOS, gate_line, made_result

from keystep.evals.headline import (
    claims,
    gains,
    gate_counts,
    interval,
    kind,
    main_line,
    main_rows,
    pairs,
    shown_videos,
    verdict,
)

LOST = {"low": -0.4, "holds": False, "verdict": "fails"}
WORSE = {"mean": -3.0, "low": -4.0, "high": -2.0, "holds": False, "verdict": "fails"}


def test_the_main_line_of_a_gain_gives_both_sides_the_interval_the_seeds_and_the_videos() -> None:
    assert main_line(made_result()) == (
        "pjepa alone beats the best control offline by 5.2 points (64.1 % frame accuracy, moving average + progress "
        "58.9 %; 95 % interval +3.9 to +6.5), 3 seeds, 12 test videos."
    )


def test_both_modes_stand_in_one_sentence_and_what_holds_comes_first() -> None:
    both = main_line(made_result(gate=(ALONE, LIVE)))
    assert "offline by 5.2 points" in both and ") and beats the best control live by 8.7 points" in both
    mixed = main_line(made_result(gate=({**ALONE, **WORSE}, LIVE)))
    assert mixed.startswith("pjepa alone beats the best control live by 8.7 points")
    assert ", but is worse than the best control offline by 3.0 points" in mixed


def test_a_claim_that_does_not_hold_is_said_in_plain_words() -> None:
    lost, worse = {**ALONE, **LOST}, {**ALONE, **WORSE}
    assert main_line(made_result(gate=(lost,))).startswith("pjepa alone does not beat the best control offline (")
    assert main_line(made_result(gate=(worse,))).startswith("pjepa alone is worse than the best control offline by 3.0")
    assert verdict(lost) == "does not hold: the interval reaches 0" and verdict(worse) == "does not hold: it is worse"


def test_too_few_seeds_decide_nothing_however_large_the_gain_or_the_loss() -> None:
    rows = tuple((*row[:4], 1, row[5]) for row in ROWS)
    for mean, said in ((20.0, "is above"), (-20.0, "is below")):
        single = gate_line(ALONE["claim"], "pjepa", ALONE["second"], mean, mean - 5, mean + 5, seeds=1)
        line = main_line(made_result(rows=rows, gate=(single,)))
        assert line.startswith("No claim, not enough seeds (1, 3 needed): pjepa alone")
        assert f"{said} the best control offline by 20.0 points" in line
        assert kind(single) == "not enough seeds" and "1 seed, 3 needed" in verdict(single)


def test_a_tie_is_neither_above_nor_below() -> None:
    tie = {**ALONE, "mean": 0.0, "low": 0.0, "high": 0.0, "holds": False}
    for said in ("fails", "not enough seeds", "quick look"):
        line = main_line(made_result(gate=({**tie, "verdict": said},)))
        assert "pjepa alone equals the best control offline (" in line


def test_a_quick_look_and_a_late_answer_claim_nothing() -> None:
    quick = {**ALONE, "holds": False, "quick": True, "verdict": "quick look"}
    assert main_line(made_result(gate=(quick,))).startswith("No claim, a quick look: pjepa alone is above")
    late = {**ALONE, "holds": False, "later": True, "verdict": "answers later"}
    assert "is above the best control offline by 5.2 points, but answers later" in main_line(made_result(gate=(late,)))
    assert verdict(late) == "does not hold: it answers later than its rival"


def test_a_failing_comparison_beside_smoothing_is_not_hidden_behind_one_that_holds() -> None:
    result = made_result(gate=(ALONE, {**BESIDE, **LOST}))
    assert main_line(result).endswith("; 1 of the gate's 2 comparisons holds.")
    assert gate_counts(result) == "2 comparisons: 1 holds, 1 does not hold"
    none = made_result(gate=({**ALONE, **LOST}, {**BESIDE, **LOST}))
    assert main_line(none).endswith("; none of the gate's 2 comparisons holds.")


def test_the_main_line_names_the_hardest_rival() -> None:
    harder = gate_line("alone, against raw features", "pjepa", "offsets", mean=7.8, low=0.4, high=9.7)
    line = main_line(made_result(gate=(ALONE, harder)))
    assert "beats raw features offline by 7.8 points (64.1 % frame accuracy, offsets 56.3 %;" in line


def test_pairs_of_given_models_are_counted_nowhere_in_the_gate() -> None:
    result = made_result(gate=(ALONE, {**PAIRED, **LOST}))
    assert [line["first"] for line in claims(result)] == ["pjepa"]
    assert [line["first"] for line in pairs(result)] == ["reconstruction"]
    assert gate_counts(result) == "1 comparison: 1 holds" and "gate" not in main_line(result)


def test_a_leak_stands_before_the_claim() -> None:
    result = made_result()
    result["data"]["leaks"] = ["pjepa (runs/a) was pretrained, without labels, on 2 of the test videos"]
    assert main_line(result).startswith(
        "With a leak (pjepa was pretrained, without labels, on 2 of the 12 test videos): pjepa alone beats"
    )
    result["data"]["leaks"] = ["pjepa_old (runs/a) was pretrained, without labels, on 2 of the test videos"]
    assert main_line(result).startswith("pjepa alone")
    result["data"]["notes"] = ["nothing is known of the videos that pjepa (runs/a) was trained on"]
    assert main_line(result).startswith("A leak is possible (nothing is known of the videos that pjepa was trained on)")


def test_groups_are_counted_as_groups() -> None:
    result = made_result(gate=({**ALONE, "videos": 4},))
    result["data"]["groups"] = [f"person {index % 4}" for index in range(12)]
    assert main_line(result).endswith(", 3 seeds, 4 groups of test videos.")


def test_an_oracle_never_heads_the_report_as_a_claim() -> None:
    rows = (*ROWS, ("told (ORACLE)", "learned", "offline", 95.0, 3, None))
    oracle = {**ALONE, "first": "told (ORACLE)", "mean": 36.1}
    assert main_line(made_result(rows, (oracle, ALONE))).startswith("pjepa alone")
    assert main_line(made_result(rows, (oracle,))).startswith("ORACLE, so no claim")


def test_learned_rows_without_a_gate_claim_nothing() -> None:
    assert main_line(made_result(gate=())) == (
        "No claim, nothing was compared: pjepa alone, offline: 64.1 % frame accuracy (3 seeds)."
    )


def test_the_chart_has_the_strongest_control_and_ours_beside_it() -> None:
    names = {role: row["name"] for role, row in main_rows(made_result(), "offline").items()}
    assert names == {
        "raw features": "raw features",
        "best control": "moving average + progress",
        "untrained": "untrained encoder",
        "ours": "pjepa",
        "ours ++ control": "pjepa ++ best control",
    }
    assert "untrained" not in main_rows(made_result(), "causal")  # no such row: left out


def test_the_interval_of_a_row_holds_its_accuracy_and_draws_groups_where_there_are_any() -> None:
    result = made_result()
    row = main_rows(result, "offline")["ours"]
    alone = interval(result, row)
    assert alone is not None and alone.low < alone.mean < alone.high
    assert alone.mean == pytest.approx(row["mean"]["accuracy"], abs=0.1)
    result["data"]["groups"] = ["first"] * 6 + ["second"] * 6  # the gains rise with the number of the video
    grouped = interval(result, row)
    assert grouped is not None and grouped.high - grouped.low > alone.high - alone.low
    result["data"] |= {"groups": None, "test_videos": ["one"], "test_frames": [700]}
    row["runs"] = [{**run, "correct": run["correct"][:1]} for run in row["runs"]]
    assert interval(result, row) is None


def test_the_picture_shows_the_video_of_the_median_gain_then_the_smallest_and_the_largest() -> None:
    result = made_result()
    found = gains(result)
    assert found is not None and found.mode == "offline"
    middle = np.sort(list(found.by_video.values()))[5]  # of twelve the lower of the two in the middle
    assert found.by_video[found.median] == middle and found.median == MEDIAN
    assert shown_videos(result, 3) == [MEDIAN, "video 0", "video 11"] and found.ranked[-1] == "video 11"


def test_without_learned_rows_the_first_videos_are_shown() -> None:
    controls: tuple[Any, ...] = tuple(row for row in ROWS if row[1] in ("raw", "control"))
    result = made_result(controls, ())
    assert gains(result) is None and shown_videos(result, 2) == list(VIDEOS[:2])
