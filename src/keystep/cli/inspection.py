"""``keystep inspect``: what a feature folder holds, in words and in a picture, and all that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from keystep.cli.data import open_data
from keystep.cli.inspect_frames import draw_frames, left_out_notes, partial_notes
from keystep.cli.progress import counting
from keystep.data.annotation import IGNORED, PARTS, segment_lengths, split_names
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.files import replacing

SHOWN_CLASSES = 30


def inspect_folder(data: Path, source_rate: str | None, rate: str | None, picture: Path, console: Console) -> bool:
    """Read everything, print and draw a summary; returns whether all is well."""
    known = source_rate is not None or (data / "store.json").exists()
    folder = open_data(data, source_rate if known else "1", rate if known else None, "skip")
    with counting(console, "reading", len(folder.videos)) as tick:
        for name in folder.videos:
            folder.problems.attempt(name, lambda name=name: _read(folder, name))  # type: ignore[misc]
            tick(name)
    problems = list(folder.problems.skipped.values())
    labelled = sorted(path.name.removesuffix(".txt") for path in (data / "groundTruth").glob("*.txt"))
    lonely = [name for name in labelled if not (data / "features" / f"{name}.npy").exists()]
    problems += [f"{data}: labels but no features for {name!r}" for name in lonely]
    lengths = np.array([folder.length(name) for name in folder.videos])
    tokens = f", {folder.tokens} tokens of {folder.width // folder.tokens}" if folder.tokens > 1 else ""
    console.print(
        f"[bold]{data}[/bold]: {len(folder.videos)} videos, {folder.width} numbers a frame{tokens}", soft_wrap=True
    )
    console.print(_length_line(folder, lengths, known), soft_wrap=True)
    counts = _class_counts(folder)
    if counts:
        console.print(_class_table(folder, counts))
        _describe_gaps(folder, counts, console)
    problems += _describe_splits(folder, console)
    if known:
        _note_times(folder)
    folder.problems.notes += partial_notes(folder) + left_out_notes(folder)
    for line in folder.problems.notes:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    for line in problems:
        console.print(f"problem: {line}", style="red", soft_wrap=True, markup=False)
    _draw(folder, lengths, counts, picture, known)
    beside = picture.with_name(f"{picture.stem}-frames{picture.suffix}")
    pictures = f"{picture}, {beside}" if draw_frames(folder, beside) else f"{picture}"
    console.print(f"{len(problems)} problems, {len(folder.problems.notes)} notes; picture: {pictures}", soft_wrap=True)
    return not problems


def _read(folder: FeatureFolder, name: str) -> None:
    """Everything of one video that may be bad."""
    folder.features(name)
    folder.times(name)
    if (folder.root / "segments" / f"{name}.txt").exists():
        folder.segment_lengths(name)


def _sound(folder: FeatureFolder) -> list[str]:
    return [name for name in folder.videos if name not in folder.problems.skipped]


def _note_times(folder: FeatureFolder) -> None:
    """Say how many videos have explicit times, and how far those are from the regular timeline."""
    timeline = folder.timeline
    apart = []
    for name in filter(folder.has_times, _sound(folder)):
        times = folder.times(name)
        apart.append(np.abs(times - float(timeline.start) - np.arange(len(times)) / float(timeline.rate)).max())
    if apart:
        folder.problems.notes.append(
            f"{len(apart)} of {len(folder.videos)} videos have explicit times, up to {max(apart):,.3f} s from the "
            f"regular timeline at {float(timeline.rate):g} Hz"
        )


def _length_line(folder: FeatureFolder, lengths: np.ndarray, known: bool) -> str:
    frames = f"{lengths.sum():,} frames; shortest {lengths.min():,}, median {np.median(lengths):,.0f}, "
    frames += f"longest {lengths.max():,}"
    if not known:
        return f"{frames} (give --source-rate to see minutes)"
    rate = float(folder.timeline.rate)
    return (
        f"{frames} at {rate:g} Hz: {lengths.sum() / rate / 3600:.1f} hours, longest {lengths.max() / rate / 60:.1f} min"
    )


def _class_counts(folder: FeatureFolder) -> dict[str, tuple[int, int]]:
    """Class -> (frames, segments) over the labelled videos, by falling number of frames."""
    frames = np.zeros(len(folder.classes), dtype=int)
    segments = np.zeros(len(folder.classes), dtype=int)
    for name in _sound(folder):
        if folder.video(name).labels is not None:
            labels = folder.frame_labels(name)
            starts = np.cumsum([0, *segment_lengths(labels)[:-1]])
            for count, ids in ((frames, labels), (segments, labels[starts])):
                count += np.bincount(ids[ids != IGNORED], minlength=len(count))
    order = np.argsort(-frames, kind="stable")
    return {folder.classes[index]: (int(frames[index]), int(segments[index])) for index in order}


def _describe_gaps(folder: FeatureFolder, counts: dict[str, tuple[int, int]], console: Console) -> None:
    """Print the share of unlabelled frames in labelled videos, if there are any."""
    total = sum(folder.video(name).frames for name in _sound(folder) if folder.video(name).labels is not None)
    gaps = total - sum(frames for frames, _ in counts.values())
    if gaps:
        console.print(f"unlabelled: {gaps:,} frames, {100 * gaps / total:.1f} % of the labelled videos", soft_wrap=True)


def _class_table(folder: FeatureFolder, counts: dict[str, tuple[int, int]]) -> Table:
    total = sum(frames for frames, _ in counts.values())
    table = Table(title=f"{len(counts)} classes")
    for column in ("class", "frames %", "segments", "mean frames"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, (frames, segments) in list(counts.items())[:SHOWN_CLASSES]:
        mean = f"{frames / segments:,.1f}" if segments else "never"
        table.add_row(name, f"{100 * frames / max(1, total):.1f}", f"{segments:,}", mean)
    if len(counts) > SHOWN_CLASSES:
        table.add_row(f"... and {len(counts) - SHOWN_CLASSES} more", "", "", "")
    return table


def _describe_splits(folder: FeatureFolder, console: Console) -> list[str]:
    """Print each split's sizes; returns what is wrong with any."""
    problems = []
    for name in split_names(folder.root):
        try:
            split = folder.split(name)
        except InputError as error:
            problems.append(str(error))
            continue
        sizes = ", ".join(f"{len(split.part(part))} {part}" for part in PARTS)
        console.print(f"split {name}: {sizes} (validation: {split.rule})", soft_wrap=True)
        problems += [
            f"split {name}: {video} of {part} has no labels"
            for part in PARTS
            for video in split.part(part)
            if folder.classes and folder.video(video).labels is None
        ]
    return problems


def _draw(
    folder: FeatureFolder, lengths: np.ndarray, counts: dict[str, tuple[int, int]], picture: Path, known: bool
) -> None:
    """Histogram of lengths beside the share of each class."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scale = 60 * float(folder.timeline.rate) if known else 1
    left.hist(lengths / scale, bins=min(40, max(5, len(lengths) // 3)), color="#33608c")
    left.set(
        xlabel="length in minutes" if known else "length in frames", ylabel="videos", title=f"{len(lengths)} videos"
    )
    shown = list(counts.items())[:SHOWN_CLASSES]
    if shown:
        total = max(1, sum(frames for frames, _ in counts.values()))
        right.barh([name for name, _ in shown], [100 * frames / total for _, (frames, _) in shown], color="#c0792a")
        right.invert_yaxis()
        right.set(xlabel="% of frames", title=f"{len(counts)} classes")
        right.tick_params(axis="y", labelsize=8 if len(shown) < 20 else 6)
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, "no labels", ha="center", va="center")
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
