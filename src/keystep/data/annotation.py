"""Labels and splits in the MS-TCN layout: ``mapping.txt``, ``groundTruth/*.txt``, ``splits/*.bundle``.

Two extensions: a frame may be `UNLABELLED`, and ``segments/*.txt`` may state the lengths of segments. A missing final
newline loses nothing, video names may contain dots, class names may contain spaces, and errors name file, line and
value.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from unicodedata import normalize

import numpy as np

from keystep.errors import InputError
from keystep.reading import read_lines, read_text, whole_number

PARTS = ("train", "valid", "test")
VALID_SHARE = 0.15
IGNORED = -100
"""The class id of frames without a label, which losses and scores ignore."""
UNLABELLED = "(unlabelled)"
"""The line of such a frame in ``groundTruth/<video>.txt``, unless mapping.txt has a class of the same name."""


def composed(text: str) -> str:
    """A class name in Unicode's composed form (NFC): other systems write "é" as two characters."""
    return normalize("NFC", text)


def read_mapping(path: Path) -> tuple[str, ...]:
    """Read class names in the order of their ids, from lines ``id name``; names may contain spaces.

    Raises:
        InputError: a line without id and name, ids that are not the integers 0..n-1, or a repeated name.
    """
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        identifier, name = (*composed(line).split(maxsplit=1), "")[:2]
        if whole_number(identifier) is None or not name:
            raise InputError(f"{path}, line {number}: {line!r} is not 'id name'")
        if int(identifier) in names or name in names.values():
            raise InputError(f"{path}, line {number}: {line!r} repeats an id or a name")
        names[int(identifier)] = name
    if not names:
        raise InputError(f"{path}: no classes; write one 'id name' per line")
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: class ids must be 0 to {len(names) - 1} without gaps, found {sorted(names)[:20]}")
    return tuple(names[index] for index in range(len(names)))


