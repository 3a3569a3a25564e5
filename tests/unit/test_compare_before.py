"""The comparer of benchmarks/before finds what it has to find; the steps themselves are `make compare-before`."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "before"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])


BEFORE = {"eval/raw | edit": 11.5, "eval/raw | cell": "11.5 ± 0.2", "run/weight": np.ones(3, np.float32)}


def found(now: dict, **allowed: list[dict]) -> tuple[list[tuple[str, str]], list[str]]:
    """(unexpected differences as (what, kind), stale entries)."""
    from compare import Allowed, compare

    result = compare(BEFORE, now, Allowed.read(allowed))
    return [(entry.what, entry.kind) for entry in result.red], result.stale


def test_equal_facts_are_green() -> None:
    assert found(dict(BEFORE)) == ([], [])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"eval/raw | edit": np.nextafter(11.5, 12)}, "changed"),
        ({"eval/raw | cell": "11.6 ± 0.2"}, "changed"),
        ({"run/weight": np.ones(3, np.float64)}, "changed"),
        ({"run/weight": np.array([1, 1, np.nan], np.float32)}, "changed"),
        ({"eval/pjepa | edit": 1.0}, "new"),
        ({"run/claim: it works": False}, "changed"),
        ({"run/claim: it works": "StepError: exit status 2"}, "changed"),
    ],
)
def test_a_changed_fact_is_red(change: dict, kind: str) -> None:
    assert found(BEFORE | change) == ([(next(iter(change)), kind)], [])


def test_a_missing_row_is_red() -> None:
    now = {name: value for name, value in BEFORE.items() if name != "eval/raw | edit"}
    assert found(now) == ([("eval/raw | edit", "gone")], [])


def test_an_allowed_difference_is_green_up_to_its_limit() -> None:
    entry = {"what": "eval/*", "at_most": 0.5, "reason": "another optimiser"}
    assert found(BEFORE | {"eval/raw | edit": 11.9, "eval/raw | cell": "11.9 ± 0.2"}, differences=[entry]) == ([], [])
    red, _ = found(BEFORE | {"eval/raw | edit": 12.1}, differences=[entry])
    assert red == [("eval/raw | edit", "changed")]


def test_a_stale_allowance_is_reported_and_a_reason_is_asked_for() -> None:
    _, stale = found(dict(BEFORE), differences=[{"what": "run/*", "reason": "was so once"}])
    assert stale == ["run/* (changed): was so once"]
    with pytest.raises(ValueError, match="reason"):
        found(dict(BEFORE), differences=[{"what": "run/*"}])


def test_a_renamed_fact_is_compared_under_its_new_name() -> None:
    rename = {"old": "^run/weight$", "new": "run/encoder.weight", "reason": "one name for both"}
    now = {name: value for name, value in BEFORE.items() if name != "run/weight"}
    assert found(now | {"run/encoder.weight": BEFORE["run/weight"]}, renames=[rename]) == ([], [])
    red, _ = found(now | {"run/encoder.weight": np.zeros(3, np.float32)}, renames=[rename])
    assert red == [("run/encoder.weight", "changed")]


def test_numbers_are_found_by_their_names_wherever_they_stand() -> None:
    from collect import numbers_in

    row = {"name": "pjepa", "mode": "causal", "mean": {"edit": 1.5}, "spread": {"edit": None}, "runs": [{"mean": 3}]}
    gain = {"first": "a", "second": "b", "difference": {"mean": 1.0, "low": 0.0, "high": 2.0}}
    flat = dict(numbers_in({"rows": [row], "gate": [gain]}))
    assert flat == dict(numbers_in({"tables": {"one": {"rows": [row], "gains": [gain]}}}))
    assert flat == {"pjepa | causal | mean | edit": 1.5, "a | b | mean": 1.0, "a | b | low": 0.0, "a | b | high": 2.0}


def test_html_and_markdown_tables_give_the_same_cells() -> None:
    from collect import cells

    html = (
        "<h3>Offline</h3><table><tr><th>row</th><th>head</th><th>edit</th></tr><tr><th colspan=3>learned</th></tr>"
        "<tr><td>pjepa<span>32 wide</span></td><td>linear</td><td><b>1.5</b></td></tr></table>"
    )
    markdown = "**Offline**\n\n| row | head | edit |\n|---|---|---:|\n| pjepa | linear | **1.5** |\n"
    assert cells(html) == cells(markdown) == {"Offline | pjepa | linear | edit": "1.5"}
