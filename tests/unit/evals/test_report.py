"""Reports of results written by hand: the page, its tables and its pictures."""

import re
import shutil
import sys
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pytest
from made_results import (
    ALONE,
    BESIDE,
    NO_CURVES,
    NO_VIDEOS,
    PAIRED,
    ROWS,
    VIDEOS,
    Result,
    made_arrays,
    made_curve,
    made_curves,
    made_result,
    with_heads,
    write_result,
)
from matplotlib.figure import Figure

from keystep.errors import InputError
from keystep.evals import report
from keystep.evals.headline import main_line
from keystep.evals.palette import Palette, contrast
from keystep.evals.pictures import LEGEND_ENTRIES, legend, safe_names
from keystep.evals.plots import clock_axis, monitors
from keystep.evals.report import _row_facts, render_page, tables_html, write_report
from keystep.evals.table import MODES, markdown_table
from keystep.terminal import clock

PNG = b"\x89PNG\r\n\x1a\n"
Report = Callable[..., tuple[str, Path]]


@pytest.fixture
def reported(tmp_path: Path) -> Report:
    """Writes a result, by default without videos and curves, and its report: (HTML, folder)."""

    def write(result: Result, arrays: Any = NO_VIDEOS, curves: Any = NO_CURVES, name: str = "result") -> Any:
        folder = write_result(tmp_path / name, result, arrays, curves)
        return write_report(folder).read_text(encoding="utf-8"), folder

    return write


