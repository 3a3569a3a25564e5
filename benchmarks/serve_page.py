"""The page of `keystep serve` in a browser: first paint for a large folder, and many browsers at once.

    python benchmarks/serve_page.py --videos 100 --hours 1 --browsers 10 --out benchmarks/results/serve_page.md

Features are random numbers, half of the videos are labelled, and all recordings are one short film. First paint is the
browser's own ``first-contentful-paint``, from the start of the navigation, in a profile that has cached nothing. Then
browsers open the page together, and each labels a stretch of the same video; all of them have to show all stretches,
and no answer may be a fault of the server.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

STARTED = re.compile(r"http://127\.0\.0\.1:(\d+)/")
RATE, WIDTH, CLASSES = 4, 64, 8
PATIENCE = 120_000
"""Milliseconds that a browser on a busy machine may take for one thing."""


@dataclass
class Paint:
    """Milliseconds from the start of the navigation; requests and kilobytes until the page is ready."""

    first: float
    ready: float
    requests: int
    kilobytes: float


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        data, films = _made(Path(folder), options)
        command = [
            sys.executable,
            "-m",
            "keystep",
            "serve",
            data,
            "--videos",
            films,
            "--source-rate",
            RATE,
            "--port",
            0,
        ]
        words = [str(part) for part in command]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as server:
            try:
                assert server.stdout is not None
                port = next(found[1] for line in server.stdout if (found := STARTED.search(line)))
                report = _looked_at(f"http://127.0.0.1:{port}/", options)
            finally:
                server.terminate()
    print(report)
    if options.out is not None:
        options.out.write_text(report, encoding="utf-8")


def _made(root: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    data, films, slots = root / "data", root / "films", round(3600 * options.hours * RATE)
    for part in (data / "features", data / "groundTruth", films):
        part.mkdir(parents=True)
    (data / "mapping.txt").write_text("".join(f"{index} step {index}\n" for index in range(CLASSES)))
    rng = np.random.default_rng(0)
    _film(films / "0.mp4")
    for index in range(options.videos):
        name = f"video{index:03d}"
        np.save(data / "features" / f"{name}.npy", rng.normal(size=(WIDTH, slots)).astype(np.float32))
        if index % 2:
            labels = np.repeat(rng.integers(0, CLASSES, slots // 40 + 1), 40)[:slots]
            (data / "groundTruth" / f"{name}.txt").write_text("".join(f"step {label}\n" for label in labels))
        (films / f"{name}.mp4").hardlink_to(films / "0.mp4")
    (films / "0.mp4").unlink()
    return data, films


def _film(path: Path) -> None:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(80):
            picture = np.full((360, 640, 3), 3 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))


def _looked_at(address: str, options: argparse.Namespace) -> str:
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        load = os.getloadavg()[0]
        paints = [_painted(browser, address) for _ in range(options.runs)]
        shared = _together(browser, address, options)
        browser.close()
    return _report(paints, shared, load, options)


def _painted(browser: Browser, address: str) -> Paint:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=PATIENCE)
    ready = page.evaluate("performance.now()")
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    sizes = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.transferSize)")
    context.close()
    return Paint(first, ready, len(sizes), sum(sizes) / 1024)


def _together(browser: Browser, address: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds until all browsers have the page, and until all show what each of them drew."""
    contexts = [browser.new_context(viewport={"width": 1280, "height": 800}) for _ in range(options.browsers)]
    faults: list[str] = []
    began = time.monotonic()
    pages = [_opened(context, f"{address}#v=0", faults) for context in contexts]
    for page in pages:
        page.wait_for_selector("body[data-ready]", timeout=PATIENCE)
    opened = time.monotonic() - began
    began = time.monotonic()
    for number, page in enumerate(pages):
        label = f"step {number % CLASSES}"
        page.evaluate(
            "([at, label]) => keystep.annotation.change([...keystep.annotation.spans, "
            "{start: at, stop: at + 50, label}].sort((a, b) => a.start - b.start))",
            [100 * number, label],
        )
    for page in pages:
        while page.evaluate("keystep.annotation.spans.length") < len(pages):
            if time.monotonic() - began > PATIENCE / 1000:
                raise SystemExit("not every browser shows every change")
            page.wait_for_timeout(50)
    shown = time.monotonic() - began
    for context in contexts:
        context.close()
    if faults:
        raise SystemExit(f"answered with a fault: {faults[:3]}")
    return {"opened": opened, "shown": shown}


def _opened(context: BrowserContext, address: str, faults: list[str]) -> Page:
    page = context.new_page()

    def look(answer: Any) -> None:
        if answer.status >= 500 and answer.status != 503:
            faults.append(f"{answer.status} {answer.url}")

    page.on("response", look)
    page.goto(address, wait_until="commit", timeout=PATIENCE)
    return page


def _report(paints: list[Paint], shared: dict[str, float], load: float, options: argparse.Namespace) -> str:
    first, median = sorted(paint.first for paint in paints), statistics.median
    ready, requests = median(paint.ready for paint in paints), median(paint.requests for paint in paints)
    command = f"python benchmarks/serve_page.py {shlex.join(sys.argv[1:])}"
    return f"""# The page in a browser

`{command}`

{options.videos} videos of {options.hours:g} h at {RATE} Hz; {os.cpu_count()} cores, with server and browsers on them;
load average {load:.1f} at the beginning. {options.note}

| | |
|---|---|
| first paint, median of {len(paints)} (fastest, slowest) | {median(first):.0f} ms ({first[0]:.0f}, {first[-1]:.0f}) |
| the page can be used, median | {ready:.0f} ms |
| requests until then | {requests:.0f} |
| kilobytes until then | {median(paint.kilobytes for paint in paints):.0f} |
| {options.browsers} browsers have opened the page | {shared["opened"]:.1f} s |
| each has changed one video, and all show all changes | {shared["shown"]:.1f} s |
| answers that are faults of the server (5xx, but for "not yet") | 0 |
"""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--note", default="", help="what else ran")
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
