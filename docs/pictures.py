"""Draws the pictures of `keystep serve` in ``docs/images``: made-up recordings, a server, chromium.

    python docs/pictures.py    # needs the extras serve, video and browser, and chromium

Run it after a change that the pictures would show, and look at them before they are committed.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from drawn import STEPS, write_drawn  # noqa: E402
from look import Server, Windows, seek, until  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
SHOWN = (1000, 625)
"""Width and height of the animation, in pixels."""
PREDICTED = 4
"""The first frame of the animation with predictions, whose colours all have."""
NOISE = 1.1
"""Deviation of what is added to the features, of which steps would be read without an error."""
NEW = 4
"""The number of the first video without labels."""


def main() -> None:
    """Serve made-up recordings and take all pictures."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data = write_drawn(Path(folder) / "assembly", videos=6, seconds=60, labelled=6, height=270)
        true, *_ = [hidden(data / "groundTruth" / f"assembly_{number:02d}.txt") for number in (NEW + 1, NEW + 2)]
        for number, path in enumerate(sorted((data / "features").glob("*.npy"))):
            features = np.load(path)
            noise = np.random.default_rng(number).normal(scale=NOISE, size=features.shape)
            np.save(path, (features + noise).astype(np.float32))
        server = Server(data)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        windows = Windows(browser)
        try:
            animation(windows.open(f"{server.address}#v={NEW}", **SIZE), true)
            stills(windows, server.address)
        finally:
            browser.close()
            server.kill()


def hidden(labels: Path) -> list[tuple[int, int, str]]:
    """Take the labels of a video away: first slot, slot after the last and key of each segment."""
    names = labels.read_text().splitlines()
    labels.unlink()
    borders = [0, *(slot for slot in range(1, len(names)) if names[slot] != names[slot - 1]), len(names)]
    return [(start, stop, str(STEPS.index(names[start]) + 1)) for start, stop in pairwise(borders)]


def animation(page: Any, true: list[tuple[int, int, str]]) -> None:
    """Look, label, learn, accept: ``serve.gif``."""
    until(page, "document.querySelector('#videos img').naturalWidth > 0")
    frames: list[tuple[Image.Image, int]] = []

    def take(words: str, milliseconds: int) -> None:
        page.wait_for_timeout(2500)  # for what is drawn when it has come
        frames.append((captioned(shot(page), words), milliseconds))

    show(page, 33)
    take("look: what changes along a video that nobody has labelled", 2600)
    for segment in true[:3]:
        labelled(page, *segment)
        take("label: a key begins a step, and ends it", 1200)
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    page.wait_for_selector("#accuracy b")
    until(page, "document.querySelector('#headings').innerText.includes('Prediction')")
    take("learn: a second later, predictions for all videos, and how good they are", 2800)
    page.keyboard.press("Shift+A")
    take("accept or correct: predictions become labels", 2200)
    page.keyboard.press("l")
    page.wait_for_timeout(9000)  # until it has learned and the note is gone
    page.keyboard.press("j")
    until(page, "document.querySelector('#name').textContent === 'assembly_06'")
    take("label next: what teaches most", 2600)
    palette = frames[PREDICTED][0].quantize(128)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    durations = [milliseconds for _, milliseconds in frames]
    first.save(
        IMAGES / "serve.gif", save_all=True, append_images=others, duration=durations, loop=0, optimize=True, disposal=1
    )


def labelled(page: Any, start: int, stop: int, key: str) -> None:
    """Label the slots from ``start`` to ``stop`` by key."""
    for slot in (start, stop):
        show(page, slot)
        page.keyboard.press(key)


def show(page: Any, slot: int) -> None:
    """Go to a slot, and take the pointer away."""
    seek(page, slot)
    page.mouse.move(620, 300)


def stills(windows: Windows, address: str) -> None:
    """``serve-label.png``, ``serve-moments.png`` and ``serve-dark.png``."""
    page = windows.open(f"{address}#v={NEW}", **SIZE)
    show(page, 115)
    save(page, "serve-label")
    page.keyboard.press("f")
    page.locator(".moment").first.wait_for()
    until(page, "document.querySelector('.moment img').naturalWidth > 0")
    page.hover("#timeline", position={"x": 420, "y": 60})
    save(page, "serve-moments")
    dark = windows.open(f"{address}#v={NEW + 1}", color_scheme="dark", **SIZE)
    show(dark, 96)
    save(dark, "serve-dark")


def save(page: Any, name: str) -> None:
    """A picture of the page, in few colours."""
    page.wait_for_timeout(1500)
    shot(page).quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def shot(page: Any) -> Image.Image:
    """What the page shows now."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def captioned(picture: Image.Image, words: str) -> Image.Image:
    """The picture at the size of the animation, over a line of words."""
    width, height = SHOWN
    found = Image.new("RGB", (width, height + 44), "white")
    found.paste(picture.resize(SHOWN, Image.Resampling.LANCZOS))
    ImageDraw.Draw(found).text(
        (width / 2, height + 22), words, fill=(30, 30, 30), anchor="mm", font=ImageFont.load_default(22)
    )
    return found


if __name__ == "__main__":
    main()
