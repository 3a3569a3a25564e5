"""The videos of a feature folder: their files, and how their frames count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

from keystep.data.folder import FeatureFolder
from keystep.exchange.formats import Found, Frames
from keystep.extraction.listing import find_videos
from keystep.extraction.video import open_video
from keystep.reading import read_json
from keystep.types import AnyRate, parse_rate


class Media:
    """The files of videos, and their frames.

    Args:
        folder: whose videos they are.
        videos: name -> file, or a folder of them, ``NAME.mp4`` or with another ending.
        frame_rate: frames a second of all videos, whatever files say.

    Raises:
        InputError: no such folder, no video in it, or no rate.
    """

    def __init__(
        self, folder: FeatureFolder, videos: Path | Mapping[str, Path] | None, frame_rate: AnyRate | None
    ) -> None:
        self.folder = folder
        self.files = find_videos([videos]) if isinstance(videos, Path) else dict(videos or {})
        self.rate = None if frame_rate is None else parse_rate(frame_rate)
        self._known: dict[str, Frames | None] = {}

    def without_file(self, names: Iterable[str]) -> list[str]:
        """Those of the names that no file is there for."""
        return [name for name in names if name not in self.files]

    def frames(self, name: str) -> Frames | None:
        """By what was given, else the file, else what the extraction wrote down; None where nothing says.

        Raises:
            InputError: a file that cannot be read as a video.
        """
        if name not in self._known:
            self._known[name] = self._of_file(name) if name in self.files else self._recorded(name)
        found = self._known[name]
        if self.rate is None:
            return found
        begins = Fraction(0) if found is None else found.begins
        size = (0, 0) if found is None else (found.height, found.width)
        return Frames(self.rate, begins, None, *size)

    def rate_of(self, found: Found, name: str) -> Fraction | None:
        """Frames a second of a file's annotation: as given, else as the annotation says, else as the video has."""
        frames = self.frames(name)
        return self.rate or found.rate or (None if frames is None else frames.rate)

    def _of_file(self, name: str) -> Frames | None:
        info = open_video(self.files[name]).info
        if info.rate is None:
            return None
        return Frames(info.rate, info.begins, info.frames, info.height, info.width)

    def _recorded(self, name: str) -> Frames | None:
        """By ``features/<video>.json``, as `keystep extract` writes it."""
        path = self.folder.root / "features" / f"{name}.json"
        record = read_json(path) if path.exists() else {}
        rate, count, size = (record.get(f"source_{key}") for key in ("rate", "frames", "size"))
        if not isinstance(rate, str):
            return None
        sized = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        width, height = size if sized and isinstance(size, list) else (0, 0)
        return Frames(parse_rate(rate), Fraction(0), count if type(count) is int else None, height, width)
