"""WebVTT: one cue a segment, one file a video (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from keystep.errors import InputError, quoted
from keystep.exchange.formats import Found, Recording, TimedLabel
from keystep.reading import read_text

STAMP = r"(?:(\d{2,6}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
TIMING = re.compile(rf"\s*{STAMP}\s*-->\s*{STAMP}(?:[ \t]+(.*))?")


class WebVtt:
    """Cues of milliseconds whose text is the label."""

    ending = ".vtt"
    loses = "webvtt counts milliseconds, and holds no classes without a segment"
    needs_frames = needs_video = False

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.vtt" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Numbered cues with escaped text."""
        for recording in recordings:
            cues = [
                f"{index}\n{_stamp(start)} --> {_stamp(end)}\n{html.escape(label, quote=False)}\n"
                for index, (start, end, label) in enumerate(recording.stretches, start=1)
            ]
            (folder / f"{recording.name}.vtt").write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")

    def read(self, path: Path, track: str | None) -> list[Found]:
        """Cues in any order; tags in them are dropped, characters unescaped, lines joined."""
        lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if not re.fullmatch(r"WEBVTT(?:[ \t].*)?", lines[0]):
            raise InputError(f"{path}: not a WebVTT file: the first line is {quoted(lines[0])}, not WEBVTT")
        stretches, settings, tags, empty, number = list[TimedLabel](), 0, 0, 0, 1
        while number < len(lines):
            block = number
            while number < len(lines) and lines[number]:
                number += 1
            timing = next((place for place in range(block, min(block + 2, number)) if "-->" in lines[place]), None)
            number += 1
            if timing is None:  # a comment, a style or a region
                continue
            found = TIMING.fullmatch(lines[timing])
            if found is None:
                raise InputError(f"{path}, line {timing + 1}: {quoted(lines[timing])} is no timing of a cue")
            text = " ".join(lines[timing + 1 : number - 1])
            label = html.unescape(re.sub(r"<[^>]*(?:>|$)", "", text))
            start, end = _seconds(*found.groups()[:4]), _seconds(*found.groups()[4:8])
            stretches += [TimedLabel(start, end, label)] * (start < end)
            settings, tags, empty = settings + bool(found[9]), tags + ("<" in text), empty + (start >= end)
        counts = ((settings, "cues with settings"), (tags, "cues with tags in the text"), (empty, "cues of no length"))
        notes = tuple(f"{count} {what}, which are dropped" for count, what in counts if count)
        return [Found((path.stem,), tuple(stretches), notes=notes)]


def _stamp(seconds: Fraction) -> str:
    """``hh:mm:ss.ttt`` to the nearest millisecond."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{thousandths:03d}"


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str) -> Fraction:
    return Fraction(int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)) + Fraction(int(thousandths), 1000)
