"""Claims about following a run: one surprise a segment, no memory of flicker, and nothing of the future."""

from __future__ import annotations

from keystep.data.spans import Span
from keystep.procedure import GraphConfig, Order, learn_graph
from keystep.procedure.tracking import Tracker, TrackState


def tracker() -> Tracker:
    """Of a procedure a, b, c, d whose steps last 10 frames."""
    run = [Span(10 * place, 10 * place + 10, step) for place, step in enumerate("abcd")]
    return Tracker(Order(learn_graph([run] * 20, 5.0, GraphConfig())), 5.0)


def names(text: str) -> list[str | None]:
    return [None if letter == "." else letter for letter in text]


def test_a_run_in_order_is_not_surprising_and_its_steps_are_done() -> None:
    surprise, done = tracker().of_run(names("..aaaaaaaaaabbbbbbbbbb.ccccccccccdddddddddd"))
    assert surprise.max() < 1 and done == ("a", "b", "c", "d")


def test_every_frame_of_a_step_out_of_order_is_surprising_and_those_after_it_are_not() -> None:
    surprise, done = tracker().of_run(names("aaaaaaaaaaccccccccccdddddddddd"))
    assert surprise[:10].max() < 1 and surprise[10:20].min() > 4 and surprise[20:].max() < 1
    assert done == ("a", "c", "d")


def test_a_flicker_is_not_done_and_what_it_interrupts_goes_on() -> None:
    surprise, done = tracker().of_run(names("aaaaaaaaaaddaaaaaaaabbbbbbbbbb"))
    assert done == ("a", "b") and surprise[10:12].min() > 4 and surprise[12:].max() < 1
    surprise, _ = tracker().of_run(names("aaaaaaaaaacccccccccc..cccccccccc"))
    assert surprise[10:20].min() > 4 and (surprise[20:22] == 0).all() and (surprise[22:] == surprise[10]).all()


def test_a_stream_gives_what_the_whole_run_gives() -> None:
    run, own, state = names("aaaaaaaaaaddaaaaaaaaccccccccccbbbbbbbbbb??dddddddddd"), tracker(), TrackState()
    whole, done = own.of_run(run)
    for name, surprise in zip(run, whole, strict=True):
        state = own.step(name, state)
        assert state.surprise == surprise
    assert state.done == done
