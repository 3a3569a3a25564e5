"""Plots of a video's frames, steps and features over time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from keystep.data.annotation import IGNORED
from keystep.data.statistics import principal_colours
from keystep.evals.palette import Palette
from keystep.evals.plots import clock_axis, plain
from keystep.extraction.backbone import Picture
from keystep.extraction.video import open_video

HEIGHT = 120


def frames(axes: Axes, video: Path, start: float, stop: float, count: int = 12) -> None:
    """Draw ``count`` evenly spaced frames of a video between ``start`` and ``stop``, in seconds."""
    source = open_video(video)
    width = max(1, round(HEIGHT * source.info.width / source.info.height))
    picture = Picture(height=HEIGHT, width=width)
    share = (stop - start) / count
    moments = [Fraction(start + (index + 0.5) * share) for index in range(count)]
    for index, frame in enumerate(source.at(moments)):
        left = start + index * share
        axes.imshow(frame.rgb(picture), extent=(left, left + 0.98 * share, 0, 1), aspect="auto")
    axes.set(xlim=(start, stop), ylim=(0, 1), yticks=[], xticks=[])
    axes.set_frame_on(False)


def steps(axes: Axes, ids: np.ndarray, names: Sequence[str], start: float, stop: float) -> None:
    """Draw (T,) class ids as a ribbon from ``start`` to ``stop`` (seconds), with a legend of the classes that occur."""
    palette = Palette(names)
    axes.imshow(palette.paint(ids), extent=(start, stop, 0, 1), aspect="auto", interpolation="nearest")
    present = [label for label in np.unique(ids) if label != IGNORED]
    patches = [Patch(color=palette.colour(label), label=plain(names[label])) for label in present[:20]]
    axes.legend(handles=patches, ncols=6, fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.05))
    axes.set(xlim=(start, stop), yticks=[], xticks=[])


def features(axes: Axes, rows: np.ndarray, start: float, stop: float) -> None:
    """Draw (T, D) features as colours (see `principal_colours`)."""
    shown = principal_colours({"": rows})[""]
    axes.imshow(shown[None], extent=(start, stop, 0, 1), aspect="auto", interpolation="nearest")
    axes.set(xlim=(start, stop), yticks=[])
    clock_axis(axes, stop - start)
