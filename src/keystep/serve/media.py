"""Recordings for the page: single frames as pictures, and files that browsers can play."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

from keystep.errors import InputError, one_line
from keystep.extraction.backbone import Picture
from keystep.extraction.video import VideoFile, open_video
from keystep.extraction.video.decoding import import_av, opened
from keystep.extraction.video.frames import Frame, Renderer
from keystep.files import replacing
from keystep.serve.sound import Sound
from keystep.serve.workspace import Workspace, stamp

log = logging.getLogger(__name__)

PLAYED = {
    ".mp4": {"h264", "vp9", "av1"},
    ".m4v": {"h264"},
    ".webm": {"vp8", "vp9", "av1"},
}
"""Codecs that the common browsers play, by the ending of the file."""
EIGHT_BITS = {"yuv420p", "yuvj420p"}
"""Formats of H.264 that they play; others have more colours than their decoders know."""
MOST_THUMBNAILS = 2_000
"""Pictures that are kept in memory, some kilobytes each."""
MOST_FILES = 64
PROXY_HEIGHT = 720
ENCODERS = ("libx264", "libopenh264")
ROUNDED = Fraction(1, 1000)
"""Seconds by which a file may have rounded its times."""
CLOCK = 90_000
"""Ticks a second of a proxy file."""


@dataclass(frozen=True)
class Proxy:
    """A file that browsers can play, or how far it is; ``progress`` from 0 to 1."""

    path: Path | None
    progress: float = 0.0


class MediaFiles:
    """Pictures and playable files of a workspace's recordings; every method may be called from any thread.

    Args:
        publish: told ``proxy`` {video, progress} while one is made.
    """

    def __init__(self, workspace: Workspace, publish: Callable[[str, dict[str, Any]], None]) -> None:
        self.workspace, self._publish = workspace, publish
        self._lock = threading.Lock()
        self._files: OrderedDict[str, VideoFile] = OrderedDict()
        self._pictures: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._playable: dict[str, bool] = {}
        self._progress: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._worker: threading.Thread | None = None
        self._closed = False

    def playable(self, name: str) -> bool:
        """Whether browsers play a video's file as it is; False without one, or where it cannot be read."""
        path = self.workspace.recording(name)
        if path is None:
            return False
        if name not in self._playable:
            self._playable[name] = _playable(path)
        return self._playable[name]

    def thumbnail(self, name: str, slot: int, height: int) -> bytes:
        """A JPEG of what a slot's moment shows, at most so many pixels high.

        Raises:
            InputError: no recording, or one that cannot be read.
        """
        key = (name, slot, height)
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        made = _jpeg(_glance(self._file(name), self.workspace.seconds(name, slot)), height)
        with self._lock:
            self._pictures[key] = made
            while len(self._pictures) > MOST_THUMBNAILS:
                self._pictures.popitem(last=False)
        return made

    def proxy(self, name: str) -> Proxy:
        """A video's file as browsers play it; asked for the first time, it is made in the background.

        Raises:
            InputError: it cannot be made.
        """
        path = self._proxy_path(name)
        with self._lock:
            if path.is_file() and not path.is_symlink():
                return Proxy(path, 1.0)
            if name in self._failed:
                raise InputError(self._failed[name])
            self._progress.setdefault(name, 0.0)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="proxies", daemon=True)
                self._worker.start()
            return Proxy(None, self._progress[name])

    def close(self) -> None:
        """Stop making files; half of one is removed."""
        with self._lock:
            self._closed, worker = True, self._worker
        if worker is not None:
            worker.join()

    def _recording(self, name: str) -> Path:
        path = self.workspace.recording(name)
        if path is None:
            raise InputError(f"{name}: there is no recording of this video")
        return path

    def _file(self, name: str) -> VideoFile:
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                return self._files[name]
        file = open_video(self._recording(name))
        with self._lock:
            self._files[name] = file
            while len(self._files) > MOST_FILES:
                self._files.popitem(last=False)
        return file

    def _proxy_path(self, name: str) -> Path:
        return self.workspace.work / "proxies" / stamp(self._recording(name)) / f"{name}.mp4"

    def _work(self) -> None:
        """Make what was asked for, one file after the other."""
        while True:
            with self._lock:
                name = next(iter(self._progress), None)
                if name is None or self._closed:
                    self._worker = None
                    return
            try:
                with replacing(self._proxy_path(name)) as temporary:
                    transcode(self._file(name), temporary, lambda share, name=name: self._told(name, share))  # type: ignore[misc]
            except _Ending:
                continue
            except Exception as error:  # a background thread has nobody above it who could tell
                log.warning("%s: no proxy: %s", name, error)
                self._failed[name] = str(error) if isinstance(error, InputError) else f"{name}: {one_line(error)}"
            with self._lock:
                self._progress.pop(name)
            self._tell(name, 1.0)

    def _told(self, name: str, share: float) -> None:
        if self._closed:
            raise _Ending
        if share - self._progress[name] >= 0.01:
            self._progress[name] = share
            self._tell(name, share)

    def _tell(self, name: str, share: float) -> None:
        self._publish("proxy", {"video": self.workspace.number(name), "progress": share})


