"""The sound of a recording, for a file that browsers can play."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from keystep.extraction.video.decoding import import_av

RATE = 48_000


class Sound:
    """The first track of sound of a file, encoded as AAC beside the pictures of another one; a file may have none.

    Sound that cannot be decoded is left out; it is never a reason to have no pictures.

    Args:
        path: of the file.
        start: seconds on the file's clock that count as 0, those of its pictures.
        container: of PyAV, to be written to; nothing has been written yet.
    """

    def __init__(self, path: Path, start: Fraction, container: Any) -> None:
        av = import_av()
        self._container, self._start, self._errors = container, start, (av.FFmpegError, ValueError)
        self._source = av.open(f"file:{path}", metadata_errors="ignore")
        tracks = [track for track in self._source.streams.audio if track.codec_context is not None]
        self._track = tracks[0] if tracks and "aac" in av.codecs_available else None
        self._stream: Any = None
        self._next: tuple[Fraction, Any] | None = None
        self._frames: Iterator[tuple[Fraction, Any]] = iter(())
        if self._track is not None:
            layout = "mono" if self._track.codec_context.channels == 1 else "stereo"
            self._stream = container.add_stream("aac", rate=RATE, layout=layout)
            self._frames = self._decoded()
            self._next = next(self._frames, None)

    def until(self, moment: Fraction | None = None) -> None:
        """Write what sounds before a moment; by default all that is left, after which the encoder is closed."""
        while self._next is not None and (moment is None or self._next[0] < moment):
            self._encode(self._next[1])
            self._next = next(self._frames, None)
        if moment is None and self._stream is not None:
            self._encode(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file that is read."""
        self._source.close()

    def _encode(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._errors:  # such as a track that changes its channels
            self._next, self._frames = None, iter(())

    def _decoded(self) -> Iterator[tuple[Fraction, Any]]:
        """(seconds, frame) in order, from 0 on."""
        end = Fraction(0)
        for packet in self._packets():
            try:
                frames = packet.decode()
            except self._errors:
                continue
            for frame in frames:
                if frame.pts is None:
                    continue
                time = frame.pts * frame.time_base - self._start
                if time < end:
                    continue
                end = time
                frame.pts, frame.time_base = round(time * frame.sample_rate), Fraction(1, frame.sample_rate)
                yield time, frame

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._source.demux(self._track)
        except self._errors:
            return
