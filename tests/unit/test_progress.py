"""One protocol for terminal, notebook and log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from keystep.progress import SILENT, Bars, Lines


def test_lines_say_done_total_unit_note_and_time_left() -> None:
    lines: list[str] = []
    with Lines(lines.append, interval=0).task("encoding", total=2, unit="videos") as task:
        task.advance(note="a.npy")
        task.advance(note="b.npy")
    assert lines[0].startswith("encoding: 1 of 2 videos  a.npy  ") and lines[0].endswith(" s left")
    assert lines[1] == "encoding: 2 of 2 videos  b.npy"


def test_nothing_is_said_about_the_time_left_where_units_differ() -> None:
    lines: list[str] = []
    with Lines(lines.append, interval=0).task("judging", total=2, unit="probes", even=False) as task:
        task.advance(note="raw features")
        task.advance(note="all controls")
    assert lines == ["judging: 1 of 2 probes  raw features  after 0 s", "judging: 2 of 2 probes  all controls"]
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=120)).task("judging", total=2, even=False) as task:
        task.advance()
    assert "left" not in screen.getvalue()


def test_short_work_writes_no_lines() -> None:
    lines: list[str] = []
    with Lines(lines.append, interval=60).task("encoding", total=2) as task:
        task.advance()
        task.advance()
    assert lines == []


def test_a_total_may_be_known_later() -> None:
    lines: list[str] = []
    with Lines(lines.append, interval=0).task("judging") as task:
        task.advance()
        task.total = 4
        task.advance()
    assert lines[0] == "judging: 1" and lines[1].startswith("judging: 2 of 4")


def test_bars_show_description_and_count() -> None:
    screen = io.StringIO()
    progress = Bars(Console(file=screen, force_terminal=True, color_system=None, width=120))
    with progress.task("encoding", total=3, unit="videos") as task:
        task.advance(3, note="the last")
        progress.message("a line [beside] it")
    assert "encoding" in screen.getvalue() and "3 of 3 videos" in screen.getvalue()
    assert "a line [beside] it" in screen.getvalue()


@pytest.mark.parametrize("progress", [SILENT, Lines(lambda line: None)])
def test_an_error_inside_a_task_is_not_swallowed(progress: object) -> None:
    with pytest.raises(KeyError), progress.task("work"):  # type: ignore[attr-defined]
        raise KeyError
