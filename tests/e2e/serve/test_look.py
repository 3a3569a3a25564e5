"""Looking: the list, the recording in step with the time line, every width, light and dark, without a mouse."""

import re
from typing import Any

import pytest
from look import Server, Windows, saved, seek, spans, until


def test_the_list_finds_filters_and_opens(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    names = page.locator("#videos .video-name")
    assert names.all_inner_texts() == [f"assembly_{number:02d}" for number in (1, 2, 3, 4)]
    page.select_option("#show", "unlabelled")
    until(page, "document.querySelectorAll('#videos button').length === 2")
    page.select_option("#show", "all")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("02")
    until(page, "document.querySelectorAll('#videos button').length === 1")
    page.locator("#videos button").click()
    until(page, "document.querySelector('#name').textContent === 'assembly_02'")


def test_the_recording_and_the_time_line_keep_step(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    until(page, "document.querySelector('video').readyState >= 2")
    seek(page, 20)
    until(page, "Math.abs(document.querySelector('video').currentTime - 5) < 0.3")
    assert page.locator("#time").inner_text().startswith("0:05.0")
    page.keyboard.press("ArrowRight")
    assert page.locator("#time").inner_text().startswith("0:05.2")
    page.keyboard.press("Space")
    until(page, "document.querySelector('video').currentTime > 5.6")
    page.keyboard.press("Space")
    slot = float(page.locator("#timeline").get_attribute("aria-valuenow"))
    assert abs(page.evaluate("document.querySelector('video').currentTime") * 4 - slot) <= 2


def test_wheel_and_keys_zoom_where_the_pointer_or_the_playhead_is(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    page.mouse.wheel(0, -800)
    until(page, "!keystep.timeline.view.isWhole")
    middle = page.evaluate("keystep.timeline.view.slotOf(keystep.timeline.view.width / 2)")
    assert middle == pytest.approx(30, abs=0.5)
    before = page.evaluate("keystep.timeline.view.from")
    page.mouse.wheel(120, 0)
    until(page, "before => keystep.timeline.view.from > before", before)
    page.keyboard.press("w")
    until(page, "keystep.timeline.view.isWhole")


def test_similarity_and_ribbons_are_drawn_and_the_matrix_seeks(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    until(page, "keystep.similarity.picture !== null")
    box = page.locator("#similarity").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 3)
    assert re.match(r"0:07\.[3-6]", page.locator("#time").inner_text())
    colours = page.evaluate(
        """() => {
            const row = keystep.timeline.rows.find(row => row.kind === "colour");
            const {canvas, density} = keystep.timeline;
            const y = (row.top + row.height / 2) * density;
            const line = canvas.getContext("2d").getImageData(0, y, canvas.width, 1).data;
            return new Set(Array.from({length: canvas.width}, (_, x) => line.slice(4 * x, 4 * x + 3).join())).size;
        }"""
    )
    assert colours > 10, "the colours of the representation change along the video"


@pytest.mark.parametrize("width", [390, 640, 1000, 1600], ids=lambda width: f"{width}px")
def test_nothing_is_wider_than_the_screen(server: Server, windows: Windows, width: int) -> None:
    page = windows.open(server.address, width=width, height=800)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("#top *, #work *")]
            .filter(each => each.checkVisibility({visibilityProperty: true}) && !each.closest("svg, .sr"))
            .filter(each => {
                const box = each.getBoundingClientRect();
                return box.width && (box.right > innerWidth + 1 || box.left < -1);
            }).map(each => each.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_stretch_is_labelled_without_a_mouse(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v=2")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "timeline":
            break
    else:
        raise AssertionError("the time line cannot be reached by Tab")
    page.keyboard.press("x")
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("4")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("4")
    assert spans(page) == [(8, 20, "check")]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Alt+Shift+ArrowRight")
    page.keyboard.press("Alt+ArrowLeft")
    assert spans(page) == [(7, 21, "check")]
    page.keyboard.press("Delete")
    assert spans(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(server: Server, windows: Windows, scheme: str) -> None:
    page = windows.open(server.address, color_scheme=scheme)
    saved(page)
    assert faults(page) == []
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    assert re.search("split at the playhead", page.locator("#help").inner_text())
    assert faults(page) == []


def faults(page: Any) -> list[str]:
    """Serious and critical faults that axe-core finds in what is shown."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_two_fingers_zoom_and_one_pans(server: Server, windows: Windows) -> None:
    page = windows.open(server.address, width=390, height=800, has_touch=True, is_mobile=True)
    box = page.locator("#timeline").bounding_box()
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *across: float) -> None:
        points = [{"x": x, "y": box["y"] + 60, "id": number} for number, x in enumerate(across)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 180, 220)
    for step in range(1, 6):
        fingers("touchMove", 180 - 20 * step, 220 + 20 * step)
    fingers("touchEnd")
    low, high = page.evaluate("[keystep.timeline.view.from, keystep.timeline.view.to]")
    assert high - low == pytest.approx(10, abs=1.5), "60 slots are shown six times as large"
    assert (low + high) / 2 == pytest.approx(200 / 390 * 60, abs=1.5), "around the fingers"
    fingers("touchStart", 250)
    for step in range(1, 6):
        fingers("touchMove", 250 - 20 * step)
    fingers("touchEnd")
    moved = page.evaluate("keystep.timeline.view.from") - low
    assert moved == pytest.approx(100 / 390 * (high - low), abs=0.6)
