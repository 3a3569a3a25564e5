"""``keystep inspect``: print and plot a summary of a feature folder, and list its problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keystep.cli.inspect_frames import draw_frames
from keystep.data.inspection import Inspection
from keystep.evals.palette import Palette
from keystep.evals.plots import clock_axis, plain
from keystep.files import replacing

SHOWN_CLASSES = 30


def show_inspection(found: Inspection, picture: Path, console: Console) -> None:
    """Print and draw the summary of a feature folder."""
    folder = found.folder
    tokens = f", {folder.tokens} tokens of {folder.token_width}" if folder.tokens > 1 else ""
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
    counts = {"problem": len(found.problems), "note": len(found.warnings)}
    line = ", ".join(f"{count} {thing}{'' if count == 1 else 's'}" for thing, count in counts.items())
    line += f"; picture: {pictures}"
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
    """Draw a histogram of video lengths and, if there are labels, the share of each class."""
    lengths = np.array(list(found.lengths.values()))
    shown = list(found.classes)[:SHOWN_CLASSES]
    panels = 2 if shown else 1
    figure = Figure(figsize=(5.5 * panels, max(4.2, 0.5 + 0.2 * len(shown))), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    left = axes[0]
    lengths = lengths / float(found.rate or 1)
    left.hist(lengths, bins=min(40, max(5, len(lengths) // 3)), color="#33608c")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="length" if found.rate else "length in frames", ylabel="videos", title=f"{len(lengths)} videos")
    if found.rate is not None:
        clock_axis(left, float(np.ptp(left.get_xlim())))
    if shown:
        _draw_classes(axes[1], found, shown)
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_classes(axes: Axes, found: Inspection, shown: Sequence[str]) -> None:
    """Draw the share of each class in the colour, and beside the number, that it has in all pictures."""
    names, total = found.folder.classes, max(1, found.labelled - found.unlabelled)
    palette, ids = Palette(names), [names.index(name) for name in shown]
    places = range(len(shown))
    shares = [100 * found.classes[name].frames / total for name in shown]
    axes.barh(places, shares, color=[palette.colour(label) for label in ids])
    axes.set_yticks(places, [f"{label} {plain(name, 40)}" for label, name in zip(ids, shown, strict=True)])
    axes.invert_yaxis()
    left_out = len(found.classes) - len(shown)
    title = f"{len(found.classes)} classes" + (f", the {len(shown)} most frequent" if left_out else "")
    axes.set(xlabel="% of frames", title=title)
    axes.tick_params(axis="y", labelsize=8)
