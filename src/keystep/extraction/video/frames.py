"""Frames of a video: their presentation time, and their pixels preprocessed for a backbone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from keystep.errors import InputError
from keystep.extraction.backbone import Picture

COARSEST = Fraction(1, 500)
"""Longest clock tick, in seconds, that rounds times. Longer ticks are the duration of a frame (AVI), and exact."""
LARGEST = 1 << 26
"""Largest number of pixels of a picture: 8192 x 8192."""
NARROWEST = 64
"""Largest aspect ratio of a picture."""


def check_size(where: str, height: int, width: int) -> None:
    """Refuse pictures that would take gigabytes before or after resizing.

    Args:
        where: the pictures are from, for messages.
        height: in pixels.
        width: in pixels.

    Raises:
        InputError: more than `LARGEST` pixels, or an aspect ratio above `NARROWEST`.
    """
    if height * width > LARGEST or max(height, width) > NARROWEST * max(1, min(height, width)):
        raise InputError(
            f"{where}: pictures of {width} x {height}, larger than 8192 x 8192 pixels or with an aspect ratio "
            f"above {NARROWEST}; rescale them first"
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame.

    It keeps the decoded picture in full size, so store the results of `rgb` rather than frames. The frames of one
    iteration share a scaler and are not thread-safe.

    Attributes:
        index: position among the decodable frames of the file, in order of presentation, from 0.
        time: exact seconds from the start of the file.
        height: upright, in square pixels.
        width: upright, in square pixels.
        render: implementation of `rgb`.
        slack: possible error of ``time`` in seconds, half a tick of the file's clock.
    """

    index: int
    time: Fraction
    height: int
    width: int
    render: Callable[[Picture], np.ndarray] = field(repr=False)
    slack: Fraction = Fraction(0)

    def rgb(self, picture: Picture) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB in C order: upright, resized and centre-cropped according to ``picture``.

        Raises:
            InputError: FFmpeg cannot convert the picture.
        """
        return self.render(picture)


class Orientation(NamedTuple):
    """Transformation of stored pictures to upright ones: transpose, then flip."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the transformation, given those before; and vice versa."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return an upright view of (H, W, 3)."""
        array = array.swapaxes(0, 1) if self.transposed else array
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def _turned(angle: int) -> Orientation:
    """Orientation of pictures that are turned counter-clockwise by the nearest multiple of 90 degrees."""
    quarter = round(angle / 90) % 4
    return Orientation(quarter % 2 == 1, flip_rows=quarter in (1, 2), flip_columns=quarter in (2, 3))


def orientation(matrix: bytes) -> Orientation:
    """Nearest rotation by a multiple of 90 degrees, possibly mirrored, to an FFmpeg display matrix.

    The matrix is nine native 32-bit integers (a, b, u, c, d, v, x, y, w), which map column p and row q of the stored
    picture to column a p + c q and row b p + d q (libavutil/display.h).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, flip_rows=d < 0, flip_columns=a < 0)
    return Orientation(True, flip_rows=b < 0, flip_columns=c < 0)


class Renderer:
    """Converts decoded frames of a video to upright RGB of a given size.

    Colours follow the matrix and range stated by the frame. Without a matrix, BT.709 is used for high definition and
    BT.601 below, as in players. High dynamic range (PQ, HLG) is not tone-mapped, and interlaced video is not
    deinterlaced.

    Args:
        pixel_aspect: width of a pixel divided by its height.
        where: the pictures are from, for messages.
    """

    def __init__(self, pixel_aspect: Fraction, where: str = "video") -> None:
        self.pixel_aspect, self.where = pixel_aspect, where
        self._orientations: dict[int, Orientation] = {}
        self._scalers: dict[Picture, Any] = {}

    def frame(self, index: int, time: Fraction, decoded: Any) -> Frame:
        """Wrap a PyAV frame.

        Args:
            index: of the frame.
            time: exact seconds from the start of the file.
            decoded: the PyAV frame.

        Raises:
            InputError: the picture is too large.
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
        """Read once per angle, as access to the side data of a PyAV frame creates a reference cycle."""
        try:
            angle = decoded.rotation
        except ValueError:  # a matrix of zeros has no angle
            return Orientation()
        if angle not in self._orientations:  # 0 may be a flip as well
            try:
                matrix = decoded.side_data.get("DISPLAYMATRIX")
                self._orientations[angle] = Orientation() if matrix is None else orientation(bytes(matrix))
            except ValueError:  # PyAV does not know one of the picture's other data, such as Exif
                self._orientations[angle] = _turned(angle)
        return self._orientations[angle]

    def _render(self, decoded: Any, turn: Orientation, size: tuple[int, int], picture: Picture) -> np.ndarray:
        from av.error import FFmpegError
        from av.video.reformatter import Interpolation, VideoReformatter

        if picture not in self._scalers:
            self._scalers[picture] = VideoReformatter()
        resized = resized_size(*size, picture)
        height, width = turn.size(*resized)
        exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
        try:
            scaled = self._scalers[picture].reformat(
                decoded,
                width=width,
                height=height,
                format="rgb24",
                src_colorspace=_matrix(decoded),
                interpolation=Interpolation[picture.interpolation.upper()] | exact,
                threads=1,
            )
        except (FFmpegError, ValueError) as error:
            raise InputError(f"{self.where}: a picture cannot be converted: {error}") from error
        top, left = (resized[0] - picture.height) // 2, (resized[1] - picture.width) // 2
        upright = turn.apply(scaled.to_ndarray())
        return np.ascontiguousarray(upright[top : top + picture.height, left : left + picture.width])


def resized_size(height: int, width: int, picture: Picture) -> tuple[int, int]:
    """Height and width of a frame before cropping; the longer side is rounded down."""
    if picture.short is None:
        return picture.height, picture.width
    shorter = min(height, width)
    return height * picture.short // shorter, width * picture.short // shorter


MATRICES = (1, 4, 5, 6, 7, 9, 10)
"""FFmpeg's numbers of the matrices that its scaler supports: BT.709, FCC, BT.601 (two), SMPTE 240M, BT.2020 (two)."""


def _matrix(decoded: Any) -> int | None:
    """Colour matrix for the conversion; None: stated by the frame, or not needed."""
    if decoded.format.is_rgb or decoded.colorspace in MATRICES:
        return None
    return 1 if decoded.width >= 1280 or decoded.height > 576 else 5
