"""One picture of a video: when it is shown, and its pixels as a backbone wants them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np

from keystep.errors import InputError
from keystep.extraction.backbone import Picture

COARSEST = Fraction(1, 500)
"""Seconds of a tick to which times were rounded; longer ticks are a frame's own duration (AVI), and exact."""
LARGEST = 1 << 26
"""Pixels that a picture may have: 8192 x 8192."""
NARROWEST = 64
"""How many times longer than the other one a picture's longer side may be."""


def check_size(where: str, height: int, width: int) -> None:
    """Refuse pictures that would take gigabytes, as they are or once they are resized.

    Raises:
        InputError: more than `LARGEST` pixels, or much longer than wide, or wider than long.
    """
    if height * width > LARGEST or max(height, width) > NARROWEST * max(1, min(height, width)):
        raise InputError(
            f"{where}: pictures of {width} x {height}, larger than 8192 x 8192 pixels or narrower than 1 in "
            f"{NARROWEST}; scale them before"
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame.

    index: place in the order of presentation, from 0, among the frames of the file that can be decoded.
    time: seconds from the file's start, exact. height, width: upright, with square pixels.
    render: what `rgb` calls. slack: seconds by which ``time`` may be off because files count in ticks, half a tick.

    A frame holds its decoded picture in full size: keep many of `rgb`, not many frames. The frames of one iteration
    share a scaler, so that two threads may not ask them at once.
    """

    index: int
    time: Fraction
    height: int
    width: int
    render: Callable[[Picture], np.ndarray] = field(repr=False)
    slack: Fraction = Fraction(0)

    def rgb(self, picture: Picture) -> np.ndarray:
        """(H, W, 3) uint8 RGB in C order: upright, resized and cropped in the middle as ``picture`` says."""
        return self.render(picture)


class FrameSource(Protocol):
    """Where frames come from."""

    def frames(self) -> Iterator[Frame]:
        """All frames in the order of their times, one at a time: memory does not grow with the length."""
        ...

    def at(self, times: Iterable[Fraction]) -> Iterator[Frame]:
        """For each moment, in seconds, the frame that is shown then: the latest whose time is not behind it.

        Before the first frame it is the first, behind the last one the last. Times may come in any order.
        """
        ...


class Orientation(NamedTuple):
    """How stored pictures become upright ones: transposed, then flipped."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width behind the turn of what had these before it; and the other way round."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """A view of (H, W, 3) that is upright."""
        array = array.swapaxes(0, 1) if self.transposed else array
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def orientation(matrix: bytes) -> Orientation:
    """The quarter turn, perhaps mirrored, nearest to an FFmpeg display matrix.

    The matrix is nine native 32-bit integers (a, b, u, c, d, v, x, y, w); column p and row q of the stored picture go
    to column a p + c q and row b p + d q (libavutil/display.h).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, flip_rows=d < 0, flip_columns=a < 0)
    return Orientation(True, flip_rows=b < 0, flip_columns=c < 0)


class Renderer:
    """Turns decoded frames of one video upright and into RGB of the size that is asked for.

    Colours follow the matrix and range that the frame states. Where it states no matrix, BT.709 is taken for high
    definition and BT.601 below, as players do. High dynamic range (PQ, HLG) is not mapped to a screen's; fields of
    interlaced video are not taken apart.

    Args:
        pixel_aspect: width of a pixel over its height.
        where: what the pictures are of, for messages.
    """

    def __init__(self, pixel_aspect: Fraction, where: str = "video") -> None:
        self.pixel_aspect, self.where = pixel_aspect, where
        self._orientations: dict[int, Orientation] = {}
        self._scalers: dict[Picture, Any] = {}

    def frame(self, index: int, time: Fraction, decoded: Any) -> Frame:
        """A PyAV frame as ours.

        Raises:
            InputError: it is larger than can be handled.
        """
        turn = self._orientation(decoded)
        square = decoded.width if self.pixel_aspect == 1 else max(1, round(decoded.width * self.pixel_aspect))
        height, width = turn.size(decoded.height, square)
        check_size(self.where, height, width)
        slack = decoded.time_base / 2 if decoded.time_base and decoded.time_base <= COARSEST else Fraction(0)
        return Frame(
            index, time, height, width, lambda picture: self._render(decoded, turn, (height, width), picture), slack
        )

    def _orientation(self, decoded: Any) -> Orientation:
        """Read once per angle: asking a PyAV frame for its side data ties it to itself until the next collection."""
        try:
            angle = decoded.rotation
        except ValueError:  # a matrix of zeros turns by no angle
            return Orientation()
        if angle not in self._orientations:  # 0 may be a flip, too
            matrix = decoded.side_data.get("DISPLAYMATRIX")
            self._orientations[angle] = Orientation() if matrix is None else orientation(bytes(matrix))
        return self._orientations[angle]

    def _render(self, decoded: Any, turn: Orientation, size: tuple[int, int], picture: Picture) -> np.ndarray:
        from av.video.reformatter import Interpolation, VideoReformatter

        if picture not in self._scalers:
            self._scalers[picture] = VideoReformatter()
        resized = resized_size(*size, picture)
        height, width = turn.size(*resized)
        exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
        scaled = self._scalers[picture].reformat(
            decoded,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_matrix(decoded),
            interpolation=Interpolation[picture.interpolation.upper()] | exact,
            threads=1,
        )
        top, left = (resized[0] - picture.height) // 2, (resized[1] - picture.width) // 2
        upright = turn.apply(scaled.to_ndarray())
        return np.ascontiguousarray(upright[top : top + picture.height, left : left + picture.width])


def resized_size(height: int, width: int, picture: Picture) -> tuple[int, int]:
    """Height and width of a frame before it is cropped: the longer side is cut to whole pixels."""
    if picture.short is None:
        return picture.height, picture.width
    shorter = min(height, width)
    return height * picture.short // shorter, width * picture.short // shorter


MATRICES = (1, 4, 5, 6, 7, 9, 10)
"""FFmpeg's numbers of the matrices that its scaler knows: BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020 twice."""


def _matrix(decoded: Any) -> int | None:
    """The matrix to convert with; None where the frame says it itself or has none."""
    if decoded.format.is_rgb or decoded.colorspace in MATRICES:
        return None
    return 1 if decoded.width >= 1280 or decoded.height > 576 else 5
