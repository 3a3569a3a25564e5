"""Labels leave the page as files of other programs."""

import zipfile

from drawn import STEPS
from look import PATIENCE, Server, Windows, seek

from keystep.plugins import FORMATS

UNLABELLED = 2
"""The number of the first video without labels."""


def test_what_was_just_labelled_is_downloaded_and_what_is_lost_is_shown(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v={UNLABELLED}")
    page.locator("#snap").click()
    for slot in (8, 20):
        seek(page, slot)
        page.keyboard.press("2")
    page.get_by_role("button", name="Export").click()
    page.locator(".format").nth(len(FORMATS.names()) - 1).wait_for()
    assert [one.get_attribute("value") for one in page.locator(".format input").all()] == [*FORMATS.names()]
    page.get_by_role("radio", name="WebVTT").check()
    assert "milliseconds" in page.locator(".format", has_text="WebVTT").inner_text()
    with page.expect_download(timeout=PATIENCE) as coming:
        page.get_by_role("button", name="Download").click()
    assert coming.value.suggested_filename == "labels-webvtt.zip"
    archive = zipfile.ZipFile(coming.value.path())
    assert "00:00:02.000 --> 00:00:05.000\n" + STEPS[1] in archive.read("assembly_03.vtt").decode()
    page.locator("#export-notes li", has_text="milliseconds").wait_for()


def test_one_video_alone_and_a_film_of_it(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v=0")
    page.get_by_role("button", name="Export").click()
    page.get_by_role("radio", name="Film").check()
    page.get_by_role("checkbox", name="only assembly_01").check()
    with page.expect_download(timeout=PATIENCE) as coming:
        page.get_by_role("button", name="Download").click()
    archive = zipfile.ZipFile(coming.value.path())
    assert archive.namelist() == ["assembly_01.mp4", "NOTES.txt"]


def test_a_refusal_is_told_in_the_dialog(server: Server, windows: Windows) -> None:
    page = windows.open(f"{server.address}#v=3")
    page.get_by_role("button", name="Export").click()
    page.get_by_role("checkbox", name="only assembly_04").check()
    page.get_by_role("button", name="Download").click()
    page.locator("#export-said.bad", has_text="no labels").wait_for()
