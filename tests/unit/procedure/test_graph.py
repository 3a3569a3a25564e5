"""Claims about the graph of a procedure: what is learned from runs, what a file has to hold, and what an order says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from keystep.data.made_runs import RunsConfig, make_run, true_procedure
from keystep.data.spans import Span
from keystep.errors import InputError
from keystep.evals.graphing import write_as
from keystep.procedure import GraphConfig, Order, ProcedureGraph, learn_graph, read_graph, write_graph
from keystep.procedure.learning import edge_scores, runs_of
from keystep.procedure.text import to_dot, to_mermaid


def run(steps: str, seconds: int = 2) -> list[Span]:
    """A run of steps with one letter each, at 1 Hz."""
    return [Span(seconds * place, seconds * (place + 1), step) for place, step in enumerate(steps)]


def learned(runs: Sequence[str], **settings: float) -> ProcedureGraph:
    return learn_graph([run(steps) for steps in runs], 1.0, GraphConfig.model_validate({"support": 1, **settings}))


def edges(graph: ProcedureGraph) -> set[str]:
    return {edge.before + edge.after for edge in graph.precedence}


@pytest.mark.parametrize("world", [0, 1, 2])
def test_the_true_graph_of_a_made_up_procedure_is_found(world: int) -> None:
    config = RunsConfig(seed=world)
    procedure = true_procedure(config)
    runs = [
        [Span(place, place + 1, act.step) for place, act in enumerate(make_run(config, index, procedure))]
        for index in config.splits["train"]
    ]
    graph = learn_graph(runs_of(runs), config.rate)
    precision, recall = edge_scores([(edge.before, edge.after) for edge in graph.precedence], procedure.precedence)
    assert precision >= 90 and recall >= 90
    assert {step.name for step in graph.steps if step.optional} == procedure.optional
    assert {step.name for step in graph.steps if step.repeatable} == procedure.repeatable


def test_an_order_that_follows_from_others_is_left_out() -> None:
    graph = learned(["abcd", "acbd"] * 5)
    assert edges(graph) == {"ab", "ac", "bd", "cd"} and [step.name for step in graph.steps] in (
        list("abcd"),
        list("acbd"),
    )


def test_a_rare_exception_is_tolerated_and_counted() -> None:
    graph = learned(["abc"] * 49 + ["bac"], confidence=0.95)
    found = {edge.before + edge.after: edge for edge in graph.precedence}
    assert set(found) == {"ab", "bc"} and (found["ab"].support, found["ab"].confidence) == (50, 0.98)
    assert edges(learned(["abc"] * 49 + ["bac"], confidence=1.0)) == {"ac", "bc"}


def test_orders_in_a_cycle_lose_the_least_certain_one() -> None:
    runs = ["ab"] * 9 + ["bc"] * 8 + ["ca"] * 7
    assert edges(learned(runs)) == {"ab", "bc"}


def test_statistics_of_steps() -> None:
    graph = learn_graph([run("abb", 2), run("ab", 4), run("aca", 3)], 2.0, GraphConfig(support=1))
    a, b = graph.by_name["a"], graph.by_name["b"]
    assert (a.runs, a.segments, a.share, a.optional, a.repeatable) == (3, 4, 1.0, False, True)
    assert (b.runs, b.optional, b.seconds[1]) == (2, True, 1.0)


def test_runs_are_cut_at_their_first_step_without_the_last_one_and_without_background() -> None:
    video = [
        *run("xab"),
        Span(6, 7, "pause"),
        *[Span(7 + 2 * k, 9 + 2 * k, step) for k, step in enumerate("bacab")],
        Span(17, 18, "c"),
    ]
    assert ["".join(span.label for span in found) for found in runs_of([video], {"pause"}, start="a")] == ["ab", "ac"]
    assert ["".join(span.label for span in found) for found in runs_of([video], {"pause"}, shortest=2)] == ["xabacab"]
    assert runs_of([run("ab")], start="a") == [run("ab")] and runs_of([run("ab")], {"a", "b"}) == []
    with pytest.raises(InputError, match="0 runs"):
        learn_graph([], 1.0)


def test_what_can_come_next_is_in_order_and_most_probable() -> None:
    order = Order(learned(["abcd", "acbd"] * 10))
    after = {option.step: option for option in order.next_steps(["a"])}
    assert sum(option.probability for option in after.values()) == pytest.approx(1, abs=0.02)
    assert {step for step, option in after.items() if option.in_order} == {"b", "c"}
    assert after["d"].lacking and set(after["d"].lacking) == {"b", "c"} and after["a"].again
    assert min(after["b"].probability, after["c"].probability) > 50 * after["d"].probability
    assert order.next_steps(["a", "b", "c", "d"])[0].step is None
    assert order.missing(["a", "d"]) == tuple(sorted("bc", key=[step.name for step in order.graph.steps].index))


def test_a_mistake_is_surprising_once_and_does_not_condemn_the_rest() -> None:
    order = Order(learned(["abcde"] * 20))
    correct = order.score("abcde")
    assert max(score.surprise for score in correct) < 1
    omitted = order.score("abde")
    assert [bool(score.lacking) for score in omitted] == [False, False, True, False, False]
    assert omitted[2].surprise > 4 and omitted[3].surprise < 1
    repeated = order.score("abcbde", ended=False)
    assert [score.again for score in repeated] == [False, False, False, True, False, False]
    unknown = order.score("ab?cde")
    assert [score.known for score in unknown] == [True, True, False, True, True, True, True]
    assert unknown[2].surprise > 4 and unknown[3].surprise < 1


def test_scores_do_not_depend_on_later_steps() -> None:
    order = Order(learned(["abcd", "acbd"] * 10))
    whole = order.score("abdca")
    assert all(order.score("abdca"[:length], ended=False) == whole[:length] for length in range(6))


def test_a_graph_is_written_and_read_unchanged(tmp_path: Path) -> None:
    graph = learned(["abcd", "acbd"] * 5)
    write_graph(tmp_path / "graph.json", graph)
    assert read_graph(tmp_path / "graph.json") == graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"precedence": [{"before": "a", "after": "z", "support": 1, "confidence": 1.0}]}, "'z'"),
        (
            {"precedence": [{"before": b, "after": a, "support": 1, "confidence": 1.0} for b, a in ("ab", "ba")]},
            "cycle",
        ),
        ({"transitions": [{"before": None, "after": "a", "count": -1}]}, "count"),
        ({"steps": []}, "steps"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(learned(["ab"] * 3).model_dump(mode="json") | change))
    with pytest.raises(InputError, match=message):
        read_graph(path)


def test_foreign_names_cannot_break_out_of_dot_or_mermaid() -> None:
    spans = [Span(0, 1, 'say "hi"\\'), Span(1, 2, "x] --> y; <b>\n")]
    graph = learn_graph([spans] * 3, 1.0, GraphConfig(support=1))
    dot, mermaid = to_dot(graph), to_mermaid(graph)
    assert '"say \\"hi\\"\\\\\\n100 %' in dot and "s0 -> s1;" in dot
    assert "#34;hi#34;" in mermaid and "#60;b#62;" in mermaid and "s0 --> s1" in mermaid
    assert len(mermaid.splitlines()) == 4


def test_every_kind_of_file_is_written_and_others_are_refused(tmp_path: Path) -> None:
    graph = learned(["abcd", "acbd", "abdb"] * 5)
    for ending, start in ((".json", b"{"), (".dot", b"digraph"), (".mmd", b"flowchart"), (".png", b"\x89PNG")):
        write_as(tmp_path / f"graph{ending}", graph, done=["a"])
        assert (tmp_path / f"graph{ending}").read_bytes().startswith(start)
    with pytest.raises(InputError, match=r"'\.pdf'"):
        write_as(tmp_path / "graph.pdf", graph)
