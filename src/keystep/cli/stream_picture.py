"""Plot of a stream: the video's frames, the predicted steps and their probabilities over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keystep.cli import film
from keystep.evals.palette import Palette
from keystep.evals.plots import clock_axis, plain
from keystep.files import replacing
from keystep.heads import Head
from keystep.stream import Reading


@dataclass
class StreamPicture:
    """Collects readings and draws them at the end of the stream.

    Args:
        path: PNG file to write.
        head: for the class names.
        source: what the stream was read from, as the user named it.
        video: video file that the stream was read from, if any.
    """

    path: Path
    head: Head
    source: str
    video: Path | None = None
    final: list[tuple[float, int, float, float]] = field(default_factory=list)
    """(time, step, probability, delay) of each final reading."""

    def take(self, readings: Sequence[Reading]) -> None:
        """Add readings; provisional ones are ignored."""
        self.final += [(r.time, r.step, r.probability, r.delay) for r in readings if r.final]

    def draw(self) -> bool:
        """Write the picture; return False if there are no final readings."""
        if not self.final:
            return False
        times, steps, probabilities, delays = (np.array(column) for column in zip(*self.final, strict=True))
        figure = Figure(figsize=(12, 4.4 if self.video else 3.4), layout="constrained")
        ratios = [1.0, 0.7, 1.6] if self.video else [0.7, 1.6]
        axes = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        palette = Palette([self.head.name(step) for step in range(self.head.classes)])
        film.steps(axes[-2], steps, palette, times[0], times[-1])
        axes[-1].plot(times, probabilities, color="#33608c", linewidth=0.9)
        axes[-1].set(ylim=(0, 1.02), ylabel="probability", xlim=(times[0], times[-1]))
        clock_axis(axes[-1], times[-1] - times[0])
        name = "standard input" if self.source == "-" else Path(self.source).name
        longest = f"delay of up to {max(delays):.2f} s" if max(delays) else "no delay"
        figure.suptitle(plain(f"{name}: {len(times):,} frames, as predicted live; {longest}", 120), fontsize=10)
        if self.video is not None:
            film.frames(axes[0], self.video, times[0], times[-1])
        with replacing(self.path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
        return True
