"""Selection of the main video track of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from keystep.errors import InputError

MOST_PACKETS = 10_000
"""Packets read to tell moving tracks from still pictures."""


def video_tracks(name: str, container: Any) -> list[Any]:
    """List the video tracks that can be decoded, except for cover pictures.

    Args:
        name: of the file, for messages.
        container: the open PyAV container.

    Raises:
        InputError: there are none.
    """
    tracks = _recordings(container)
    if container.format.name == "tty" or not tracks:  # FFmpeg reads plain text as a "tty" video
        kinds = {track.type for track in container.streams}
        found = "sound but no video" if "audio" in kinds else "no video"
        raise InputError(f"{name}: contains {found}; use a file with a video track")
    known = [track for track in tracks if track.codec_context is not None]
    if not known:
        raise InputError(
            f"{name}: its video codec is not supported by this PyAV; convert it, for example to H.264 in MP4"
        )
    return known


def choose(container: Any, tracks: Sequence[Any]) -> Any:
    """Choose the main track: moving ones first, then the default one, then the largest.

    Reads packets from the container, until each track has a second picture.
    """
    from av.error import FFmpegError

    seen: Counter[int] = Counter()
    try:
        for number, packet in enumerate(container.demux(*tracks)):
            seen[packet.stream_index] += packet.size > 0
            if number >= MOST_PACKETS or all(seen[track.index] > 1 for track in tracks):
                break
    except FFmpegError:
        pass  # damage is reported by decoding
    return foremost([track for track in tracks if seen[track.index] > 1] or tracks)


def foremost(tracks: Sequence[Any]) -> Any:
    """Choose the default track, or else the largest."""
    from av.stream import Disposition

    def rank(track: Any) -> tuple[bool, int]:
        context = track.codec_context
        return bool(track.disposition & Disposition.default), context.height * context.width

    return max(tracks, key=rank)


def note_other_tracks(container: Any, chosen: Any) -> list[str]:
    """Note about video tracks that were not chosen, except for cover pictures."""
    rest = [track for track in _recordings(container) if track.index != chosen.index]
    if not rest:
        return []
    left = ", ".join(_description(track) for track in rest)
    return [
        f"has {len(rest) + 1} video tracks: uses {_description(chosen)}, not {left}; to use another, copy it to a "
        f"separate file (ffmpeg -i FILE -map 0:{rest[0].index} -c copy NEW.mkv)"
    ]


def _recordings(container: Any) -> list[Any]:
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    return [track for track in container.streams if track.type == "video" and not track.disposition & covers]


def _description(track: Any) -> str:
    context = track.codec_context
    return f"track {track.index}" + (f" of {context.width} x {context.height}" if context is not None else "")
