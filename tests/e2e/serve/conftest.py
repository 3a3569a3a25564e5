"""A server on made-up recordings, and Debian's chromium to look at it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drawn import write_drawn
from look import Server, Windows

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none; in CI that is a failure (see `browser`)."""
    try:
        import playwright  # noqa: F401

        missing = None if CHROMIUM else "no chromium here to look at the page with"
    except ImportError:
        missing = "playwright is not installed: pip install 'keystep[browser]'"
    if missing and not os.environ.get("CI"):
        for item in items:
            if "browser" in getattr(item, "fixturenames", ()) and Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 15 s, of which two are labelled; nobody changes them."""
    return write_drawn(tmp_path_factory.mktemp("drawn") / "data")


@pytest.fixture(scope="module")
def server(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of a module, which change the labels of different videos."""
    data = shutil.copytree(drawn, tmp_path_factory.mktemp("served") / "assembly")
    server = Server(data)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI needs chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def windows(browser: Any) -> Iterator[Windows]:
    """Windows for one test; a script error in any of them fails it."""
    windows = Windows(browser)
    yield windows
    for context in windows.contexts:
        context.close()
    assert not windows.errors
