"""Plots of a video's frames, steps and features over time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from keystep.data.statistics import principal_colours
from keystep.evals.palette import Palette
from keystep.evals.pictures import draw_steps, legend_patches
from keystep.evals.plots import clock_axis
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


def steps(axes: Axes, ids: np.ndarray, palette: Palette, start: float, stop: float) -> None:
    """Draw (T,) class ids as a ribbon from ``start`` to ``stop`` (seconds), with a legend of the classes that occur."""
    draw_steps(axes, ids, palette, start, stop)
    axes.legend(
        handles=legend_patches(palette, [ids]),
        loc="upper left",
        bbox_to_anchor=(0, -0.05),
        ncols=6,
        fontsize=7,
        frameon=False,
    )
    axes.set(xlim=(start, stop), yticks=[], xticks=[])


def features(axes: Axes, rows: np.ndarray, start: float, stop: float) -> None:
    """Draw (T, D) features as colours (see `principal_colours`)."""
    shown = principal_colours({"": rows})[""]
    axes.imshow(shown[None], extent=(start, stop, 0, 1), aspect="auto", interpolation="nearest")
    axes.set(xlim=(start, stop), yticks=[])
    clock_axis(axes, stop - start)
