"""``keystep inspect``: print and plot a summary of a feature folder, and list its problems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keystep.cli.inspect_frames import draw_frames
from keystep.data.inspection import Inspection
from keystep.evals.plots import plain
from keystep.files import replacing

SHOWN_CLASSES = 30


def show_inspection(found: Inspection, picture: Path, console: Console) -> None:
    """Print and draw the summary of a feature folder."""
    folder = found.folder
    tokens = f", {folder.tokens} tokens of {folder.width // folder.tokens}" if folder.tokens > 1 else ""
    size = f": {len(folder.videos)} videos, {folder.width} dimensions{tokens}"
    console.print(Text.assemble((str(folder.root), "bold"), size), soft_wrap=True)
    console.print(_length_line(found), soft_wrap=True)
    for line in (*_tau_line(found), *_group_line(found)):
        console.print(line, soft_wrap=True)
    if found.classes:
        console.print(_class_table(found))
    if found.unlabelled:
        share = 100 * found.unlabelled / found.labelled
        line = f"unlabelled: {found.unlabelled:,} frames, {share:.1f} % of the labelled videos"
        console.print(line, soft_wrap=True)
    for split in found.splits:
        sizes = ", ".join(f"{count} {part}" for part, count in split.videos.items())
        persons = ", of " + ", ".join(map(str, split.groups.values())) + " groups" if split.groups else ""
        console.print(f"split {split.name}: {sizes}{persons} (validation: {split.rule})", soft_wrap=True, markup=False)
    for line in found.warnings:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    for line in found.problems:
        console.print(f"problem: {line}", style="red", soft_wrap=True, markup=False)
    pictures = ", ".join(map(str, draw_inspection(found, picture)))
    line = f"{len(found.problems)} problems, {len(found.warnings)} notes; picture: {pictures}"
    console.print(line, soft_wrap=True)


def draw_inspection(found: Inspection, picture: Path) -> list[Path]:
    """Draw video lengths and classes, and in a second file video frames, if available; return the files."""
    _draw(found, picture)
    beside = picture.with_name(f"{picture.stem}-frames{picture.suffix}")
    return [picture, beside] if draw_frames(found.folder, beside) else [picture]


def _tau_line(found: Inspection) -> list[str]:
    if found.time_scale is None or found.tau_frames is None:
        return []
    frames = "{:,.3g} frames ({:,.3g} to {:,.3g})".format(*found.tau_frames)
    clock = found.time_scale
    seconds = f"{clock.tau:.3g} s ({clock.low:.3g} to {clock.high:.3g}), "
    time = frames if found.rate is None else seconds + frames
    return [f"tau: {time}: decorrelation time of the features, measured on {found.measured} videos"]


def _group_line(found: Inspection) -> list[str]:
    if not found.groups:
        return []
    sizes = found.groups.values()
    each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return [f"{len(sizes)} groups (persons or sites) with {each} videos each"]


def _length_line(found: Inspection) -> str:
    lengths = np.array(list(found.lengths.values()))
    frames = f"{lengths.sum():,} frames; shortest {lengths.min():,}, median {np.median(lengths):,.0f}, "
    frames += f"longest {lengths.max():,}"
    if found.rate is None:
        return f"{frames} (pass --source-rate to see minutes)"
    rate = float(found.rate)
    return (
        f"{frames} at {rate:g} Hz: {lengths.sum() / rate / 3600:.1f} hours, longest {lengths.max() / rate / 60:.1f} min"
    )


def _class_table(found: Inspection) -> Table:
    total = max(1, found.labelled - found.unlabelled)
    table = Table(title=f"{len(found.classes)} classes")
    for column in ("class", "frames %", "segments", "mean frames"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, count in list(found.classes.items())[:SHOWN_CLASSES]:
        mean = f"{count.frames / count.segments:,.1f}" if count.segments else "none"
        table.add_row(name, f"{100 * count.frames / total:.1f}", f"{count.segments:,}", mean)
    if len(found.classes) > SHOWN_CLASSES:
        table.add_row(f"... and {len(found.classes) - SHOWN_CLASSES} more", "", "", "")
    return table


def _draw(found: Inspection, picture: Path) -> None:
    """Draw a histogram of video lengths and the share of each class."""
    lengths = np.array(list(found.lengths.values()))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scale = 60 * float(found.rate) if found.rate is not None else 1
    left.hist(lengths / scale, bins=min(40, max(5, len(lengths) // 3)), color="#33608c")
    unit = "minutes" if found.rate is not None else "frames"
    left.set(xlabel=f"length in {unit}", ylabel="videos", title=f"{len(lengths)} videos")
    shown = list(found.classes.items())[:SHOWN_CLASSES]
    if shown:
        total = max(1, found.labelled - found.unlabelled)
        names = [plain(name) for name, _ in shown]
        right.barh(names, [100 * count.frames / total for _, count in shown], color="#c0792a")
        right.invert_yaxis()
        right.set(xlabel="% of frames", title=f"{len(found.classes)} classes")
        right.tick_params(axis="y", labelsize=8 if len(shown) < 20 else 6)
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, "no labels", ha="center", va="center")
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
