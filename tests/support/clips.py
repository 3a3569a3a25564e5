"""Generated clips whose pixels say which frame they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

BITS = 12
BARS = BITS + 3
"""White and black at the left and white at the right, with the frame's number in binary digits between them."""


def numbered(number: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a number as bars, white for 1; the lower half is the upper one's negative."""
    digits = [True, False, *((number >> (BITS - 1 - place)) & 1 == 1 for place in range(BITS)), True]
    row = np.array(digits)[np.arange(width) * BARS // width]
    upper = np.arange(height)[:, None] < height // 2
    return np.repeat(np.where(row == upper, 235, 20).astype(np.uint8)[..., None], 3, axis=2)


def read_number(picture: np.ndarray) -> int:
    """The number in a picture that shows all of a frame of `numbered`, upright, at any size; anything else fails."""
    height, width = picture.shape[:2]
    columns = ((np.arange(BARS) + 0.5) * width / BARS).astype(int)
    rows = picture.astype(float).mean(axis=2)[:, columns]
    upper, lower = rows[height // 4] - 128, rows[3 * height // 4] - 128
    assert (np.abs(upper) > 50).all() and (np.abs(lower) > 50).all(), "bars are neither black nor white"
    digits = upper > 0
    assert (digits != (lower > 0)).all(), "the lower half is not the upper one's negative"
    assert digits[0] and not digits[1] and digits[-1], "not upright"
    return int("".join("01"[int(digit)] for digit in digits[2:-1]), 2)


def write_clip(
    path: Path,
    *,
    frames: int = 30,
    height: int = 48,
    width: int = 64,
    rate: Fraction | int = 25,
    times: Sequence[Fraction] | None = None,
    start: Fraction | int = 0,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    b_frames: int = 0,
    keyframe_every: int = 12,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    colours: tuple[int, int] | None = None,
    audio: Fraction | int | None = None,
    picture: Callable[[int], np.ndarray] | None = None,
    container: str | None = None,
) -> Path:
    """A video, and perhaps a tone beside it.

    Args:
        frames: how many; 0 leaves the video out. times: seconds at which each is shown; by default number / rate.
        start: seconds by which all frames are late against the sound, which starts at 0.
        rotation: degrees counter-clockwise by which a player turns the stored pictures, after which it mirrors them.
        colours: FFmpeg's numbers of the matrix (1: BT.709, 5: BT.601) and the range (1: limited, 2: full) to be stored.
        audio: seconds of sound.
        picture: what a frame shows as stored, (H, W, 3) uint8 RGB; by default its number, see `numbered`.
        container: what the file is where its name's ending does not say it.
    """
    import av

    with av.open(str(path), "w", format=container) as file:
        tracks = []
        if frames:
            moments = [Fraction(number) / rate for number in range(frames)] if times is None else times
            shown = picture or (lambda number: numbered(number, height, width))
            stream = file.add_stream(codec, rate=rate, options={"bf": str(b_frames), **(options or {})})
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            context = stream.codec_context
            context.gop_size = keyframe_every
            context.time_base = 1 / Fraction(rate) if times is None and not start else Fraction(1, 90_000)
            if codec == "mpeg4" and context.time_base.denominator > 65_535:
                context.time_base = Fraction(1, 30_000)
            if pixel_aspect is not None:
                context.sample_aspect_ratio = pixel_aspect
            if colours is not None:
                context.colorspace, context.color_range = colours
            if rotation or mirrored:
                stream.set_display_rotation(rotation, hflip=mirrored)
            tracks.append(_pictures(stream, shown, [moment + start for moment in moments], colours))
        if audio is not None:
            tracks.append(_tone(file.add_stream("aac", rate=16_000, layout="mono"), Fraction(audio)))
        for track in tracks:
            for packet in track:
                file.mux(packet)
    return path


def _pictures(
    stream: Any, shown: Callable[[int], np.ndarray], moments: Sequence[Fraction], colours: tuple[int, int] | None
) -> Iterator[Any]:
    import av

    base = stream.codec_context.time_base
    ticks = [round(moment / base) for moment in moments]
    assert all(early < late for early, late in pairwise(ticks)), "times have to rise"
    for number, tick in enumerate(ticks):
        frame = av.VideoFrame.from_ndarray(shown(number), format="rgb24")
        if stream.codec_context.pix_fmt != "rgb24":
            matrix, value_range = colours or (5, 1)
            frame = frame.reformat(
                format=stream.codec_context.pix_fmt, dst_colorspace=matrix, dst_color_range=value_range
            )
        frame.pts, frame.time_base = tick, base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _tone(stream: Any, seconds: Fraction) -> Iterator[Any]:
    import av

    for first in range(0, int(seconds * 16_000), 1024):
        samples = np.sin(np.arange(first, first + 1024, dtype=np.float32) / 6)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
        yield from stream.encode(frame)
    yield from stream.encode(None)
