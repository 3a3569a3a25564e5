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

HEIGHT = 144
"""Height in pixels at which frames are decoded."""


def frames(axes: Axes, video: Path, start: float, stop: float) -> None:
    """Draw evenly spaced frames of a video between ``start`` and ``stop``, in seconds, each in its own proportions.

    There are as many as fit beside each other. The figure has to be complete but for them, since its layout decides.
    """
    source = open_video(video)
    ratio = source.info.width / source.info.height
    axes.set(xlim=(start, stop), ylim=(0, 1), yticks=[], xticks=[])
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    count, across, down = fitting(ratio, axes.bbox.width / axes.bbox.height)
    picture = Picture(height=HEIGHT, width=max(1, round(HEIGHT * ratio)))
    share = (stop - start) / count
    moments = [Fraction(start + (index + 0.5) * share) for index in range(count)]
    for middle, frame in zip(moments, source.at(moments), strict=True):
        left, right = float(middle) - across * share / 2, float(middle) + across * share / 2
        axes.imshow(frame.rgb(picture), extent=(left, right, 0.5 - down / 2, 0.5 + down / 2), aspect="auto")
    axes.set(xlim=(start, stop), ylim=(0, 1))
    axes.set_frame_on(False)


def fitting(ratio: float, strip: float) -> tuple[int, float, float]:
    """How frames of one shape lie beside each other in a strip.

    Args:
        ratio: width / height of a frame.
        strip: width / height of the strip.

    Returns:
        Number of frames, and the shares of the width of its place and of the strip's height that each one takes.
    """
    count = max(1, round(strip / ratio))
    place = strip / count * 0.98  # a gap between two
    return count, 0.98 * min(1.0, ratio / place), min(1.0, place / ratio)


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
