"""Which of a file's video tracks is the recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from keystep.errors import InputError

MOST_PACKETS = 10_000
"""Packets that are looked at to tell tracks that move from still pictures."""


def video_tracks(name: str, container: Any) -> list[Any]:
    """The video tracks that can be decoded and are no cover pictures.

    Raises:
        InputError: there are none.
    """
    tracks = _recordings(container)
    if container.format.name == "tty" or not tracks:  # tty: FFmpeg's reading of plain text as a drawing of letters
        kinds = {track.type for track in container.streams}
        found = "sound but no video" if "audio" in kinds else "no video"
        raise InputError(f"{name}: holds {found}; give a file with a video track")
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise InputError(
            f"{name}: its video is of a codec that this PyAV cannot decode; convert it, for example to H.264 in MP4"
        )
    return known


def choose(container: Any, tracks: Sequence[Any]) -> Any:
    """The track that moves, rather than a still picture; of several the default one, then the largest.

    Reads from the container, as far as it takes to see a second picture of each track.
    """
    from av.error import FFmpegError

    seen: Counter[int] = Counter()
    try:
        for number, packet in enumerate(container.demux(*tracks)):
            seen[packet.stream_index] += packet.size > 0
            if number >= MOST_PACKETS or all(seen[track.index] > 1 for track in tracks):
                break
    except FFmpegError:
        pass  # what is damaged is told where it is decoded
    return foremost([track for track in tracks if seen[track.index] > 1] or tracks)


def foremost(tracks: Sequence[Any]) -> Any:
    """The default track, then the largest."""
    from av.stream import Disposition

    def rank(track: Any) -> tuple[bool, int]:
        context = track.codec_context
        return bool(track.disposition & Disposition.default), context.height * context.width

    return max(tracks, key=rank)


def about_others(container: Any, taken: Any) -> list[str]:
    """A note on the video tracks that were not taken; cover pictures are none."""
    rest = [track for track in _recordings(container) if track.index != taken.index]
    if not rest:
        return []
    left = ", ".join(_described(track) for track in rest)
    return [
        f"has {len(rest) + 1} video tracks: taken is {_described(taken)}, not {left}; to take another, copy it to a "
        f"file of its own (ffmpeg -i FILE -map 0:{rest[0].index} -c copy NEW.mkv)"
    ]


def _recordings(container: Any) -> list[Any]:
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    return [track for track in container.streams if track.type == "video" and not track.disposition & covers]


def _described(track: Any) -> str:
    context = track.codec_context
    return f"track {track.index}" + (f" of {context.width} x {context.height}" if context is not None else "")