class _Ending(Exception):
    """The server ends."""


def transcode(file: VideoFile, out: Path, progress: Callable[[float], None]) -> None:
    """Write a video as H.264 in MP4, upright, at most `PROXY_HEIGHT` high, with its sound as AAC; times stay the same.

    Raises:
        InputError: this PyAV has no encoder for it, or the file cannot be read.
    """
    av = import_av()
    name = next((name for name in ENCODERS if name in av.codecs_available), None)
    if name is None:
        raise InputError(
            f"this PyAV has no encoder for H.264 ({', '.join(ENCODERS)}); convert the video by other means"
        )
    info = file.info
    height = max(2, min(PROXY_HEIGHT, info.height) // 2 * 2)
    width = max(2, round(info.width * height / info.height / 2) * 2)
    picture, rate = Picture(height=height, width=width), round(info.usual_rate or 25) or 1
    with av.open(f"file:{out}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"preset": "veryfast", "crf": "26"} if name == "libx264" else {}
        stream = container.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        stream.gop_size = 2 * rate
        with Sound(info.path, info.start, container) as sound:
            for frame in file.frames():
                sound.until(frame.time)
                shown = av.VideoFrame.from_ndarray(frame.rgb(picture), format="rgb24")
                shown.pts, shown.time_base = round(frame.time * CLOCK), Fraction(1, CLOCK)
                container.mux(stream.encode(shown))
                progress(min(1.0, float(frame.time / info.duration)) if info.duration else 0.0)
            container.mux(stream.encode(None))
            sound.until()


def _playable(path: Path) -> bool:
    try:
        with opened(path) as track:
            context = track.stream.codec_context
            codec = context.codec.canonical_name
            eight = codec != "h264" or context.pix_fmt in EIGHT_BITS
            return codec in PLAYED.get(path.suffix.lower(), ()) and eight
    except InputError:
        return False


def _glance(file: VideoFile, moment: Fraction) -> Frame:
    """The frame shown at a moment, by the file's own index where that leads before it; a preview, not a measurement."""
    info, moment = file.info, moment + ROUNDED
    if info.timed and moment > 0:
        with opened(info.path) as track:
            aspect = track.stream.sample_aspect_ratio or Fraction(1)
            found = None
            if track.seek(int((moment + info.start) / track.stream.time_base)):
                for time, decoded in track.timed(track.packets()):
                    if found is not None and time - info.start > moment:
                        break
                    found = time, decoded
            if found is not None and found[0] - info.start <= moment:
                return Renderer(aspect, str(info.path)).frame(0, found[0] - info.start, found[1])
    return next(iter(file.at([moment])))


def _jpeg(frame: Frame, height: int) -> bytes:
    from PIL import Image

    height = min(height, frame.height)
    width = max(1, round(frame.width * height / frame.height))
    picture = BytesIO()
    Image.fromarray(frame.rgb(Picture(height=height, width=width))).save(picture, "JPEG", quality=80)
    return picture.getvalue()