def read_labels(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """Read frame labels, one class name per line.

    Args:
        path: the file.
        classes: class names in the order of their ids.

    Returns:
        (T,) int64 class ids, `IGNORED` for `UNLABELLED` frames.

    Raises:
        InputError: a class that is not in ``classes``.
    """
    ids = {UNLABELLED: IGNORED} | {name: index for index, name in enumerate(classes)}
    plain = read_text(path).removesuffix("\n").split("\n")
    with suppress(KeyError):  # most files have nothing to strip
        return np.fromiter(map(ids.__getitem__, plain), np.int64, len(plain))
    lines = [composed(line) for line in read_lines(path)]
    try:
        return np.array([ids[line] for line in lines], dtype=np.int64)
    except KeyError as error:
        number = lines.index(error.args[0]) + 1
        raise InputError(
            f"{path}, line {number}: class {error.args[0]!r} is not in mapping.txt ({len(classes)} classes); add it "
            "there, or correct the line"
        ) from error


def segment_lengths(labels: np.ndarray) -> list[int]:
    """Lengths of the runs of equal labels in (T,) class ids."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    return [int(length) for length in np.diff(changes, prepend=0, append=len(labels)) if length]


def read_segments(path: Path, frames: int) -> np.ndarray:
    """Read segments, one length per line.

    Args:
        path: the file.
        frames: of the video.

    Returns:
        (frames,) int64, the index of each frame's segment.

    Raises:
        InputError: a length that is not a positive integer, or lengths that do not sum to ``frames``.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        if not whole_number(line):
            raise InputError(f"{path}, line {number}: {line!r} is not a segment length; write whole numbers above 0")
    lengths = [int(line) for line in lines]
    if sum(lengths) != frames:
        raise InputError(f"{path}: its {len(lengths)} segments have {sum(lengths)} frames; the video has {frames}")
    return np.repeat(np.arange(len(lengths)), lengths)


@dataclass(frozen=True)
class Split:
    """Training, validation and test videos; the parts are disjoint and not empty."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    rule: str
    """Where the validation part comes from: a file, or training videos by `hold_out` or `hold_out_groups`."""

    def part(self, name: str) -> tuple[str, ...]:
        """The videos of a part, ``train``, ``valid`` or ``test``.

        Raises:
            InputError: another name.
        """
        if name not in PARTS:
            raise InputError(f"no part {name!r} in a split; the parts are {', '.join(PARTS)}")
        videos: tuple[str, ...] = getattr(self, name)
        return videos


def hold_out(videos: Collection[str], share: float = VALID_SHARE) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out a share of the videos, chosen by the SHA-256 of their names, and thus independent of their order.

    Videos of one person may be on both sides; if groups are known, use `hold_out_groups`.

    Args:
        videos: names.
        share: of the videos to hold out; at least one and never all.

    Returns:
        (kept, held out), each in the order of ``videos``.
    """
    return _partition(videos, set(sort_by_hash(videos)[: _held_count(videos, share)]))


def hold_out_groups(
    videos: Collection[str], groups: Mapping[str, str], share: float = VALID_SHARE
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out whole groups, so that no person is on both sides.

    Groups are considered in the order of the SHA-256 of their names, and held out if that brings the number of videos
    nearer to ``share``. If no group does, the smallest one is held out. Never all.

    Args:
        videos: names.
        groups: video -> group.
        share: of the videos to hold out.

    Returns:
        (kept, held out), each in the order of ``videos``.

    Raises:
        InputError: all videos belong to one group.
    """
    sizes = Counter(groups[video] for video in videos)
    if len(sizes) < 2:
        raise InputError(f"all {len(videos)} videos are of the group {next(iter(sizes), '')!r}; none can be held out")
    wanted, ranked, held = _held_count(videos, share), sort_by_hash(sizes), list[str]()
    for group in ranked:
        taken = sum(sizes[one] for one in held)
        if len(held) < len(sizes) - 1 and abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            held.append(group)
    held = held or [min(ranked, key=sizes.__getitem__)]
    return _partition(videos, {video for video in videos if groups[video] in held})


def _held_count(videos: Collection[str], share: float) -> int:
    return min(max(1, round(len(videos) * share)), len(videos) - 1)


def _partition(videos: Collection[str], held: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name for name in videos if name not in held), tuple(name for name in videos if name in held)


def limit_labels(split: Split, share: float, seed: int = 0, groups: Mapping[str, str] | None = None) -> Split:
    """Limit a split to a share of its training and validation videos, to simulate few labels.

    With one seed, smaller shares are subsets of larger ones.

    Args:
        split: the full split.
        share: of the training and of the validation videos to keep, at least one of each.
        seed: of the ranking by hash; 0 ranks as `hold_out` does.
        groups: video -> group. If given, the first video of every group is ranked before the second of any, so that the
            labels are of as many persons as possible.
    """

    def kept(videos: tuple[str, ...]) -> tuple[str, ...]:
        ranked = sort_by_hash(videos, seed) if groups is None else _round_robin(sort_by_hash(videos, seed), groups)
        first = set(ranked[: max(1, round(len(videos) * share))])
        return tuple(name for name in videos if name in first)

    return replace(split, train=kept(split.train), valid=kept(split.valid))


def sort_by_hash(names: Collection[str], seed: int = 0) -> list[str]:
    """Sort names of videos or groups by the SHA-256 of name and seed (of the name only for seed 0)."""
    salt = f"/{seed}" if seed else ""
    return sorted(names, key=lambda name: hashlib.sha256((name + salt).encode()).hexdigest())


def _round_robin(videos: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """Order videos round-robin over their groups, otherwise in the given order."""
    before, places = Counter[str](), dict[str, int]()
    for video in videos:
        places[video] = before[groups[video]]
        before[groups[video]] += 1
    return sorted(videos, key=places.__getitem__)


def split_names(folder: Path) -> list[str]:
    """Names K of the splits for which ``splits/train.splitK.bundle`` exists, in natural order."""
    found = (path.name for path in (folder / "splits").glob("train.split*.bundle"))
    names = (name[len("train.split") : -len(".bundle")] for name in found)
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    )


def read_split(
    folder: Path,
    name: str,
    known: Collection[str],
    left_out: Collection[str] = (),
    groups: Mapping[str, str] | None = None,
) -> Split:
    """Read a split of a feature folder. Without a validation bundle, training videos are held out.

    Args:
        folder: the feature folder.
        name: of the split, such as ``1``.
        known: videos with features.
        left_out: videos that were skipped as bad, which are dropped from every part.
        groups: group of every known video; whole groups are then held out for validation.

    Raises:
        InputError: no such split, an empty part, a video that is listed twice or in two parts, or one without features.
    """
    available = split_names(folder)
    if name not in available:
        if not available:
            command = shlex.join(["keystep", "split", str(folder)])
            raise InputError(
                f"{folder}: no split {name!r}; splits/ has no train.split*.bundle; make folds of the videos: {command}"
            )
        raise InputError(f"{folder}: no split {name!r}; splits/ has {', '.join(available)}")

    def bundle(part: str) -> tuple[str, ...]:
        return _bundle(_bundle_path(folder, part, name), known, left_out)

    validation = next((part for part in ("valid", "val") if _bundle_path(folder, part, name).exists()), None)
    parts = {"train": bundle("train"), "test": bundle("test")}
    if validation is not None:
        parts["valid"] = bundle(validation)
    for first, second in combinations(parts, 2):
        shared = sorted(set(parts[first]) & set(parts[second]))
        if shared:
            raise InputError(f"{folder}: split {name} has {shared[0]!r} both in {first} and in {second}")
    if validation is not None:
        return Split(name=name, rule=f"{validation}.split{name}.bundle", **parts)
    if len(parts["train"]) < 2:
        raise InputError(f"{folder}: split {name} trains on one video; a validation part cannot be cut from it")
    parts["train"], parts["valid"], rule = _cut(parts["train"], groups)
    return Split(name=name, rule=rule, **parts)


def _cut(videos: tuple[str, ...], groups: Mapping[str, str] | None) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(training videos, validation videos, how the validation videos were chosen)."""
    own = [] if groups is None else list(dict.fromkeys(groups[video] for video in videos))
    if groups is None or len(own) < 2:
        train, valid = hold_out(videos)
        rule = f"{len(valid)} training videos held out by the hash of their names"
        return train, valid, f"{rule}, as all are of one group, {own[0]!r}" if own else rule
    train, valid = hold_out_groups(videos, groups)
    held = len({groups[video] for video in valid})
    rule = (
        f"{len(valid)} training videos held out: all of {held} of {len(own)} groups, by the hash of the groups' names"
    )
    return train, valid, rule


def match_name(line: str, known: Collection[Collection[str]]) -> str | None:
    """The known video that a line names, with or without a file extension, in either Unicode form. None: unknown."""
    spellings = (line, line.removesuffix(".txt"), line.removesuffix(".npy"))  # a name may end like a file
    found = next((name for name in spellings if any(name in names for names in known)), None)
    if found is not None or line.isascii():
        return found
    alike = {composed(name): name for names in known for name in names}
    return next((alike[composed(name)] for name in spellings if composed(name) in alike), None)


def _bundle_path(folder: Path, part: str, name: str) -> Path:
    return folder / "splits" / f"{part}.split{name}.bundle"


def _bundle(path: Path, known: Collection[str], left_out: Collection[str]) -> tuple[str, ...]:
    videos: dict[str, None] = {}
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        video = match_name(line, (known, left_out))
        if video is None:
            raise InputError(f"{path}, line {number}: no features for {line!r} in {path.parents[1] / 'features'}")
        if video in videos:
            raise InputError(f"{path}, line {number}: {video!r} is listed twice")
        videos[video] = None
    if not lines:
        raise InputError(f"{path}: an empty split; list one video per line")
    usable = tuple(name for name in videos if name not in left_out)
    if not usable:
        raise InputError(f"{path}: all {len(videos)} videos of this split are unusable; repair some of them")
    return usable
