"""CSV with the columns start, end, label, one file a video, or with a column video."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from keystep.errors import InputError, quoted
from keystep.exchange.formats import Found, Recording, TimedLabel, decimal, number
from keystep.reading import read_rows

COLUMNS = ("start", "end", "label")
CLOCK = re.compile(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2}(?:\.\d{0,30})?)")


class Table:
    """Rows of seconds (or h:mm:ss) and a label."""

    ending = ".csv"
    loses = "csv holds no classes without a segment, and no order of classes"
    needs_frames = needs_video = False

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.csv" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """With a heading; seconds with six decimals; quoted where a label has a comma or a quote."""
        for recording in recordings:
            with (folder / f"{recording.name}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(COLUMNS)
                rows.writerows([decimal(start), decimal(end), label] for start, end, label in recording.stretches)

    def read(self, path: Path, track: str | None) -> list[Found]:
        """Columns by their heading, or start, end, label in this order where there is none."""
        rows = read_rows(path)
        names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
        headed = set(COLUMNS) <= set(names)
        if not headed and (not rows or len(names) != 3 or not any(letter.isdecimal() for letter in names[0])):
            raise InputError(f"{path}: no heading start,end,label (and perhaps video), and no such rows without one")
        places = {name: names.index(name) for name in (*COLUMNS, "video") if name in names} if headed else {}
        places = places or dict(zip(COLUMNS, range(3), strict=True))
        stretches, width = defaultdict[str, list[TimedLabel]](list), len(names)
        for line, row in rows[1:] if headed else rows:
            where = f"{path}, line {line}"
            if len(row) != width:
                raise InputError(f"{where}: {len(row)} cells, expected {width}; quote labels that hold a comma")
            cells = {name: row[place].strip() for name, place in places.items()}
            start, end = (_seconds(cells[name], where) for name in ("start", "end"))
            if end < start:
                raise InputError(f"{where}: ends at {quoted(cells['end'])}, before it starts")
            stretches[cells.get("video") or path.stem].append(TimedLabel(start, end, cells["label"]))
        unread = [name for name in names if name not in places] if headed else []
        notes = (f"columns that are not read: {', '.join(map(quoted, unread[:5]))}",) if unread else ()
        return [
            Found((video, Path(video).stem), tuple(own), notes=notes)
            for video, own in (stretches or {path.stem: []}).items()
        ]


def _seconds(text: str, where: str) -> Fraction:
    """Seconds, or a clock time."""
    found = CLOCK.fullmatch(text)
    if found is None:
        return number(text, where)
    hours, minutes, seconds = found.groups()
    return Fraction(int(hours or 0) * 3600 + int(minutes) * 60) + Fraction(seconds.rstrip("."))
