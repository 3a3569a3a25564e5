"""Frames of cameras and network streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from typing import Any

from keystep.errors import InputError, one_line
from keystep.extraction.video.clock import TrackClock
from keystep.extraction.video.decoding import import_av, may_jump
from keystep.extraction.video.frames import LARGEST, Frame, Renderer
from keystep.extraction.video.tracks import foremost, video_tracks

DEVICES = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's camera interface of each system."""
PATIENCE = (10.0, 10.0)
"""Timeouts in seconds for the connection and for the next data."""


class LiveInput:
    """A camera or network stream, see `open_camera`."""

    def __init__(self, name: str, address: str, kind: str | None) -> None:
        self.name, self._address, self._kind = name, address, kind

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive, the first one at time 0, until the input ends.

        A slow consumer gets buffered frames: cameras then drop frames, and streams fall behind. Frames without times
        are spaced by the stated frame rate. After a restart of the clock, frames continue without a gap.

        Raises:
            InputError: no such input, no answer, or a lost connection.
        """
        failure = import_av().FFmpegError
        with self._opened() as (container, stream):
            renderer, numbers = Renderer(stream.sample_aspect_ratio or Fraction(1), self.name), count()
            clock = TrackClock(stream.time_base, lambda: stream.average_rate, None, wraps=may_jump(container))
            first: Fraction | None = None
            try:
                for packet in container.demux(stream):
                    if packet.size:
                        clock.take(packet)
                    for decoded in self._decoded(stream, packet, clock):
                        time = clock.time(decoded)
                        if time is None:
                            continue
                        first = time if first is None else first
                        yield renderer.frame(next(numbers), time - first, decoded)
            except failure as error:
                raise InputError(
                    f"{self.name}: connection lost: {one_line(error.strerror, 80)}; reconnect it"
                ) from error
        if first is None:
            raise InputError(f"{self.name}: returned no frames; try another camera or address")

    def _decoded(self, stream: Any, packet: Any, clock: TrackClock) -> list[Any]:
        """Decode a packet; damaged ones are skipped."""
        try:
            frames: list[Any] = stream.codec_context.decode(packet)
        except import_av().FFmpegError:
            clock.lost(packet)
            return []
        return frames

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = import_av()
        options = {"fflags": "nobuffer", "rtsp_transport": "tcp"} if self._kind is None else {}
        try:
            container = av.open(self._address, format=self._kind, options=options, timeout=PATIENCE)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = one_line(getattr(error, "strerror", None) or error, 80)
            raise InputError(
                f"{self.name}: cannot be opened as a camera or stream ({reason}); try another one"
            ) from error
        with container:
            stream = foremost(video_tracks(self.name, container))
            stream.codec_context.options = {"max_pixels": str(LARGEST)}
            container.flags &= ~av.container.Flags.gen_pts.value  # which would wait for later packets
            stream.thread_type = "SLICE"  # frame threads would delay frames
            yield container, stream


def open_camera(index_or_url: str) -> LiveInput:
    """Return a camera or network stream, which is opened when its frames are requested.

    Cameras use Video4Linux on Linux. AVFoundation on macOS, DirectShow on Windows, and RTSP have not been tested.

    Args:
        index_or_url: number of a camera (0 is the first), or address of a stream (rtsp://, http://, udp://).

    Raises:
        InputError: neither a number nor an address, or no camera support on this system.
    """
    import_av()
    if not index_or_url.isdecimal():
        if "://" not in index_or_url:
            raise InputError(
                f"{index_or_url!r}: neither the number of a camera nor an address such as rtsp://host/path"
            )
        return LiveInput(index_or_url, index_or_url, None)
    kind = DEVICES.get(sys.platform)
    if kind is None:
        raise InputError(
            f"camera {index_or_url}: cameras are not supported on {sys.platform}; use the address of a stream"
        )
    return LiveInput(f"camera {index_or_url}", _device(kind, int(index_or_url)), kind)


def _device(kind: str, number: int) -> str:
    """FFmpeg's name of a camera."""
    if kind == "v4l2":
        return f"/dev/video{number}"
    if kind == "avfoundation":
        return str(number)
    av = import_av()
    try:
        cameras = [found.name for found in av.enumerate_input_devices(kind) if "video" in found.media_types]
    except (av.FFmpegError, ValueError):
        cameras = []
    if number >= len(cameras):
        raise InputError(f"camera {number}: this system has {len(cameras)} cameras, numbered from 0")
    return f"video={cameras[number]}"
