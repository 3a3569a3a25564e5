"""Labels made on the page: by key, by dragging, undone, merged, and never lost."""

import itertools
import random
import shutil
from pathlib import Path
from typing import Any

from drawn import STEPS
from look import Server, Windows, drag, seek, spans, until, wait_until

UNLABELLED = 2
"""The number of the first video without labels."""


def test_a_class_key_begins_and_ends_a_stretch_and_undo_takes_it_back(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v={UNLABELLED}")
    page.locator("#snap").click()
    seek(page, 8)
    page.keyboard.press("2")
    seek(page, 20)
    page.keyboard.press("2")
    assert spans(page) == [(8, 20, "place it")]
    assert server.labels("assembly_03")[6:10] == ["(unlabelled)"] * 2 + ["place it"] * 2
    page.keyboard.press("Control+z")
    wait_until(lambda: spans(page) == [])
    page.keyboard.press("Control+y")
    wait_until(lambda: spans(page) == [(8, 20, "place it")])


def test_dragging_draws_moves_borders_splits_merges_and_deletes(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v={UNLABELLED + 1}")
    page.locator("#snap").click()
    page.get_by_role("button", name="pick the part").first.click()  # marks the class; Escape ends what it began
    page.keyboard.press("Escape")
    drag(page, 10, 30)
    assert spans(page) == [(10, 30, "pick the part")]
    drag(page, 30, 36)
    assert spans(page) == [(10, 36, "pick the part")], "its border moves"
    page.keyboard.press("3")
    assert spans(page) == [(10, 36, "drive the screw")], "what was drawn is selected, and a key renames it"
    page.keyboard.press("Escape")
    seek(page, 20)
    page.keyboard.press("s")
    assert spans(page) == [(10, 20, "drive the screw"), (20, 36, "drive the screw")]
    page.locator(".segment").nth(0).click()
    page.keyboard.press("m")
    assert spans(page) == [(10, 36, "drive the screw")]
    page.keyboard.press("Delete")
    assert spans(page) == []
    assert server.labels("assembly_04") == []


def test_changes_of_labels_agree_with_labels_slot_by_slot(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    rng, slots = random.Random(0), 30
    commands, expected = [], [None] * slots
    for _ in range(300):
        start, stop = sorted(rng.sample(range(slots + 1), 2))
        label = rng.choice(["a", "b", None])
        commands.append(["erase", start, stop] if label is None else ["paint", start, stop, label])
        expected[start:stop] = [label] * (stop - start)
        if rng.random() < 0.3:
            commands.append(["splitAt", rng.randrange(slots)])
    found = page.evaluate(
        """async commands => {
            const edit = await import("/static/spans.js");
            return commands.reduce((spans, [name, ...values]) => edit[name](spans, ...values), []);
        }""",
        commands,
    )
    assert all(one["stop"] <= two["start"] for one, two in itertools.pairwise(found))
    assert all(one["start"] < one["stop"] for one in found)
    drawn = [next((s["label"] for s in found if s["start"] <= slot < s["stop"]), None) for slot in range(slots)]
    assert drawn == expected


def test_borders_never_swallow_a_neighbour(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    rng = random.Random(1)
    before = [{"start": a, "stop": b, "label": "x"} for a, b in ((2, 5), (5, 9), (12, 13), (20, 28))]
    moves = [[rng.randrange(4), rng.choice(["start", "stop"]), rng.randrange(-5, 40)] for _ in range(200)]
    found = page.evaluate(
        """async ([spans, moves]) => {
            const {moveBorder} = await import("/static/spans.js");
            const lists = [];
            for (const [index, edge, slot] of moves) lists.push(spans = moveBorder(spans, index, edge, slot, 30));
            return lists;
        }""",
        [before, moves],
    )
    for spans_ in found:
        edges = [edge for span in spans_ for edge in (span["start"], span["stop"])]
        assert len(spans_) == 4
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= 30
        assert all(span["start"] < span["stop"] for span in spans_)


def test_a_server_killed_in_the_middle_of_an_edit_loses_nothing(drawn: Path, tmp_path: Path, windows: Windows) -> None:
    server = Server(shutil.copytree(drawn, tmp_path / "assembly"))
    try:
        context = windows.context()
        page = windows.open(f"{server.address}#v={UNLABELLED}", context)
        page.locator("#snap").click()
        server.kill()
        seek(page, 4)
        page.keyboard.press("1")
        seek(page, 12)
        page.keyboard.press("1")
        page.wait_for_selector('#save-state[data-state="offline"]')
        page.close()  # the browser goes too
        server.start()
        assert server.labels("assembly_03") == []
        page = windows.open(f"{server.address}#v={UNLABELLED}", context)
        wait_until(lambda: server.labels("assembly_03").count("pick the part") == 8)
        assert spans(page) == [(4, 12, "pick the part")]
        server.kill()
        seek(page, 30)
        page.keyboard.press("3")
        seek(page, 40)
        page.keyboard.press("3")
        page.wait_for_selector('#save-state[data-state="offline"]')
        server.start()  # this time the window stays and tries again by itself
        wait_until(lambda: server.labels("assembly_03").count("drive the screw") == 10)
    finally:
        server.kill()


def test_the_later_of_two_windows_is_merged_or_asks(drawn: Path, tmp_path: Path, windows: Windows) -> None:
    server = Server(shutil.copytree(drawn, tmp_path / "assembly"))
    try:
        one, two = (windows.open(f"{server.address}#v={UNLABELLED}") for _ in range(2))
        for page in (one, two):
            page.route("**/api/events", lambda route: route.abort())  # neither hears of the other
            page.reload()
            page.wait_for_selector("body[data-ready]")
            page.locator("#snap").click()
        label(one, 4, 12, "1")
        assert spans(one) == [(4, 12, STEPS[0])]
        label(two, 20, 30, "2")
        both = [(4, 12, STEPS[0]), (20, 30, STEPS[1])]
        assert spans(two) == both
        label(two, 8, 16, "3")
        assert spans(two) == [(4, 8, STEPS[0]), (8, 16, STEPS[2]), (20, 30, STEPS[1])]
        label(one, 6, 10, "4")
        one.wait_for_selector("#conflict[open]")
        assert "drive the screw" in one.locator("#conflict").inner_text()
        one.get_by_role("button", name="Take theirs").click()
        assert spans(one) == [(4, 8, STEPS[0]), (8, 16, STEPS[2]), (20, 30, STEPS[1])]
        one.keyboard.press("Control+z")
        wait_until(lambda: (6, 10, STEPS[3]) in spans(one))
    finally:
        server.kill()


def label(page: Any, start: int, stop: int, key: str) -> None:
    """Draw a stretch by its key, with nothing selected."""
    page.keyboard.press("Escape")
    seek(page, start)
    page.keyboard.press(key)
    seek(page, stop)
    page.keyboard.press(key)


def test_names_are_text_and_never_markup(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    name = "<img src=x onerror=alert(1)>"
    page.keyboard.press("n")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    until(page, "name => [...document.querySelectorAll('#classes .name')].some(x => x.textContent === name)", name)
    assert page.locator("#classes img").count() == 0
    assert f"5 {name}" in (server.data / "mapping.txt").read_text()
