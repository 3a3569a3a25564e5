"""Learning on the page: start, predictions, accept and correct, unsure, what to label next; and the token."""

import shutil
from pathlib import Path

from look import Server, Windows, drag, seek, spans, until, wait_until

NEW = 2
"""The number of the first video without labels."""


def test_what_was_learned_is_shown_accepted_and_exported(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v={NEW}")
    assert "Prediction" not in page.locator("#headings").inner_text()
    page.keyboard.press("l")
    page.wait_for_selector("#accuracy b")
    assert "2 folds" in page.locator("#accuracy").inner_text()
    until(page, "document.querySelector('#headings').innerText.includes('Prediction')")
    page.keyboard.press("Shift+A")
    until(page, "keystep.annotation.spans.length > 0")
    found = spans(page)
    assert found[0][0] == 0
    assert found[-1][1] == 60
    assert len(server.labels("assembly_03")) == 60
    page.keyboard.press("Control+z")
    wait_until(lambda: spans(page) == [])
    seek(page, 2)
    page.keyboard.press("a")
    wait_until(lambda: spans(page) == found[:1])


def test_an_unsure_stretch_is_kept_apart(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v={NEW + 1}")
    page.keyboard.press("x")
    drag(page, 10, 30)
    page.keyboard.press("u")
    wait_until(lambda: spans(page) == [(10, 30, "unsure")])
    assert server.labels("assembly_04").count("unsure") == 20


def test_what_to_label_next_opens_where_it_is(server: Server, windows: Windows) -> None:
    page = windows.open(server.address)
    page.keyboard.press("l")
    page.wait_for_selector("#suggestions button")
    first = page.locator("#suggestions .video-name").first.inner_text()
    page.keyboard.press("j")
    until(page, "name => document.querySelector('#name').textContent === name", first)


def test_the_token_leaves_the_address_and_survives_a_reload(drawn: Path, tmp_path: Path, windows: Windows) -> None:
    server = Server(shutil.copytree(drawn, tmp_path / "assembly"), "--token", "a-secret")
    try:
        page = windows.open(server.address)
        assert "a-secret" in server.address
        assert "a-secret" not in page.url
        until(page, "document.querySelector('#videos img').naturalWidth > 0")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        other = windows.context().new_page()
        other.goto(page.url)
        other.wait_for_selector("#token[open]")
        other.keyboard.type("a-secret")
        other.keyboard.press("Enter")
        other.wait_for_selector("body[data-ready]")
    finally:
        server.kill()
