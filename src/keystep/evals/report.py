"""One page that a newcomer can read: what was found, whether it may be claimed, the table, and the pictures.

``report.html`` holds everything (pictures inlined, no script, nothing fetched); ``pictures/`` has the same PNGs.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from keystep.evals.pictures import Picture, draw_all
from keystep.evals.protocol import SEEDS_FOR_A_CLAIM
from keystep.evals.results import load_result
from keystep.evals.table import (
    FAMILIES,
    METRICS,
    MODES,
    Result,
    best_scores,
    delay,
    is_oracle,
    label,
    main_line,
    markdown_table,
    metrics,
    score,
    sections,
    verdict,
)
from keystep.files import replacing

__all__ = ["main_line", "markdown_table", "write_report"]

REPORT, PICTURE_FOLDER = "report.html", "pictures"
FEW_VIDEOS = 10

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin-bottom: 0.3rem }
.main { font-size: 1.2rem; padding: 0.8rem 1rem; background: #f1f5f9; border-left: 0.3rem solid #0072b2 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 0.92rem }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal } thead th { border-bottom: 2px solid #888 }
.family th { color: #555; font-weight: normal; font-style: italic; padding-top: 0.7rem } .left { text-align: left }
.detail, figcaption, .note { color: #555; font-size: 0.85rem } .detail { display: block }
.oracle td { color: #777; background: #f6f6f6 } .mark { border: 1px solid #777; padding: 0 0.3rem; font-size: 0.75rem }
.yes { color: #00614a; font-weight: bold } .no { color: #a33f00; font-weight: bold }
figure { margin: 1rem 0 2rem } img { max-width: 100%; height: auto } code { background: #f3f3f3; padding: 0 0.2rem }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

HOW_TO_READ = (
    "Each row is one way to describe the frames of a video by vectors. All are frozen, and the same simple reader (a "
    "linear probe) learns to tell the steps from them. The better the reader does, the more the vectors say plainly. "
    "Its settings are chosen on validation videos; the numbers come from test videos.",
    "<b>Controls</b> show what comes for free: averaging neighbouring frames, knowing the time, a network that never "
    "trained, or one that merely learned to fill in its input. A learned row means something only if it beats them; "
    "beating raw features alone proves little. The <b>gate</b> below checks that, with an interval over videos and "
    f"seeds (training runs that differ in chance only); it asks for at least {SEEDS_FOR_A_CLAIM} seeds.",
    "<b>Accuracy</b> is the percentage of frames right; <b>edit</b> compares the order of the steps; <b>F1@k</b> "
    "counts steps found with at least k % overlap. All run from 0 to 100, higher is better. <b>±</b> is the standard "
    "deviation over seeds. <b>Delay</b> is how long after a frame its description is final: <i>offline</i> rows wait "
    "for the whole video, <i>causal</i> ones could run live. <b>A ++ B</b> is both side by side.",
    "<b>ORACLE</b> rows are told where the true steps begin and end. No real system could have them; they are here "
    "as a yardstick and are left out when the best value of a column is made bold.",
)
RIVALS = (
    "The rival of a line is the strongest control of its kind on the test videos themselves, any width of the average "
    "and raw features included, whatever validation chose. That errs against the learned row."
)
GEOMETRY = {
    "straightness": "straightness",
    "time_progress_spearman": "order in time (Spearman)",
    "progress_efficiency": "progress efficiency",
    "monotonic_fraction": "steps forward",
    "adjacent_nearest_neighbours": "nearest frame is next door",
    "adjacent_cosine_distance": "distance to next frame",
    "start_end_displacement": "start to end",
}


def write_report(result_folder: Path) -> Path:
    """Draw ``pictures/*.png`` and ``report.html`` into a result folder; nothing is written unless all could be drawn.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: no readable result there, or the disk refuses.
    """
    result, arrays, curves = load_result(result_folder)
    pictures = draw_all(result, arrays, curves)
    page = _page(result, pictures)
    for picture in pictures:
        with replacing(result_folder / PICTURE_FOLDER / picture.file) as temporary:
            temporary.write_bytes(picture.png)
    with replacing(result_folder / REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return result_folder / REPORT


def _page(result: Result, pictures: Sequence[Picture]) -> str:
    title = escape(f"{result['data']['name']}, split {result['data']['split']}")
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>keystep: {title}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f'<h1>keystep: {title}</h1>\n<p class="main">{escape(main_line(result))}</p>',
        f"<h2>How to read this</h2>\n{''.join(f'<p>{text}</p>' for text in HOW_TO_READ)}",
        f"<h2>The gate: may anything be claimed?</h2>\n{_gate(result)}",
        f"<h2>The table</h2>\n{_tables(result)}",
        *([f"<h2>Pictures</h2>\n{''.join(map(_figure, pictures))}"] if pictures else []),
        f"<h2>Geometry</h2>\n{_geometry(result)}",
        f"<h2>Data, protocol, command</h2>\n{_origin(result)}",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _gate(result: Result) -> str:
    if not result["gate"]:
        return "<p>Nothing was compared, so nothing can be claimed.</p>"
    body = []
    for line in result["gate"]:
        cells = [
            f'<td class="text">{_marked(line["first"])}: {escape(line["claim"])}'
            f'<span class="detail">against {escape(line["second"])}</span></td>',
            f"<td>{escape(line['mode'])}</td><td>{line['mean']:+.1f}</td>",
            f"<td>{line['low']:+.1f} to {line['high']:+.1f}</td>",
            f"<td>{line['seeds'][0]} / {line['seeds'][1]}</td><td>{line['videos']}</td>",
            f'<td class="left {"yes" if line["holds"] else "no"}">{escape(verdict(line))}</td>',
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("claim", "mode", "points", "95 % interval", "seeds", "videos", "verdict")
    few = (
        f'<p class="note">With fewer than {FEW_VIDEOS} test videos the intervals are too narrow.</p>'
        if min(line["videos"] for line in result["gate"]) < FEW_VIDEOS
        else ""
    )
    return _table(heads, body) + f'<p class="note">{escape(RIVALS)}</p>' + few


def _tables(result: Result) -> str:
    """Offline and causal apart, rows by family."""
    columns, parts = metrics(result), []
    for mode, rows in sections(result).items():
        heads = ("representation", *(METRICS[metric] for metric in columns), "delay", "seeds")
        best = {metric: best_scores(rows, metric) for metric in columns}
        body = []
        for family, name in FAMILIES.items():
            members = [row for row in rows if row["family"] == family]
            if members:
                body.append(f'<tr class="family"><th colspan="{len(heads)}">{escape(name)}</th></tr>')
            body += [_row(row, columns, best) for row in members]
        parts.append(f"<h3>{escape(MODES[mode])}</h3>\n{_table(heads, body)}")
    return "\n".join(parts) or "<p>No representation was judged.</p>"


def _row(row: Result, columns: Iterable[str], best: Mapping[str, set[str]]) -> str:
    knows = {"elapsed": "may know the time since the start", "progress": "may know how far the video is"}
    facts = [row["detail"], knows.get(row["position"], ""), f"{row['width']} numbers a frame" if row["width"] else ""]
    detail = escape("; ".join(fact for fact in facts if fact))
    cells = [f'<td class="text">{_marked(label(row))}<span class="detail">{detail}</span></td>']
    for metric in columns:
        text = escape(score(row, metric))
        cells.append(f"<td>{f'<b>{text}</b>' if row['name'] in best[metric] else text}</td>")
    cells.append(f"<td>{delay(row)}</td><td>{len(row['runs'])}</td>")
    mark = ' class="oracle"' if is_oracle(row) else ""
    return f"<tr{mark}>{''.join(cells)}</tr>"


def _marked(name: str) -> str:
    """A row's name with its ORACLE mark made visible."""
    return escape(name).replace("(ORACLE)", '<span class="mark">ORACLE</span>')


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    image = f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
    return (
        f"<figure><h3>{escape(picture.title)}</h3>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )


def _geometry(result: Result) -> str:
    if not result["geometry"]:
        return "<p>Not measured.</p>"
    names = list(next(iter(result["geometry"].values())))
    body = []
    for representation, numbers in result["geometry"].items():
        cells = "".join(f"<td>{numbers[name]:.3f}</td>" for name in names)
        body.append(f"<tr><td>{_marked(representation)}</td>{cells}</tr>")
    note = (
        '<p class="note">How the path of a video lies in space; medians over the test videos, each thinned to the same '
        "number of frames. They describe and prove nothing: smoothing alone raises most of them.</p>"
    )
    return _table(("representation", *(GEOMETRY.get(name, name) for name in names)), body) + note


def _origin(result: Result) -> str:
    data, protocol = result["data"], result["protocol"]
    parts = ", ".join(f"{count} {part} ({data['slots'][part]} slots)" for part, count in data["videos"].items())
    facts = {
        "data": f"{data['name']}, fingerprint {data['fingerprint']}",
        "videos": f"{parts}; validation: {data['validation']}",
        "features": f"{data['width']} numbers a slot, {data['rate_hz']:g} slots a second",
        "classes": ", ".join(f"{index} {name}" for index, name in enumerate(data["classes"])),
        "left out": "; ".join(f"{name}: {why}" for name, why in data["left_out"].items()) or "nothing",
        "notes": "; ".join(data["notes"]) or "none",
        "metrics": f"{protocol['metrics']}, at {protocol['scored_at_hz']:g} Hz, background: "
        + (", ".join(protocol["background"]) or "none"),
        "selection": protocol["selection"],
        "probe": _settings(protocol["probe"]) + f"; {protocol['probes_fitted']} probes fitted",
        "made": f"{result['created']}, {_settings(result['software'])}",
    }
    body = [f'<tr><td>{name}</td><td class="text">{escape(text)}</td></tr>' for name, text in facts.items()]
    command = f'<tr><td>command</td><td class="text"><code>{escape(result["command"])}</code></td></tr>'
    return _table((), [*body, command])


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _table(heads: Sequence[str], body: Iterable[str]) -> str:
    head = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in heads)}</tr></thead>" if heads else ""
    return f'<div class="wide"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'
