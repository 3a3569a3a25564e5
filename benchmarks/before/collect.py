"""The facts in a folder that a step left, found by what they are and not by the layout of the day.

Each function takes the step's folder (or what it printed) and gives ``name -> array, number or text``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Found = dict[str, Any]
NAMES = ("name", "head", "representation", "claim", "first", "second", "mode", "metric")
"""What tells the records of a result apart."""
_STARTS_A_NUMBER = re.compile(r"^\W*\d")


def weights(folder: Path, _: str) -> Found:
    """Every tensor of a run's model."""
    return dict(load_file(folder / "model" / "model.safetensors"))


def features(folder: Path, _: str) -> Found:
    """Every array of a feature folder, by video."""
    return {path.stem: np.load(path) for path in sorted(folder.rglob("*.npy"))}


def tensors(folder: Path, _: str) -> Found:
    """Every tensor of the files that `side.py` wrote."""
    return {
        f"{path.stem}/{name}": value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def lines(folder: Path, printed: str) -> Found:
    """JSON lines of a stream: ``frame/field``, every field."""
    text = folder.read_text(encoding="utf-8") if folder.is_file() else printed
    found: Found = {}
    for line in text.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            found |= {f"{record['frame']:05d}/{key}": value for key, value in record.items() if key != "frame"}
    return found


def result(folder: Path, _: str) -> Found:
    """Rows, gains and gate of the result files, by (names, metric), and the cells of the reports beside them."""
    found: Found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != "training.json":  # losses: the weights say the same
            found |= _unique(numbers_in(json.loads(path.read_text(encoding="utf-8"))))
    for path in sorted((*folder.glob("*.html"), *folder.glob("*.md"))):
        found |= {f"report/{name}": text for name, text in cells(path.read_text(encoding="utf-8")).items()}
    return found


def report(_: Path, printed: str) -> Found:
    """The cells of the Markdown tables that were printed."""
    return cells(printed)


def onnx(folder: Path, _: str) -> Found:
    """Forty frames through every exported ONNX program, each state fed back: outputs by name."""
    import onnxruntime

    found: Found = {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for path in sorted(folder.glob("*.onnx")):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        frames, *state = session.get_inputs()
        outputs = [output.name for output in session.get_outputs()]
        memory = [np.zeros(entry.shape, _DTYPES[entry.type]) for entry in state]
        rng, said = np.random.default_rng(3), []
        for _step in range(max(1, 40 // frames.shape[1])):
            given = rng.normal(size=frames.shape).astype(np.float32)
            feed = {entry.name: value for entry, value in zip((frames, *state), (given, *memory), strict=True)}
            values = session.run(None, feed)
            answers = len(values) - len(state)
            said.append(values[:answers])
            memory = values[answers:]
        for index, parts in enumerate(zip(*said, strict=True)):
            found[f"{path.name}/{outputs[index]}"] = np.concatenate(parts, axis=1)
    return found


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}

COLLECT: dict[str, Callable[[Path, str], Found]] = {
    kind.__name__: kind for kind in (weights, features, tensors, lines, result, report, onnx)
}


def numbers_in(record: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """(names / metric, number) of every record with a mean, wherever it stands, and of the geometry.

    A record's ``mean`` is one number (a gain, a line of the gate: then ``low`` and ``high`` count too) or one a metric
    (a row: then ``spread`` counts too). Where records stand and what else they hold may change.
    """
    if isinstance(record, list):
        for part in record:
            yield from numbers_in(part, place)
    if not isinstance(record, Mapping):
        return
    place = (*place, *(str(record[name]) for name in NAMES if isinstance(record.get(name), str)))
    if isinstance(record.get("mean"), Mapping):
        for part in ("mean", "spread"):
            yield from (
                (" | ".join((*place, part, metric)), value)
                for metric, value in (record.get(part) or {}).items()
                if value is not None
            )
        return
    if isinstance(record.get("mean"), (int, float)):
        yield from ((" | ".join((*place, key)), record[key]) for key in ("mean", "low", "high") if key in record)
    for key, part in record.items():
        if key == "geometry":
            for name, metrics in part.items():
                yield from ((f"geometry | {name} | {metric}", value) for metric, value in metrics.items())
        elif key not in ("quoted", "settings", "models", "data", "software", "runs"):
            yield from numbers_in(part, place)


def cells(text: str) -> dict[str, str]:
    """``heading | row | column -> cell`` of every table with a head, in HTML or Markdown.

    A row is known by its first cells, up to the first with a number; small print in a cell does not count.
    """
    tables = _html_tables(text) if "<table" in text else _markdown_tables(text)
    found: list[tuple[str, str]] = []
    for heading, (head, *rows) in tables:
        for row in rows:
            if len(row) != len(head):
                continue  # a title within the table
            first = next((place for place, cell in enumerate(row) if _STARTS_A_NUMBER.match(cell)), len(row))
            first = max(1, first)
            found += [
                (" | ".join((heading, *row[:first], name)), cell)
                for name, cell in zip(head[first:], row[first:], strict=True)
            ]
    return _unique(found)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """As a dictionary; what comes twice is numbered."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} #{number}"
        found[unique] = value
    return found


Table = tuple[str, list[list[str]]]


def _markdown_tables(text: str) -> list[Table]:
    tables: list[Table] = []
    heading, rows = "", []
    for line in (*text.splitlines(), ""):
        if line.startswith("|"):
            parts = [part.strip().strip("*").replace("\\", "") for part in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
            if not all(re.fullmatch(r":?-+:?", part) for part in parts):
                rows.append(parts)
            continue
        if rows:
            tables.append((heading, rows))
            rows = []
        if re.match(r"#|\*\*.*\*\*$", line):
            heading = line.strip("#* ")
    return tables


def _html_tables(text: str) -> list[Table]:
    reader = _Reader()
    reader.feed(text)
    return [(heading, rows) for heading, rows in reader.tables if len(rows) > 1]


class _Reader(HTMLParser):
    """Tables under their headings, without what a ``span`` adds to a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.heading = ""
        self.into: str | None = None
        self.spans = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "h3", "h4"):
            self.into, self.heading = "heading", ""
        elif tag == "table":
            self.tables.append((self.heading.strip(), []))
        elif tag == "tr" and self.tables:
            self.tables[-1][1].append([])
        elif tag in ("td", "th") and self.tables:
            self.tables[-1][1][-1].append("")
            self.into = "cell"
        elif tag == "span":
            self.spans += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3", "h4", "td", "th"):
            self.into = None
        elif tag == "span":
            self.spans -= 1

    def handle_data(self, data: str) -> None:
        if self.into == "heading":
            self.heading += data
        elif self.into == "cell" and not self.spans:
            self.tables[-1][1][-1][-1] += data
