"""Cameras and streams from the network: frames as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from typing import Any

from keystep.errors import InputError, one_line
from keystep.extraction.video.clock import TrackClock
from keystep.extraction.video.decoding import import_av, may_jump
from keystep.extraction.video.frames import LARGEST, Frame, FrameSource, Renderer
from keystep.extraction.video.tracks import foremost, video_tracks

DEVICES = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's way to cameras on each system."""
PATIENCE = (10.0, 10.0)
"""Seconds to wait for a connection, and for the next piece of it."""


class LiveInput:
    """A camera or stream as a `FrameSource`, see `open_camera`; there is no way back in it."""

    def __init__(self, name: str, address: str, kind: str | None) -> None:
        self.name, self._address, self._kind = name, address, kind

    def frames(self) -> Iterator[Frame]:
        """Frames as they come, the first one at time 0; ends when the input does.

        Who asks late gets what the input has kept meanwhile: cameras drop frames then, streams fall behind. Frames that
        come without times are taken to follow each other at the stated rate; behind a clock that starts again, they
        follow at once.

        Raises:
            InputError: no such input, it does not answer, or it breaks off.
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
                raise InputError(f"{self.name}: broke off: {one_line(error.strerror, 80)}; connect it again") from error
        if first is None:
            raise InputError(f"{self.name}: gave not a single frame; try another camera or address")

    def at(self, times: Iterable[Fraction]) -> Iterator[Frame]:
        """The frame shown at each moment; moments have to rise.

        Raises:
            InputError: a moment before an earlier one.
        """
        frames = self.frames()
        shown, before = next(frames), None
        coming = next(frames, None)
        for moment in times:
            if before is not None and moment < before:
                raise InputError(f"{self.name}: cannot go back from {float(before)} s to {float(moment)} s: it is live")
            before = moment
            while coming is not None and coming.time <= moment:
                shown, coming = coming, next(frames, None)
            yield shown

    def _decoded(self, stream: Any, packet: Any, clock: TrackClock) -> list[Any]:
        """A piece that came in damaged is left out."""
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
            said = one_line(getattr(error, "strerror", None) or error, 80)
            raise InputError(
                f"{self.name}: no camera or stream that can be opened ({said}); try another one"
            ) from error
        with container:
            stream = foremost(video_tracks(self.name, container))
            stream.codec_context.options = {"max_pixels": str(LARGEST)}
            container.flags &= ~av.container.Flags.gen_pts.value  # which would wait for packets to come
            stream.thread_type = "SLICE"  # threads that take a frame each would hold back as many frames
            yield container, stream


def open_camera(index_or_url: str) -> FrameSource:
    """A camera by its number (0 is the first), or a stream by its address (rtsp://, http://, udp://).

    It is opened when its frames are asked for. Cameras are reached by Video4Linux on Linux; AVFoundation on macOS and
    DirectShow on Windows are there, but have not been tested, and nor has RTSP.

    Raises:
        InputError: neither a number nor an address, a system without a known way to cameras.
    """
    import_av()
    if not index_or_url.isdecimal():
        if "://" not in index_or_url:
            raise InputError(f"{index_or_url!r}: neither a camera's number nor an address such as rtsp://host/path")
        return LiveInput(index_or_url, index_or_url, None)
    kind = DEVICES.get(sys.platform)
    if kind is None:
        raise InputError(
            f"camera {index_or_url}: no way to cameras is known on {sys.platform}; give a stream's address"
        )
    return LiveInput(f"camera {index_or_url}", _device(kind, int(index_or_url)), kind)


def _device(kind: str, number: int) -> str:
    """What FFmpeg calls a camera."""
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
        raise InputError(f"camera {number}: this system has {len(cameras)} cameras, counted from 0")
    return f"video={cameras[number]}"
