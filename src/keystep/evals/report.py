"""The HTML report of a result: one picture, one sentence and one chart, followed by collapsed sections with the
details.

``report.html`` is self-contained: pictures are inlined, there are no scripts and nothing is fetched. It adapts to
phones, dark mode and print. ``pictures/`` holds the same pictures as PNG files. The template is
``templates/report.html.j2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from keystep.errors import plain
from keystep.evals.drawings import (
    accuracy_bar,
    all_ribbons,
    bars,
    colour_ribbons,
    data_uri,
    headline_ribbons,
    similarity_maps,
    whiskers,
)
from keystep.evals.head_tables import more_tables, quoted_table
from keystep.evals.headline import FAILS, FEW, HOLDS, QUICK, claims, gains, gate_counts, kind, main_line, pairs, reasons
from keystep.evals.pictures import Arrays, draw_all, draw_training, headline_video, result_palette, stored_videos
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM
from keystep.evals.results import Curves, load_result
from keystep.evals.table import Result, tables
from keystep.files import replacing

__all__ = ["RIVALS", "tables_html", "write_report"]

REPORT, PICTURE_FOLDER = "report.html", "pictures"
FEW_VIDEOS = 10
LOOKS = {HOLDS: "holds", FAILS: "fails", FEW: "few", QUICK: "few"}
"""Label of a comparison -> CSS class."""
RIVALS = (
    "The rival in each line is the strongest control of its kind on the test videos, whatever validation chose; raw "
    "features and all averaging widths are candidates. This biases the comparison against the learned row."
)
GEOMETRY = {
    "straightness": "straightness",
    "time_progress_spearman": "order in time (Spearman)",
    "progress_efficiency": "progress efficiency",
    "monotonic_fraction": "steps forward",
    "adjacent_nearest_neighbours": "nearest neighbour is adjacent",
    "adjacent_cosine_distance": "distance to next frame",
    "start_end_displacement": "start to end",
}
POSITIONS = {"elapsed": "knows the elapsed time", "progress": "knows the relative position in the video"}


def write_report(result_folder: Path) -> Path:
    """Write ``report.html`` and ``pictures/*.png`` to a result folder, or nothing if any of them cannot be drawn.

    Args:
        result_folder: a folder written by `keystep.evaluate` or ``keystep eval``.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: the folder holds no readable result, or cannot be written to.
    """
    result, arrays, curves = load_result(result_folder)
    page, pictures = render_page(result, arrays, curves), draw_all(result, arrays, curves)
    for picture in pictures:
        with replacing(result_folder / PICTURE_FOLDER / picture.file) as temporary:
            temporary.write_bytes(picture.png)
    with replacing(result_folder / REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return result_folder / REPORT


def tables_html(result: Result) -> str:
    """The tables as HTML, for notebooks."""
    return _templates().get_template("tables.html.j2").render(tables=tables(result))


def render_page(result: Result, arrays: Arrays, curves: Curves) -> str:
    """The report as HTML."""
    templates, data, lines = _templates(), result["data"], claims(result)
    assert templates.loader is not None
    style, _, _ = templates.loader.get_source(templates, "report.css")
    few = any(line["videos"] < FEW_VIDEOS for line in lines)
    return templates.get_template("report.html.j2").render(
        title=f"{data['name']}, split {data['split']}",
        style=Markup(style),
        headline=_headline(result, arrays),
        sentence=main_line(result),
        bars=bars(result),
        counts=gate_counts(result),
        gate=_comparisons(lines),
        pairs=_comparisons(pairs(result)),
        rivals=RIVALS,
        few_videos=FEW_VIDEOS if few else 0,
        seeds_needed=SEEDS_FOR_A_CLAIM,
        tables=tables(result),
        head_gains=_comparisons(result["head_gains"]),
        more_tables=more_tables(result),
        quoted=[quoted_table(table) for table in result["quoted"]],
        gallery=_gallery(result, arrays),
        training=[
            {"title": picture.title, "caption": picture.caption, "image": data_uri(picture.png)}
            for picture in draw_training(curves)
        ],
        geometry=_geometry(result),
        facts=_facts(result),
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("keystep.evals"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"marked": _marked, "facts": _row_facts, "bar": accuracy_bar}
    templates.tests["oracle"] = lambda name: "(ORACLE)" in name
    return templates


def _clean(value: Any) -> Any:
    """Template filter that removes control characters from text; markup is left as it is."""
    return plain(value) if type(value) is str else value


def _marked(name: str) -> Markup:
    """A row name in which ``(ORACLE)`` is replaced by a badge."""
    return Markup('<span class="mark">ORACLE</span>').join(escape(plain(name)).split("(ORACLE)"))


def _headline(result: Result, arrays: Arrays) -> Mapping[str, Any] | None:
    """The opening picture, with a caption that says why this video was chosen."""
    videos, found = stored_videos(arrays), gains(result)
    chosen = headline_video(result, videos)
    if chosen is None or found is None:
        return None
    video, count = videos[chosen], len(found.by_video)
    rank = "is the median" if video == found.median else f"ranks {found.ranked.index(video) + 1} (from the lowest)"
    caption = (
        f"Chosen by rank: its gain over the best control ({found.by_video[video]:+.1f} points, mean over seeds, "
        f"{found.mode}) {rank} of {count} test videos. Top: the true steps. Below: the predictions of a linear probe "
        "(first seed) on each representation, with their frame accuracy at the right."
    )
    drawing = headline_ribbons(result, arrays, result_palette(result), chosen)
    return {"video": video, "caption": caption, "drawing": drawing}


def _gallery(result: Result, arrays: Arrays) -> list[Mapping[str, Any]]:
    """The drawings of each stored video."""
    palette, found = result_palette(result), gains(result)
    places = {} if found is None else {found.ranked[-1]: "largest", found.ranked[0]: "smallest", found.median: "median"}
    gallery: list[Mapping[str, Any]] = []
    for index, video in enumerate(stored_videos(arrays)):
        place = f" ({places[video]} gain: {found.by_video[video]:+.1f} points)" if found and video in places else ""
        drawn = {
            "title": f"{video}{place}",
            "steps": all_ribbons(result, arrays, palette, index),
            "colours": colour_ribbons(result, arrays, palette, index),
            "maps": similarity_maps(arrays, index),
        }
        gallery.append(drawn)
    return gallery


def _comparisons(lines: Sequence[Result]) -> list[Mapping[str, Any]]:
    """Comparisons as table lines, grouped by question in order of first occurrence."""
    questions = list(dict.fromkeys(line["asks"] for line in lines))
    lines = sorted(lines, key=lambda line: questions.index(line["asks"]))
    return [
        {
            **{
                name: line[name]
                for name in ("first", "claim", "asks", "mode", "mean", "low", "high", "seeds", "videos")
            },
            "detail": f"against {line['second']}",
            "kind": kind(line),
            "look": LOOKS[kind(line)],
            "why": reasons(line),
            "whisker": whisker,
        }
        for line, whisker in zip(lines, whiskers(lines), strict=True)
    ]


def _row_facts(row: Result) -> str:
    """The details below a row's name."""
    strengths = [run["strengths"] for run in row["runs"] if run.get("strengths")]
    moments = [run["at_the_moment"]["accuracy"] for run in row["runs"] if run.get("at_the_moment")]
    names = dict.fromkeys(name for run in strengths for name in run)  # a run has none of the bands that it left out
    bands = {name: float(np.mean([run.get(name, 0.0) for run in strengths])) for name in names}
    facts = [
        row["detail"],
        POSITIONS.get(row.get("position", ""), ""),
        f"{row['width']} dimensions" if row.get("width") else "",
        f"{row['parameters']:,} parameters, {row['frames_per_second']:,.0f} frames/s" if "parameters" in row else "",
        f"accuracy of the answers available in real time {np.mean(moments):.1f}" if moments else "",
        f"band strengths: {', '.join(f'{name} {value:.2g}' for name, value in bands.items())}" if bands else "",
    ]
    return "; ".join(fact for fact in facts if fact)


def _geometry(result: Result) -> Mapping[str, Any]:
    rows = {name: list(numbers.values()) for name, numbers in result["geometry"].items()}
    names = list(next(iter(result["geometry"].values()), ()))
    return {"columns": [GEOMETRY.get(name, name) for name in names], "rows": rows}


def _facts(result: Result) -> Mapping[str, str]:
    data, protocol = result["data"], result["protocol"]
    clock = protocol["clock"]
    measured = "given" if clock["stated"] else f"measured, 95 % interval {clock['low']:.3g} to {clock['high']:.3g} s"
    parts = ", ".join(f"{count} {part} ({data['slots'][part]} slots)" for part, count in data["videos"].items())
    return {
        "data": f"{data['name']}, fingerprint {data['fingerprint']}",
        "videos": f"{parts}; validation: {data['validation']}",
        "features": f"{data['width']} dimensions, {data['rate_hz']:g} slots per second",
        "clock": f"decorrelation time of the features, tau = {clock['tau']:.3g} s ({measured})",
        "classes": ", ".join(f"{index} {name}" for index, name in enumerate(data["classes"])),
        "left out": "; ".join(f"{name}: {why}" for name, why in data["left_out"].items()) or "nothing",
        "notes": "; ".join(data["notes"]) or "none",
        "metrics": f"{protocol['metrics']}, at {protocol['scored_at_hz']:g} Hz, background: "
        + (", ".join(protocol["background"]) or "none"),
        "selection": protocol["selection"],
        "probe": _settings(protocol["probe"]) + f"; {protocol['probes_fitted']} probes fitted",
        "created": f"{result['created']}, {_settings(result['software'])}",
        "command": result["command"],
    }


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
