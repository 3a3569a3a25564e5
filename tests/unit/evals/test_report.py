"""Reports of results written by hand in the format of `keystep.evals.results`, so that no model has to be trained."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.evals import report
from keystep.evals.pictures import LEGEND_ENTRIES, Palette, safe_names
from keystep.evals.report import main_line, markdown_table, write_report

PNG = b"\x89PNG\r\n\x1a\n"
METRICS = ("accuracy", "accuracy_foreground", "edit", "f1@10", "f1@25", "f1@50")
STEPS = (
    "background",
    "open box",
    "take < 5 screws",
    "fasten & check",
    "add $oil$",
    "_hidden name",
    "turn",
    "close box",
)
ROWS = (  # name, family, mode, accuracy, seeds, delay
    ("raw features", "raw", "causal", 41.2, 1, 0.0),
    ("true segments' means (ORACLE)", "oracle", "offline", 91.7, 1, None),
    ("moving average", "control", "offline", 55.1, 1, None),
    ("moving average + elapsed", "control", "offline", 57.0, 1, None),
    ("moving average + progress", "control", "offline", 58.9, 1, None),
    ("PCA of nine offsets", "control", "offline", 56.3, 1, None),
    ("moving average", "control", "causal", 50.2, 1, 0.0),
    ("moving average + elapsed", "control", "causal", 52.6, 1, 0.0),
    ("untrained encoder", "untrained", "offline", 52.4, 3, None),
    ("untrained encoder ++ moving average", "untrained", "offline", 60.3, 3, None),
    ("reconstruction", "reconstruction", "offline", 57.7, 3, None),
    ("pjepa", "learned", "offline", 64.1, 3, None),
    ("pjepa ++ moving average", "learned", "offline", 66.8, 3, None),
    ("pjepa", "learned", "causal", 61.3, 3, 12.4),
)
Result = dict[str, Any]
NO_VIDEOS: dict[str, Any] = {"names": np.array([], dtype=str)}
NO_CURVES: dict[str, list[Result]] = {}


def made_row(name: str, family: str, mode: str, accuracy: float, seeds: int, delay: float | None) -> Result:
    scores = [
        {metric: accuracy - 4 * place + 0.8 * (seed - (seeds - 1) / 2) for place, metric in enumerate(METRICS)}
        for seed in range(seeds)
    ]
    return {
        "name": name,
        "family": family,
        "mode": mode,
        "position": name.partition(" + ")[2] or "none",
        "oracle": family == "oracle",
        "delay": delay,
        "detail": "",
        "width": 64,
        "beside": "smoothing" if "++" in name else "",
        "mean": {metric: float(np.mean([run[metric] for run in scores])) for metric in METRICS},
        "spread": {
            metric: float(np.std([run[metric] for run in scores], ddof=1)) if seeds > 1 else None for metric in METRICS
        },
        "runs": [
            {"seed": seed, "scores": run, "valid_accuracy": run["accuracy"], "learning_rate": 0.1, "weight_decay": 0.0}
            for seed, run in enumerate(scores)
        ],
    }


def gate_line(claim: str, first: str, second: str, mean: float, low: float, high: float, seeds: int = 3) -> Result:
    difference = {"mean": mean, "low": low, "high": high, "seeds": [seeds, 1], "videos": 12}
    names = {"claim": claim, "mode": "offline", "first": first, "second": second}
    return {**names, "holds": low > 0 and seeds >= 3, **difference}


ALONE = gate_line("alone, against the best smoothing", "pjepa", "moving average + progress", 5.2, 3.9, 6.5)
SIDES = ("pjepa ++ moving average", "untrained encoder ++ moving average")
BESIDE = gate_line("beside smoothing, against untrained encoder there", *SIDES, 6.5, 5.0, 8.1)


def made_result(rows: tuple[Any, ...] = ROWS, gate: tuple[Result, ...] = (ALONE, BESIDE)) -> Result:
    """A result.json in memory."""
    return {
        "format": "keystep-result",
        "version": 2,
        "created": "2025-01-01T00:00:00+00:00",
        "command": "keystep eval data --model 'pjepa=runs/a,runs/b'",
        "software": {"keystep": "0.1.0", "python": "3.11"},
        "data": {
            "name": "assembly",
            "fingerprint": "f00d",
            "rate_hz": 1.0,
            "width": 64,
            "classes": list(STEPS),
            "split": "1",
            "validation": "valid.split1.bundle",
            "videos": {"train": 30, "valid": 6, "test": 12},
            "slots": {"train": 21000, "valid": 4200, "test": 8400},
            "left_out": {"broken <one>": "features/broken.npy: truncated"},
            "notes": [],
        },
        "protocol": {
            "metrics": "pooled",
            "background": [],
            "scored_at_hz": 1.0,
            "selection": "on validation videos",
            "probe": {"steps": 100},
            "probes_fitted": 60,
        },
        "rows": [made_row(*row) for row in rows],
        "gate": list(gate),
        "geometry": {"raw features": {"straightness": 0.01, "monotonic_fraction": 0.5}},
    }


def made_steps(random: np.random.Generator, slots: int, classes: int) -> np.ndarray:
    """(slots,) class ids in some fifteen segments."""
    lengths = random.multinomial(slots, random.dirichlet(np.full(15, 2.0)))
    return np.repeat(random.integers(0, classes, 15), lengths)


def made_arrays(result: Result, videos: tuple[str, ...] = ("P1 <left>/cam.1",), slots: int = 700) -> dict[str, Any]:
    """A pictures.npz in memory: predictions as right as their rows say, latents that follow the true steps."""
    random, classes = np.random.default_rng(0), len(result["data"]["classes"])
    arrays: dict[str, np.ndarray] = {"names": np.array(videos)}
    for index in range(len(videos)):
        truth = made_steps(random, slots, classes)
        arrays[f"{index}/truth"] = truth
        for row in result["rows"]:
            keep = np.repeat(random.random(-(-slots // 20)) < row["mean"]["accuracy"] / 100, 20)[:slots]
            predicted = np.where(keep, truth, made_steps(random, slots, classes)).astype(np.int16)
            arrays[f"{index}/prediction/{row['name']}, {row['mode']}"] = predicted
        for name, noise in (("features", 1.5), ("latents of pjepa, offline", 0.4)):
            vectors = random.normal(size=(classes, 16))[truth] + noise * random.normal(size=(slots, 16))
            thinned = vectors[:: -(-slots // 160)] - vectors.mean(0)
            unit = thinned / np.linalg.norm(thinned, axis=1, keepdims=True)
            arrays[f"{index}/colours/{name}"] = np.clip(128 + 50 * vectors[:, :3], 0, 255).astype(np.uint8)
            arrays[f"{index}/similarity/{name}"] = (unit @ unit.T).astype(np.float16)
    return arrays


def made_curve(seed: int, start: float = 1.0) -> list[Result]:
    """Lines of a metrics.jsonl."""
    random, lines = np.random.default_rng(seed), list[Result]()
    for step in range(0, 301, 10):
        fall = start * float(np.exp(-step / 120)) + 0.02 * random.random()
        if step:
            lines.append({"step": step, "loss": 1.5 * fall, "hidden": fall, "visible": fall, "learning_rate": 1e-3})
        if step % 50 == 0:
            look = {"effective_rank": 9 - fall, "neighbour_cosine": 0.8, "hidden_loss": 0.9 * fall, "mean_loss": start}
            look |= {"copy_loss": 0.7 * start, "probe_accuracy": 40 + step / 20 + random.random()}
            lines.append({"step": step, **{f"monitor/{name}": value for name, value in look.items()}})
    return lines


def made_curves(seeds: int = 3) -> dict[str, list[Result]]:
    """A training.json in memory."""
    starts = {"pjepa": 1.0, "reconstruction": 0.6}
    return {f"{name}, seed {seed}": made_curve(seed, starts[name]) for name in starts for seed in range(seeds)}


def write_result(folder: Path, result: Result, arrays: dict[str, Any], curves: dict[str, list[Result]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "training.json").write_text(json.dumps(curves))
    np.savez(folder / "pictures.npz", **arrays)
    return folder


Report = Callable[..., tuple[str, Path]]


@pytest.fixture
def reported(tmp_path: Path) -> Report:
    """Writes a result, by default without videos and curves, and its report: (HTML, folder)."""

    def write(result: Result, arrays: Any = NO_VIDEOS, curves: Any = NO_CURVES, name: str = "result") -> Any:
        folder = write_result(tmp_path / name, result, arrays, curves)
        return write_report(folder).read_text(encoding="utf-8"), folder

    return write


def text_of(page: str) -> str:
    """What a reader sees: no tags, no style."""
    return unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def png_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def test_the_page_opens_with_the_main_line_and_holds_every_row_with_its_accuracy(reported: Report) -> None:
    result = made_result()
    text = " ".join(text_of(reported(result)[0]).split())
    assert text.index(main_line(result)) < text.index("The gate") < text.index("The table")
    for name, _, _, accuracy, seeds, _ in ROWS:
        assert name.replace("(ORACLE)", "ORACLE") in text
        assert f"{accuracy:.1f}" + (" ± 0.8" if seeds > 1 else "") in text
    assert "12.4 s" in text and "whole video" in text
    assert "keystep eval data --model 'pjepa=runs/a,runs/b'" in text
    assert "broken <one>: features/broken.npy: truncated" in text


def test_the_main_line_of_a_gain_gives_both_sides_the_interval_and_the_seeds() -> None:
    assert main_line(made_result()) == (
        "pjepa alone, offline: 64.1 % of frames right against 58.9 % for the best smoothing control "
        "(+5.2, 95 % interval 3.9 to 6.5, 3 seeds)."
    )


def test_a_claim_that_does_not_hold_is_said_first_and_in_plain_words(reported: Report) -> None:
    lost = {**ALONE, "low": -0.4, "holds": False}
    assert main_line(made_result(gate=(lost,))).startswith("No gain shown: pjepa alone")
    worse = {**ALONE, "mean": -3.0, "low": -4.0, "high": -2.0, "holds": False}
    assert main_line(made_result(gate=(worse,))).startswith("Worse than the best smoothing control: pjepa alone")
    text = text_of(reported(made_result(gate=(lost, BESIDE)))[0])
    assert "does not hold: the interval reaches 0" in text and "1 of 2 comparisons of the gate does not hold" in text


def test_too_few_seeds_make_no_claim_however_large_the_gain(reported: Report) -> None:
    single = gate_line(ALONE["claim"], "pjepa", ALONE["second"], 20.0, 15.0, 25.0, seeds=1)
    result = made_result(rows=tuple((*row[:4], 1, row[5]) for row in ROWS), gate=(single,))
    assert main_line(result).startswith("No claim, too few seeds (1 seed, 3 needed): pjepa alone")
    assert "does not hold: 1 seed, 3 needed" in text_of(reported(result)[0])


def test_a_failing_comparison_beside_smoothing_is_not_hidden_behind_one_that_holds() -> None:
    failing = {**BESIDE, "low": -1.0, "holds": False}
    assert main_line(made_result(gate=(ALONE, failing))).endswith(" 1 of 2 comparisons of the gate does not hold.")


def test_the_main_line_names_the_hardest_rival() -> None:
    harder = gate_line("alone, against the best control", "pjepa", "PCA of nine offsets", mean=7.8, low=0.4, high=9.7)
    line = main_line(made_result(gate=(ALONE, harder)))
    assert "56.3 % for the best control (+7.8, 95 % interval 0.4 to 9.7, 3 seeds)" in line


def test_a_gate_of_which_nothing_holds_is_said_to_hold_nowhere() -> None:
    lost = {"low": -1.0, "holds": False}
    line = main_line(made_result(gate=({**ALONE, **lost}, {**BESIDE, **lost})))
    assert line.endswith(" None of the 2 comparisons of the gate holds.")


def test_an_oracle_never_heads_the_report_as_a_claim() -> None:
    rows = (*ROWS, ("told (ORACLE)", "learned", "offline", 95.0, 3, None))
    oracle = {**ALONE, "first": "told (ORACLE)", "mean": 36.1}
    assert main_line(made_result(rows, (oracle, ALONE))).startswith("pjepa alone")
    assert main_line(made_result(rows, (oracle,))).startswith("ORACLE, so no claim")


def test_oracle_rows_are_marked_and_never_the_best_of_a_column(reported: Report) -> None:
    result = made_result((*ROWS, ("told (ORACLE)", "learned", "offline", 95.0, 3, None)))
    page = reported(result)[0]
    rows = re.findall(r"<tr[^>]*>.*?</tr>", page)
    marked = [row for row in rows if '<tr class="oracle">' in row]
    assert len(marked) == 2 and all(">ORACLE<" in row and "<b>" not in row for row in marked)
    assert any("<b>66.8 ± 0.8</b>" in row and "pjepa ++ moving average" in row for row in rows)


def test_the_page_fetches_nothing_and_runs_nothing(reported: Report) -> None:
    page = reported(made_result(), made_arrays(made_result()), made_curves())[0]
    assert not re.search(r"https?://|<script|<link|url\(|\bon\w+=", page)
    assert set(re.findall(r'src="([^,]*),', page)) == {"data:image/png;base64"}


def test_every_picture_is_a_png_and_stands_in_the_page(reported: Report) -> None:
    page, folder = reported(made_result(), made_arrays(made_result()), made_curves())
    files = png_files(folder)
    video = "P1_left_cam.1"
    assert set(files) == {f"{kind}_{video}.png" for kind in ("ribbons", "colours", "similarity")} | {
        *("accuracy.png", "curves.png", "monitors.png")
    }
    assert all(data.startswith(PNG) and len(data) > 5000 for data in files.values())
    assert page.count("data:image/png") == len(files)


def test_equal_data_give_equal_pictures_and_other_data_others(reported: Report) -> None:
    result = made_result()
    other = made_result(rows=tuple((*row[:3], row[3] - 5, *row[4:]) for row in ROWS))
    data = made_arrays(result), made_curves()
    first, again = (png_files(reported(result, *data, name=name)[1]) for name in ("first", "again"))
    changed = png_files(reported(other, made_arrays(result, slots=650), {"pjepa, seed 0": made_curve(9)}, "c")[1])
    assert first == again
    assert set(changed) == set(first)
    assert not {name for name in first if first[name] == changed[name]}


def test_names_are_shown_as_text_and_never_as_tags(reported: Report) -> None:
    rows = (*ROWS, ("<img src=x>", "learned", "offline", 60.0, 3, None))
    result = made_result(rows)
    page, folder = reported(result, made_arrays(result))
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
    assert "| pjepa ++ moving average | **66.8 ± 0.8** |" in table
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
    assert widths == {8}


def test_foreground_accuracy_has_a_column_only_where_there_is_background() -> None:
    result = made_result()
    assert "foreground" not in markdown_table(result)
    result["protocol"]["background"] = ["background"]
    assert "| accuracy | accuracy, foreground | edit |" in markdown_table(result)


def test_without_gate_and_learned_rows_the_report_says_so_and_shows_the_rest(reported: Report) -> None:
    result = made_result(tuple(row for row in ROWS if row[1] in ("raw", "control")), ())
    result["geometry"] = {}
    text = text_of(reported(result)[0])
    assert "No learned representation was judged; frames right: raw features 41.2 %" in text
    assert "Nothing was compared, so nothing can be claimed." in text
    text = text_of(reported(made_result((), ()))[0])
    assert "No learned representation was judged." in text and "No representation was judged." in text


def test_learned_rows_without_a_gate_claim_nothing() -> None:
    assert main_line(made_result(gate=())) == (
        "No claim, nothing was compared: pjepa alone, offline: 64.1 % of frames right (3 seeds)."
    )


def test_one_class_one_slot_narrow_colours_and_missing_labels_still_draw(reported: Report) -> None:
    result = made_result()
    result["data"]["classes"] = ["only"]
    arrays: dict[str, Any] = {"names": np.array(["a", "b"])}
    for index, slots in enumerate((1, 40)):
        arrays[f"{index}/truth"] = np.full(slots, -100 * (1 - index))
        arrays[f"{index}/prediction/pjepa, offline"] = np.zeros(slots, dtype=np.int16)
        arrays[f"{index}/colours/features"] = np.zeros((slots, 1 + index), dtype=np.uint8)
        arrays[f"{index}/similarity/features"] = np.ones((slots, slots), dtype=np.float16)
    curves = {"odd run": [{"step": 10, "loss": float("nan")}], "empty": []}
    page, folder = reported(result, arrays, curves)
    assert {"ribbons_a.png", "colours_b.png", "curves.png"} <= set(png_files(folder))
    assert "monitors.png" not in png_files(folder) and "Training: the loss" in page


def test_twenty_classes_have_their_own_colours_and_two_hundred_a_bounded_legend() -> None:
    result = made_result()
    result["data"]["classes"] = [f"step {index}" for index in range(20)]
    assert len(set(Palette(result, {}).colours.values())) == 20
    result["data"]["classes"] = [f"step {index}" for index in range(200)]
    common = np.repeat(np.arange(150, 170), 5)
    palette = Palette(result, {"0/truth": np.concatenate([common, np.arange(100)])})
    assert len({palette.colours[index] for index in common}) == 20
    patches, texts = palette.entries([np.arange(200)])
    assert len(patches) == len(texts) == LEGEND_ENTRIES + 1 and texts[-1] == "and 160 more"


def test_a_report_that_cannot_be_drawn_leaves_the_old_one_untouched(reported: Report) -> None:
    page, folder = reported(made_result(), made_arrays(made_result()))
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


def test_drawing_touches_no_global_state_of_matplotlib(reported: Report) -> None:
    folder = reported(made_result(), made_arrays(made_result()), made_curves())[1]
    code = (
        "import sys, pathlib, matplotlib; before = list(dict.items(matplotlib.rcParams))\n"
        "from keystep.evals.report import write_report\n"
        f"write_report(pathlib.Path({str(folder)!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and list(dict.items(matplotlib.rcParams)) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
