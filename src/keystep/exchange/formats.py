"""What every format of annotations has in common: stretches of time, what is written, what was found, one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from keystep.data.annotation import UNLABELLED
from keystep.data.spans import Span
from keystep.errors import InputError, plain, quoted
from keystep.plugins import FORMATS
from keystep.types import exact

Unit = Literal["seconds", "frames", "player frames", "lines"]
"""What a file counts: seconds of the video; decoded frames, 0 the first; a player's frames, 0 at second 0; lines of
labels, those of the slots where they are as many."""
NEAR = Fraction(1, 1_000_000)
"""Share of a frame by which a moment may lie before a frame that it is taken to show."""


class TimedLabel(NamedTuple):
    """A label from ``start`` up to ``end``, in seconds or in whole frames."""

    start: Fraction
    end: Fraction
    label: str


@dataclass(frozen=True)
class Frames:
    """A video's frames. rate: how many a second. begins: seconds at which the first is due. count: None if unknown.

    height, width: of the picture, 0 where unknown.
    """

    rate: Fraction
    begins: Fraction = Fraction(0)
    count: int | None = None
    height: int = 0
    width: int = 0

    def shown(self, seconds: Fraction) -> int:
        """The frame that is shown at a moment; the first one before it."""
        return max(0, floor((seconds - self.begins) * self.rate + NEAR))

    def seconds(self, frame: Fraction) -> Fraction:
        """When a frame is due."""
        return self.begins + frame / self.rate


@dataclass(frozen=True)
class Recording:
    """The annotation of one video on its way out.

    stretches: the same as the spans, in seconds. slots: of the video; rate: how many a second. end: seconds at which
    the last slot ends. frames: of the video, where they are known. video: its file, where it is given.
    """

    name: str
    spans: tuple[Span, ...]
    stretches: tuple[TimedLabel, ...]
    slots: int
    rate: Fraction
    end: Fraction
    frames: Frames | None = None
    video: Path | None = None

    def in_frames(self, frames: Frames) -> list[tuple[int, int, str]]:
        """(first frame, last frame + 1, label) of each stretch that shows a frame."""
        found = [(frames.shown(start), frames.shown(end), label) for start, end, label in self.stretches]
        return [one for one in found if one[0] < one[1]]


@dataclass(frozen=True)
class Found:
    """What a file says of one video.

    names: what the video may be called, the likeliest first. unit: what the stretches count. rate: frames a second, if
    the file says so. length: lines of labels, where that is the unit. notes: what of the file was not taken.
    """

    names: tuple[str, ...]
    stretches: tuple[TimedLabel, ...]
    unit: Unit = "seconds"
    rate: Fraction | None = None
    length: int = 0
    notes: tuple[str, ...] = ()


class Read(Protocol):
    """Reads one file."""

    def __call__(self, path: Path, track: str | None) -> list[Found]:
        """What a file says of each video. track: the tier or tag to take, where a file may hold several.

        Raises:
            InputError: anything but a file of this format.
        """


class Format(Protocol):
    """One way to write annotations, and perhaps to read them.

    ending: of its files, by which it is guessed; "" if it is not. loses: what of an annotation it cannot hold.
    needs_frames: whether it cannot be written without a frame rate. needs_video: whether it needs the video itself.
    read: None where it is written only.
    """

    ending: str
    loses: str
    needs_frames: bool
    needs_video: bool
    read: Read | None

    def files(self, names: Sequence[str]) -> list[str]:
        """Relative paths of all that `write` writes for videos of these names."""

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """Write all of them below a folder that exists.

        Raises:
            InputError: a library that is missing, or what the format cannot hold at all.
        """


def format_of(name: str) -> Format:
    """A format by name.

    Raises:
        InputError: an unknown one, with what there is.
    """
    return cast("Format", FORMATS.find(name)())


def guess_format(paths: Sequence[Path]) -> str:
    """The name of the format whose files end as these do.

    Raises:
        InputError: none or several, or files of more than one ending.
    """
    endings = sorted({path.suffix.lower() for path in paths})
    readable = {name: one.ending for name in FORMATS.names() if (one := format_of(name)).read is not None}
    fitting = [name for name, ending in readable.items() if endings == [ending]]
    if len(fitting) != 1:
        known = ", ".join(f"{name} ({ending})" for name, ending in readable.items())
        shown = " and ".join(ending or "no ending" for ending in endings)
        raise InputError(f"{paths[0]}: the format cannot be told from {shown}; give --format, one of {known}")
    return fitting[0]


def missing_extra(what: str, package: str, extra: str = "exchange") -> InputError:
    """The error for a library that is not installed."""
    return InputError(f"{what} needs {package}; install it with: pip install 'keystep[{extra}]'")


def class_name(text: str) -> str:
    """A label as a class may be called: one line, without controls and blanks around it; "" if nothing is left."""
    return " ".join(plain(text).replace("\ufffe", "").replace("\uffff", "").split())


def lines_of(spans: Iterable[Span], slots: int) -> list[str]:
    """One label a slot, `UNLABELLED` where there is none."""
    lines = [UNLABELLED] * slots
    for span in spans:
        lines[span.start : span.stop] = [span.label] * (span.stop - span.start)
    return lines


def number(text: object, where: str, what: str = "seconds") -> Fraction:
    """A number in a file, exactly.

    Raises:
        InputError: none; says where.
    """
    try:
        return exact(text)  # type: ignore[arg-type]  # whatever it is, its text is looked at
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{where}: {quoted(text)} is no number of {what}") from error


def frame_number(text: object, where: str) -> Fraction:
    """A whole number of a frame.

    Raises:
        InputError: another number, or none.
    """
    found = number(text, where, "a frame")
    if found.denominator != 1 or found < 0:
        raise InputError(f"{where}: {quoted(text)} is no number of a frame")
    return found


def decimal(value: Fraction, digits: int = 6) -> str:
    """Seconds as text, without an exponent."""
    return f"{float(value):.{digits}f}"


def stem_of(address: object) -> str:
    """The name without ending of a file, by its address or its path on any system; "" if there is none."""
    text = address if isinstance(address, str) else ""
    with suppress(ValueError):  # such as brackets where the host should be
        parts = urlsplit(text)
        query = parse_qs(parts.query, max_num_fields=100).get("d", [])  # Label Studio's local files
        text = query[0] if query else unquote(parts.path)
    return Path(text.replace("\\", "/").replace("\0", "").rpartition("/")[2]).stem
