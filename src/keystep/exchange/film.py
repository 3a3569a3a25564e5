"""An MP4 of the video with the label of the moment and a ribbon of all labels under the picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import IGNORED
from keystep.errors import InputError, one_line
from keystep.evals.palette import Palette, ink_on, rgb
from keystep.exchange.formats import Frames, Recording
from keystep.extraction.backbone import Picture
from keystep.extraction.video import VideoInfo, open_video
from keystep.extraction.video.decoding import import_av

TICKS = 90_000
"""A second, in the file's own time."""
LARGEST = 1920
"""Pixels of the longer side; larger pictures are scaled."""
SETTINGS = {"crf": "20", "preset": "veryfast"}


class Film:
    """Every frame at its own time; without sound."""

    ending = ""
    loses = "mp4 is to be looked at: labels become colours, and sound is left out"
    needs_frames, needs_video = False, True
    read = None

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.mp4" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """One film after the other; memory does not grow with their length."""
        for recording in recordings:
            _film(recording, Palette(classes), folder / f"{recording.name}.mp4")


def _film(recording: Recording, palette: Palette, path: Path) -> None:
    assert recording.video is not None
    av, source = import_av(), open_video(recording.video)
    picture = _picture(source.info)
    below = _captions(recording, palette, picture)
    try:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=source.info.rate or 25, options=SETTINGS)
            stream.width, stream.height, stream.pix_fmt = (
                picture.width,
                len(below(Fraction(0))) + picture.height,
                "yuv420p",
            )
            stream.codec_context.time_base = Fraction(1, TICKS)
            for frame in source.frames():
                pixels = np.concatenate([frame.rgb(picture), below(frame.time)])
                shown = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                shown.pts, shown.time_base = round(frame.time * TICKS), Fraction(1, TICKS)
                file.mux(stream.encode(shown))
            file.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise InputError(f"{path.name}: cannot be written: {one_line(error)}") from error


def _picture(info: VideoInfo) -> Picture:
    """The whole frame with even sides, as the encoder needs them."""
    scale = min(1.0, LARGEST / max(info.height, info.width))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (info.height, info.width))
    return Picture(height=height, width=width)


def _captions(recording: Recording, palette: Palette, picture: Picture) -> Callable[[Fraction], np.ndarray]:
    """A function of a moment: (H, W, 3) uint8, its label, and below it the ribbon of the video with a mark there."""
    ids = {name: index for index, name in enumerate(palette.classes)}
    text, band = max(16, picture.height // 32 * 2), max(8, picture.height // 64 * 2)
    columns = Frames(Fraction(picture.width) / recording.end)
    painted = np.full(picture.width, IGNORED)
    for first, stop, label in recording.in_frames(columns):
        painted[first:stop] = ids[label]
    ribbon = np.repeat(palette.paint(painted), band, axis=0)
    starts = np.array([float(stretch.start) for stretch in recording.stretches])

    @lru_cache(maxsize=4)
    def caption(index: int) -> np.ndarray:
        label = "" if index < 0 else recording.stretches[index].label
        return _text(label, palette.colour(ids.get(label, IGNORED)), text, picture.width)

    def below(moment: Fraction) -> np.ndarray:
        index = int(np.searchsorted(starts, float(moment) + 1e-6, side="right")) - 1
        current = index if index >= 0 and moment < recording.stretches[index].end else -1
        strip, place = ribbon.copy(), min(picture.width - 2, columns.shown(moment))
        strip[:, place : place + 2] = 0
        return np.concatenate([caption(current), strip])

    return below


def _text(label: str, colour: str, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a label on its colour, cut where it is too long."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=colour)
    size = 0.6 * height * 72 / 100
    figure.text(0.01, 0.5, label, color=ink_on(colour), size=size, va="center", parse_math=False)
    canvas: Any = FigureCanvasAgg(figure)  # untyped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks: it draws a box for them
        canvas.draw()
    drawn: Any = np.asarray(canvas.buffer_rgba())[:height, :width, :3]
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = rgb(colour)
    pixels[: drawn.shape[0], : drawn.shape[1]] = drawn
    return pixels
