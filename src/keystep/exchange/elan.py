"""ELAN's .eaf, through pympi-ling: one tier of segments, one file a video (https://archive.mpi.nl/tla/elan)."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from keystep.errors import InputError, named, one_line, quoted
from keystep.exchange.formats import Found, Recording, TimedLabel, missing_extra, stem_of
from keystep.exchange.markup import parse_xml

TIER = "steps"


class Elan:
    """A tier of annotations with whole milliseconds."""

    ending = ".eaf"
    loses = "elan counts milliseconds, and holds no classes without a segment"
    needs_frames = needs_video = False

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.eaf" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """One tier, `TIER`, and the video as linked file where it is given; no author."""
        elan = _pympi()
        for recording in recordings:
            document = elan.Eaf(author="")
            document.add_tier(TIER)
            document.remove_tier("default")
            if recording.video is not None:
                kind = mimetypes.guess_type(recording.video.name)[0] or "video/mp4"
                beside = f"./{quote(recording.video.name)}"  # no path of this machine goes out
                document.add_linked_file(beside, beside, kind)
            for start, end, label in recording.stretches:
                first, stop = round(start * 1000), round(end * 1000)
                if first < stop:
                    document.add_annotation(TIER, first, stop, label)
            document.to_file(str(folder / f"{recording.name}.eaf"))

    def read(self, path: Path, track: str | None) -> list[Found]:
        """The one tier that has annotations, `TIER` of several, or the one that is asked for."""
        elan = _pympi()
        parse_xml(path, "ANNOTATION_DOCUMENT")
        try:
            document = elan.Eaf(str(path), suppress_version_warning=True)
            units = document.header.get("TIME_UNITS", "milliseconds")
            filled = {name: len(tier[0]) + len(tier[1]) for name, tier in document.tiers.items() if tier[0] or tier[1]}
            tier = _tier(path, filled, track)
            rows = document.get_annotation_data_for_tier(tier) if filled else []
            media = document.media_descriptors
        except InputError:
            raise
        except Exception as error:  # pympi raises whatever a lookup in a damaged document does
            what = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"{path}: not an ELAN document: {what}") from error
        if units != "milliseconds":
            raise InputError(f"{path}: counts {quoted(units)}; only milliseconds are read: save it again with ELAN")
        origin = _origin(path, media)
        timed = [(start, end, label) for start, end, label, *_ in rows if start is not None and end is not None]
        stretches = [TimedLabel(origin + Fraction(a, 1000), origin + Fraction(b, 1000), label) for a, b, label in timed]
        notes = []
        if len(timed) < len(rows):
            notes.append(f"{len(rows) - len(timed)} annotations without times of their own were left out")
        if len(filled) > 1:
            others = ", ".join(named(name) for name in filled if name != tier)
            notes.append(f"only the tier {named(tier)} was read, not {others[:200]}")
        if origin:
            notes.append(f"times are {float(origin):g} s later than in ELAN, where the video is cut by that much")
        names = (path.stem, *(stem_of(one.get("MEDIA_URL")) for one in media))
        return [Found(tuple(name for name in names if name), tuple(stretches), notes=tuple(notes))]


def _pympi() -> ModuleType:
    try:
        import pympi
    except ImportError as error:
        raise missing_extra("reading and writing .eaf", "pympi-ling") from error
    found: ModuleType = pympi
    return found


def _tier(path: Path, filled: dict[str, int], track: str | None) -> str:
    """Which tier to read.

    Raises:
        InputError: it is not there, or nothing says which of several.
    """
    known = ", ".join(f"{named(name)} ({count})" for name, count in filled.items())
    if track is not None and track not in filled:
        raise InputError(f"{path}: no annotations on a tier {named(track)}; its tiers: {known[:300] or 'none'}")
    if track is None and len(filled) > 1 and TIER not in filled:
        raise InputError(f"{path}: annotations on {len(filled)} tiers; give --track, one of {known[:300]}")
    return track or (TIER if TIER in filled else next(iter(filled), TIER))


def _origin(path: Path, media: Sequence[dict[str, Any]]) -> Fraction:
    """Seconds of the video at which ELAN's time begins."""
    text = str(next(iter(media), {}).get("TIME_ORIGIN") or 0)
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise InputError(f"{path}: TIME_ORIGIN {quoted(text)} is no whole number of milliseconds")
    return Fraction(int(text), 1000)
