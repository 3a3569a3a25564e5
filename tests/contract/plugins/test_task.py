"""A task from outside, as docs/add_task.md shows it, has its table; what it gives is checked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small import QUICK, SMALL

import keystep
from keystep.errors import InputError
from keystep.evals.results import Results, load_result

NAME = "my_tasks:Remaining"
Run = Callable[..., tuple[int, str, str]]


def test_the_page_runs_as_it_stands(page: Callable, shell: Run, mstcn: Path) -> None:
    train, judge = page("add_task.md").commands
    status, _, error = shell(*train[1:], *SMALL)
    assert status == 0, error
    status, said, error = shell(*judge[1:], *QUICK)
    assert status == 0, error
    (table,) = json.loads(Path("results/result.json").read_text())["task_tables"]
    assert (table["name"], table["title"]) == (NAME, "Remaining time")
    rows = {(row["name"], row["mode"]): row["runs"] for row in table["rows"]}
    assert {name for name, _ in rows} == {"raw features", "best control", "pjepa"}
    assert {mode for _, mode in rows} == {"offline", "causal"}
    assert all(0 < run["scores"]["error (s)"] < 20 for runs in rows.values() for run in runs)
    data = keystep.open_dataset(mstcn, source_rate=4)
    raw = {name: data.vectors(name) for name in data.videos}
    task = __import__("my_tasks").Remaining()
    assert rows["raw features", "causal"][0]["scores"] == task.score(raw, data, data.split("1"))
    assert "Remaining time" in said and "Remaining time" in Path("results/report.html").read_text()
    results = Results.load("results")
    assert "| representation | mode | error (s) | delay | seeds |" in results.table()
    Path("my_tasks.py").unlink()
    status, said, error = shell("report", "results")
    assert status == 0 and "Remaining time" in said, error


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('return {"error (s)": error(best, split.test)}', "return {}", "score gave {}; expected numbers"),
        (
            '"error (s)": error(best, split.test)',
            '"error (s)": float("nan")',
            r"measure 'error \(s\)' is nan, which is no",
        ),
        ('"error (s)": error(best, split.test)', 'f"error {np.random.rand()}": 1.0', "measures error .* after error "),
        ('title = "Remaining time"', "title = 3", "its title is 3, not a text"),
        ("    note =", "    remark =", "lacks note; see keystep.evals.task.EvaluationTask"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_one_line(
    page: Callable, mstcn: Path, old: str, new: str, words: str
) -> None:
    data, config = keystep.open_dataset(mstcn, source_rate=4), {"probe": {"penalties": [0.01]}}

    def judge() -> object:
        return keystep.evaluate(data, task=NAME, modes=["causal"], quick=True, config=config)

    page("add_task.md").refused(old, new, words, judge)


def test_an_edited_table_is_refused(page: Callable, mstcn: Path, tmp_path: Path) -> None:
    page("add_task.md")
    data = keystep.open_dataset(mstcn, source_rate=4)
    results = keystep.evaluate(data, task=NAME, modes=["causal"], quick=True, config={"probe": {"penalties": [0.01]}})
    results.save("out")
    record = json.loads(Path("out/result.json").read_text())
    record["task_tables"][0]["rows"][0]["runs"][0]["scores"] = {"another": 1.0}
    Path("out/result.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="the rows have different measures"):
        load_result(Path("out"))
