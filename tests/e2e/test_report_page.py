"""The report as a reader's browser shows it: on a phone, at a desk, in the dark and on paper."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import ALONE, BESIDE, LIVE, PAIRED, VIDEOS, made_arrays, made_curves, made_result, with_heads
from matplotlib.image import imread

from keystep.evals.report import render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to look at the page with")

MEASURE = """
<script>
document.querySelectorAll('details').forEach(each => each.open = true);
const wide = document.documentElement.scrollWidth, screen = window.innerWidth, out = [], clipped = [], narrow = [];
for (const each of document.querySelectorAll('p, td, th, figcaption, li, h1, h2, h3, span, caption, summary')) {
  const style = getComputedStyle(each), box = each.getBoundingClientRect();
  if (!each.textContent.trim() || each.closest('thead')?.offsetWidth === 1) continue;
  if (box.left < -1 || box.right > screen + 1) out.push(each.textContent.trim().slice(0, 60));
  if (each.scrollWidth > each.clientWidth + 1 && style.display !== 'inline' && style.overflowX !== 'visible')
    clipped.push(each.textContent.trim().slice(0, 60));
  if (each.matches('td:first-child, td.verdict') && box.width < 60) narrow.push(each.textContent.trim().slice(0, 60));
}
parent.postMessage(JSON.stringify({wide, screen, out, clipped, narrow}), '*');
</script>
"""
"""Run in a copy of the page: what is wider than the screen, cut off, or squeezed into a few letters a line."""
FRAME = """<!doctype html><iframe src="{file}" width="{width}" height="2000" style="border: 0"></iframe>
<pre id="measured"></pre><script>onmessage = event => measured.textContent = event.data</script>"""
"""Headless windows are at least 500 pixels wide; a frame in them is a phone's screen."""


def browse(page: Path, *options: str) -> str:
    """What Chromium says of a page."""
    assert CHROMIUM is not None
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-pdf-header-footer")
    command = [CHROMIUM, *quiet, f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a result with everything in it, as large as a study's."""
    gate = [{**line, "claim": f"{line['claim']}, of the kind number {index}"} for index in range(4) for line in LINES]
    result: dict[str, Any] = with_heads(made_result(gate=(*gate, PAIRED, PAIRED)))
    result["protocol"]["background"] = ["background"]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(result, made_arrays(result, VIDEOS[4:7]), made_curves()), encoding="utf-8")
    return path


LINES = (ALONE, LIVE, BESIDE, {**ALONE, "verdict": "not enough seeds", "holds": False, "seeds": [1, 1]})


@pytest.mark.parametrize("width", [390, 1000])
def test_nothing_is_cut_off_or_has_to_be_scrolled_to_the_side(page: Path, width: int) -> None:
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))  # it forbids scripts
    copy = page.with_name(f"measured_{width}.html")
    copy.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    frame = page.with_name(f"frame_{width}.html")
    frame.write_text(FRAME.format(file=copy.name, width=width), encoding="utf-8")
    found = browse(frame, f"--window-size={width + 100},1200", "--virtual-time-budget=5000", "--dump-dom")
    match = re.search(r'<pre id="measured">(.*?)</pre>', found, re.DOTALL)
    assert match is not None
    measured = json.loads(unescape(match[1]))
    assert measured["screen"] == width and measured["wide"] <= width
    assert not measured["out"] and not measured["clipped"] and not measured["narrow"]


def test_the_page_follows_the_reader_into_the_dark(page: Path) -> None:
    grounds = {}
    for name, option in (("light", "1"), ("dark", "0")):
        shot = page.with_name(f"{name}.png")
        browse(page, f"--blink-settings=preferredColorScheme={option}", f"--screenshot={shot}", "--window-size=600,800")
        grounds[name] = float(np.median(imread(shot)[..., :3]))
    assert grounds["light"] > 0.9 and grounds["dark"] < 0.15


def test_the_whole_report_prints_on_eight_pages_with_everything_unfolded(page: Path) -> None:
    paper = page.with_suffix(".pdf")
    browse(page, f"--print-to-pdf={paper}")
    folded = page.with_name("folded.html")
    folded.write_text(page.read_text(encoding="utf-8").split("<details>")[0] + "</main></body></html>")
    browse(folded, f"--print-to-pdf={folded.with_suffix('.pdf')}")
    pages, opening = (
        len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) for file in (paper, folded.with_suffix(".pdf"))
    )
    assert opening == 1 and 3 <= pages <= 8
