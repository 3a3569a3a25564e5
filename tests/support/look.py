"""What browser tests share: a server in a process of its own, windows, and the hands of who labels."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 30_000
"""Milliseconds that a browser on a busy machine may take for one thing."""


class Server:
    """``keystep serve`` in a process of its own."""

    def __init__(self, data: Path, *options: str, port: int = 0) -> None:
        self.data, self.options, self.port = data, options, port
        self.start()

    def start(self) -> None:
        """Start it, at the same address if it ran before."""
        command = [sys.executable, "-m", "keystep", "serve", str(self.data), "--source-rate", "4"]
        command += ["--videos", str(self.data / "videos"), "--port", str(self.port), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        while not (found := re.search(r"http://\S+", said)):
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, f"the server ended: {said}"
            said += line
        self.address = found.group()
        self.port = int(re.search(r":(\d+)/", self.address).group(1))  # type: ignore[union-attr]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def labels(self, video: str) -> list[str]:
        """What stands in the MS-TCN file of a video."""
        path = self.data / "groundTruth" / f"{video}.txt"
        return path.read_text().splitlines() if path.exists() else []


class Windows:
    """Opens windows in browser contexts of their own, and collects what goes wrong in their scripts."""

    def __init__(self, browser: Any) -> None:
        self.browser, self.contexts, self.errors = browser, [], []  # type: ignore[var-annotated]

    def context(self, *, width: int = 1280, height: int = 800, **options: Any) -> Any:
        """A new profile: nothing stored, no other window."""
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        return context

    def open(self, address: str, context: Any = None, **options: Any) -> Any:
        """The page, once it is ready."""
        page = (context or self.context(**options)).new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        return page


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE / 1000) -> None:
    """Wait until a claim about the disk holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never held"
        time.sleep(0.1)


def until(page: Any, expression: str, value: Any = None) -> None:
    """Wait until an expression holds in the page, whose policy lets nobody evaluate strings in it by themselves."""
    wait_until(lambda: bool(page.evaluate(expression, value)))


def saved(page: Any) -> None:
    """Wait until the server has everything."""
    page.wait_for_selector('#save-state[data-state="saved"]')


def spans(page: Any) -> list[tuple[int, int, str]]:
    """The labels of the open video, as the server has them."""
    saved(page)
    found = page.evaluate("fetch(`/api/videos/${keystep.item.id}/annotation`).then(answer => answer.json())")
    return [(span["start"], span["stop"], span["label"]) for span in found["spans"]]


def seek(page: Any, slot: float) -> None:
    """Click on the ruler of the time line, which shows the whole video."""
    box = page.locator("#timeline").bounding_box()
    slots = int(page.locator("#timeline").get_attribute("aria-valuemax"))
    page.mouse.click(box["x"] + (slot + 0.1) / slots * box["width"], box["y"] + 10)


def drag(page: Any, first: float, last: float, row: int = 50) -> None:
    """Drag along the labels from one slot's start to another's, with the whole video in view."""
    box = page.locator("#timeline").bounding_box()
    slots = int(page.locator("#timeline").get_attribute("aria-valuemax"))
    x = [box["x"] + slot / slots * box["width"] for slot in (first, last)]
    page.mouse.move(x[0], box["y"] + row)
    page.mouse.down()
    page.mouse.move((x[0] + x[1]) / 2, box["y"] + row, steps=3)
    page.mouse.move(x[1], box["y"] + row, steps=3)
    page.mouse.up()