class Drawn(NamedTuple):
    """A report: the page, its folder, and matplotlib's settings before and after it was drawn."""

    page: str
    folder: Path
    settings: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A report of everything, drawn once where pyplot cannot be imported; nobody changes it."""
    result = made_result((*ROWS, ("<img src=x>", "learned", "offline", 60.0, 3, None)))
    folder = write_result(tmp_path_factory.mktemp("drawn") / "result", result, made_arrays(result), made_curves())
    before = dict(dict.items(matplotlib.rcParams))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(matplotlib, "pyplot", raising=False)
        patch.setitem(sys.modules, "matplotlib.pyplot", None)
        page = write_report(folder).read_text(encoding="utf-8")
    return Drawn(page, folder, (before, dict(dict.items(matplotlib.rcParams))))


def paged(result: Result, arrays: Any = NO_VIDEOS, curves: Any = NO_CURVES) -> str:
    """The page alone, without files."""
    return render_page(result, arrays, curves)


def text_of(page: str) -> str:
    """What a reader sees: no tags, no style."""
    return unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def png_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def test_the_page_opens_with_the_main_line_and_holds_every_row_with_its_accuracy() -> None:
    result = made_result()
    text = " ".join(text_of(paged(result)).split())
    assert text.index(main_line(result)) < text.index("The gate") < text.index("The table")
    for name, _, _, accuracy, seeds, _ in ROWS:
        assert name.replace("(ORACLE)", "ORACLE") in text
        assert f"{accuracy:.1f}" + (" ± 0.8" if seeds > 1 else "") in text
    assert "12.4 s" in text and "whole video" in text
    assert "keystep eval data --model 'pjepa=runs/a,runs/b'" in text
    assert "broken <one>: features/broken.npy: truncated" in text


def test_oracle_rows_are_marked_and_never_the_best_of_a_column() -> None:
    result = made_result((*ROWS, ("told (ORACLE)", "learned", "offline", 95.0, 3, None)))
    page = paged(result)
    rows = re.findall(r"<tr[^>]*>.*?</tr>", page, flags=re.DOTALL)
    marked = [row for row in rows if '<tr class="oracle-row">' in row]
    assert len(marked) == 2 and all(">ORACLE<" in row and "<b>" not in row for row in marked)
    assert any("<b>67.9 ± 0.8</b>" in row and "pjepa ++ best control" in row for row in rows)


def test_the_page_fetches_nothing_and_runs_nothing(drawn: Drawn) -> None:
    page = drawn.page
    assert not re.search(r"https?://|<script|<link|url\(|\bon\w+=", page)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert set(re.findall(r'src="([^,]*),', page)) == {"data:image/png;base64"}


def test_pictures_are_pngs_beside_the_page_and_the_page_stands_without_them(drawn: Drawn) -> None:
    page, folder, _ = drawn
    files = png_files(folder)
    assert set(files) == {"headline.png", "ribbons_P1_left_cam.1.png", "accuracy.png", "curves.png", "monitors.png"}
    assert all(data.startswith(PNG) and len(data) > 5000 for data in files.values())
    assert "Training: the loss" in page and "Training: is the representation healthy?" in page
    assert page.count("Self-similarity: ") == 2 and "pictures/" not in page


def test_equal_data_give_equal_pictures_and_other_data_others(drawn: Drawn, reported: Report, tmp_path: Path) -> None:
    result = made_result()
    other = made_result(rows=tuple((*row[:3], row[3] - 5, *row[4:]) for row in ROWS))
    copy = shutil.copytree(drawn.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("pictures"))
    write_report(copy)
    first, again = png_files(drawn.folder), png_files(copy)
    changed = png_files(reported(other, made_arrays(result, slots=650), {"pjepa, seed 0": made_curve(9)}, "c")[1])
    assert first == again
    assert set(changed) == set(first)
    assert not {name for name in first if first[name] == changed[name]}


def test_names_are_shown_as_text_and_never_as_tags(drawn: Drawn) -> None:
    page, folder, _ = drawn
    assert "<img src=x>" not in page and "&lt;img src=x&gt;" in page
    assert "P1 &lt;left&gt;/cam.1" in page and "take &lt; 5 screws" in page and "fasten &amp; check" in page
    assert all(re.fullmatch(r"[\w.-]+\.png", path.name) for path in (folder / "pictures").iterdir())


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b:c", "..", "名前", "x" * 300, ""])
def test_picture_names_stay_in_their_folder_and_apart(name: str) -> None:
    first, second = safe_names([name, name])
    assert first != second
    assert all(re.fullmatch(r"[\w-][\w.-]{0,90}", made) for made in (first, second))


def test_the_markdown_table_holds_the_same_rows_and_survives_pipes() -> None:
    table = markdown_table(made_result((*ROWS, ("a|b <c>", "learned", "offline", 30.0, 3, None))))
    assert all(f"| {name} | " in table for name, *_ in ROWS)
    assert r"| a\|b \<c\> | 30.0 ± 0.8 |" in table
    assert "| pjepa ++ best control | **67.9 ± 0.8** |" in table
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
    assert widths == {8}


def test_foreground_accuracy_has_a_column_only_where_there_is_background() -> None:
    result = made_result()
    assert "foreground" not in markdown_table(result)
    result["protocol"]["background"] = ["background"]
    assert "| accuracy | accuracy, foreground | edit |" in markdown_table(result)


def test_without_gate_and_learned_rows_the_report_says_so_and_shows_the_rest() -> None:
    result = made_result(tuple(row for row in ROWS if row[1] in ("raw", "control")), ())
    result["geometry"] = {}
    text = text_of(paged(result))
    assert "No learned representation was judged; frame accuracy: raw features 41.2 %" in text
    assert "Nothing was compared, so nothing can be claimed." in text
    text = text_of(paged(made_result((), ())))
    assert "No learned representation was judged." in text and "No representation was judged." in text


def test_one_class_one_slot_narrow_colours_and_missing_labels_still_draw(reported: Report) -> None:
    result = made_result()
    result["data"]["classes"] = ["only"]
    result["data"]["test_videos"][:2] = ["a", "b"]
    arrays: dict[str, Any] = {"names": np.array(["a", "b"])}
    for index, slots in enumerate((1, 40)):
        arrays[f"{index}/truth"] = np.full(slots, -100 * (1 - index))
        arrays[f"{index}/prediction/pjepa, offline"] = np.zeros(slots, dtype=np.int16)
        arrays[f"{index}/colours/features"] = np.zeros((slots, 1 + index), dtype=np.uint8)
        arrays[f"{index}/similarity/features"] = np.ones((slots, slots), dtype=np.float16)
    curves = {"odd run": [{"step": 10, "loss": float("nan")}], "empty": []}
    page, folder = reported(result, arrays, curves)
    assert {"ribbons_a.png", "ribbons_b.png", "curves.png"} <= set(png_files(folder))
    assert "monitors.png" not in png_files(folder) and "Training: the loss" in page


def test_monitors_show_what_was_recorded_and_do_not_magnify_noise() -> None:
    steady = [{"step": step, "monitor/effective_rank": 40 + 0.1 * (step % 2)} for step in range(5)]
    (axes,) = monitors({"pjepa, seed 0": steady, "pjepa, seed 1": [{"step": 0, "loss": 1.0}]}).axes
    assert axes.get_ylim()[0] == 0 and 40 < axes.get_ylim()[1] < 45


def test_two_hundred_classes_have_a_bounded_legend() -> None:
    entries = legend(Palette([f"step {index}" for index in range(200)]), [np.arange(-1, 200)])
    assert len(entries) == LEGEND_ENTRIES + 2
    assert entries[-2:] == [("", "and 160 more"), ("#ffffff", "no label")]


def test_a_report_that_cannot_be_drawn_leaves_the_old_one_untouched(drawn: Drawn, tmp_path: Path) -> None:
    page, folder = drawn.page, shutil.copytree(drawn.folder, tmp_path / "result")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arrays = made_arrays(made_result())
    arrays["0/similarity/features"] = np.array(["no numbers"])
    np.savez(folder / "pictures.npz", **arrays)
    with pytest.raises(ValueError):
        write_report(folder)
    (folder / "pictures.npz").write_bytes(before[folder / "pictures.npz"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (folder / report.REPORT).read_text(encoding="utf-8") == page


def test_a_folder_without_a_result_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        write_report(tmp_path)


def test_drawing_touches_no_global_state_of_matplotlib(drawn: Drawn) -> None:
    """It was drawn without pyplot, and no module has imported that before."""
    before, after = drawn.settings
    assert before == after
    modules = [vars(module) for name, module in sys.modules.items() if name.split(".")[0] == "keystep"]
    assert not any("pyplot" in names or "plt" in names for names in modules)


def test_the_page_opens_with_a_picture_a_sentence_and_a_chart_and_folds_the_rest() -> None:
    result = made_result()
    page = paged(result, made_arrays(result))
    opening, rest = page.split("<details>", 1)
    places = [opening.index(mark) for mark in ('class="ribbon"', 'class="main"', 'class="charts"')]
    assert places == sorted(places) and opening.count('class="ribbon"') == 4
    said = [unescape(name) for name in re.findall(r'aria-label="([^"]*)"', opening)]
    assert said[0] == "true steps" and said[1].startswith("raw features: ") and said[1].endswith(" %")
    assert said[2].startswith("best control: moving average + progress: ") and said[3].startswith("ours: pjepa: ")
    assert "is the median of 12 test videos" in text_of(opening)
    for role in ("raw features", "best control", "untrained", "ours", "ours ++ control"):
        assert f"<b>{role}</b>" in opening
    assert rest.count("<details>") + 1 == page.count("</details>") and "<details open" not in page


def test_the_chart_shows_each_row_from_zero_with_its_interval() -> None:
    opening = paged(made_result()).split("<details>")[0]
    bars = re.findall(r'<rect class="(\w+)" width="([\d.]+)%"', opening)
    assert [family for family, _ in bars][:3] == ["raw", "control", "untrained"]
    lengths = [float(length) for _, length in bars]
    assert lengths[1] / lengths[0] == pytest.approx(58.9 / 41.2, rel=0.01)
    assert re.search(r"64\.1 % \(6\d\.\d to 6\d\.\d\)", opening)


def test_what_a_stored_video_is_when_the_median_was_not_stored_is_said() -> None:
    result = made_result()
    page = text_of(paged(result, made_arrays(result, (VIDEOS[0], VIDEOS[7]))))
    assert f"{VIDEOS[7]}. Chosen by rank" in page
    assert "ranks 8 (from the lowest) of 12 test videos" in " ".join(page.split())


def test_pairs_have_a_table_of_their_own_and_undecided_lines_are_grey() -> None:
    few = {**BESIDE, "verdict": "not enough seeds", "holds": False, "seeds": [1, 1]}
    page = paged(made_result(gate=(ALONE, few, PAIRED)))
    gate, pairs = page.split("Given models against raw features and each other")
    assert "2 comparisons: 1 holds, 1 has not enough seeds" in gate
    looks = re.findall(r'<td class="verdict (\w+)"><b>([^<]*)</b>', page)
    assert looks == [("holds", "holds"), ("few", "not enough seeds"), ("holds", "holds")]
    assert "reconstruction: against raw features" in pairs and "reconstruction: against raw" not in gate


def test_temporal_heads_have_tables_in_the_page_and_in_markdown() -> None:
    result = with_heads(made_result())
    page, table = text_of(paged(result)), markdown_table(result)
    assert "Temporal heads. Causal (live)" in page and "12,345 parameters" in page and "edit under mstcn" in page
    assert "**Temporal heads. Causal (live)" in table and "| mstcn: pjepa | **61.3 ± 0.8** |" in table
    assert "available in real time 50.0" in page


def test_segments_clips_and_the_papers_rows_have_tables_where_there_are_any() -> None:
    empty = text_of(paged(made_result()))
    assert not any(title in empty for title in ("Trimmed clips", "One answer for each", "Quoted from the paper"))
    result = with_heads(made_result())
    page = text_of(paged(result))
    assert "One answer for each true segment (ORACLE" in page and "12.3" in page and "correct segments" in page
    assert "top-1 of linear probes" in page and "57.7 ± 1.4" in page and "45.6 ± 0.0" in page
    assert "Quoted, not run here" in page and "40.1" in page


def test_strengths_of_bands_stand_under_a_row() -> None:
    result = made_result()
    for run, far in zip(result["rows"][11]["runs"], (0.0, 0.0, 0.3), strict=True):
        run["strengths"] = {"frame": 1.0, "memory": far}
    assert "band strengths: frame 1, memory 0.1" in text_of(paged(result))


def test_a_notebook_shows_the_tables_alone() -> None:
    tables = tables_html(made_result())
    assert tables.count("<table") == 2 and "<style" not in tables and "pjepa ++ best control" in tables


def test_a_large_result_stays_below_five_megabytes() -> None:
    rows = [
        row for index in range(15) for row in ((f"model {index}", "learned", mode, 60.0, 3, None) for mode in MODES)
    ]
    result = made_result((*ROWS, *rows), (ALONE,) * 60)
    result["data"]["classes"] = [f"step {index} of a long procedure" for index in range(150)]
    arrays, random = made_arrays(result, VIDEOS[4:7], slots=20000), np.random.default_rng(0)
    for key in arrays:
        if "/prediction/" in key:
            arrays[key] = random.integers(0, 150, 20000)  # another step in every frame
    assert len(paged(result, arrays, made_curves())) < 5e6


def test_verdicts_and_notes_are_read_in_the_light_and_in_the_dark() -> None:
    style = paged(made_result()).split("<style>")[1].split("</style>")[0]
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert themes[0].keys() == themes[1].keys() and not any(themes[2:])
    for theme in themes[:2]:
        for name in ("ink", "soft", "holds", "fails", "few"):
            assert all(contrast(theme[name], theme[ground]) > 4.5 for ground in ("paper", "card"))
        for family in ("raw", "control", "untrained", "reconstruction", "learned", "oracle"):
            assert contrast(theme[family], theme["paper"]) > 2.9, family


def test_headings_follow_each_other_and_every_picture_has_a_text() -> None:
    page = paged(made_result(gate=(ALONE, PAIRED)), made_arrays(made_result()), made_curves())
    assert '<html lang="en">' in page and page.count("<h1>") == 1 and page.count("<main>") == 1
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all('alt="' in image and 'alt=""' not in image for image in re.findall(r"<img[^>]*>", page))
    assert all("aria-" in drawing for drawing in re.findall(r"<svg[^>]*>", page))
    assert all("<caption>" in table or "facts" in table or "thead" in table for table in page.split("<table")[1:])


def test_a_band_that_one_of_the_runs_left_out_counts_as_not_read() -> None:
    row: Result = {
        "detail": "",
        "runs": [{"strengths": {"frame": 1.0, "context": 1.0}}, {"strengths": {"frame": 0.5, "memory": 1.0}}],
    }
    assert _row_facts(row) == "band strengths: frame 0.75, context 0.5, memory 0.5"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (8.6, "0:09"), (76.5, "1:16"), (599.7, "10:00"), (3599.6, "1:00:00")]
)
def test_times_are_shown_as_a_clock_shows_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("seconds", [1.5, 76, 5000, 40_000])
def test_an_axis_of_any_length_has_a_few_ticks(seconds: float) -> None:
    axes = Figure().subplots()
    axes.set_xlim(0, seconds)
    clock_axis(axes, seconds)
    assert 2 <= sum(0 <= tick <= seconds for tick in axes.get_xticks()) <= 9
