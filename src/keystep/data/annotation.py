"""Labels and splits as the field writes them: ``mapping.txt``, ``groundTruth/*.txt``, ``splits/*.bundle``.

Two additions of ours: a frame may be `UNLABELLED`, and ``segments/*.txt`` may say where segments end.

METRICS.md's traps are kept out here: a file without a final newline loses nothing, video names keep their dots, class
names keep their spaces, and whatever does not fit is named with file, line and value.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from keystep.errors import InputError
from keystep.reading import read_lines, whole_number

PARTS = ("train", "valid", "test")
VALID_SHARE = 0.15
IGNORED = -100
"""The class id of frames without a label; losses and scores leave them out."""
UNLABELLED = "(unlabelled)"
"""The line of such a frame in ``groundTruth/<video>.txt``, unless mapping.txt has a class of that very name."""


def read_mapping(path: Path) -> tuple[str, ...]:
    """Class names in the order of their ids from lines ``id name`` (blanks or a tab between); names may hold spaces.

    Raises:
        InputError: a line without both parts, an id that is no integer, ids that are not 0..n-1, a name given twice.
    """
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        identifier, name = (*line.split(maxsplit=1), "")[:2]
        if whole_number(identifier) is None or not name:
            raise InputError(f"{path}, line {number}: {line!r} is not 'id name'")
        if int(identifier) in names or name in names.values():
            raise InputError(f"{path}, line {number}: {line!r} repeats an id or a name")
        names[int(identifier)] = name
    if not names:
        raise InputError(f"{path}: no classes; write one 'id name' a line")
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: class ids must be 0 to {len(names) - 1} without gaps, found {sorted(names)[:20]}")
    return tuple(names[index] for index in range(len(names)))


def read_labels(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """(T,) int64 class ids from one class name a line; `IGNORED` for `UNLABELLED` frames."""
    lines = read_lines(path)
    ids = {UNLABELLED: IGNORED} | {name: index for index, name in enumerate(classes)}
    try:
        return np.array([ids[line] for line in lines], dtype=np.int64)
    except KeyError as error:
        number = lines.index(error.args[0]) + 1
        raise InputError(
            f"{path}, line {number}: class {error.args[0]!r} is not in mapping.txt ({len(classes)} classes); add it "
            "there, or correct the line"
        ) from error


def segment_lengths(labels: np.ndarray) -> list[int]:
    """Lengths of the maximal runs of one label."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    return [int(length) for length in np.diff(changes, prepend=0, append=len(labels)) if length]


def read_segments(path: Path, frames: int) -> np.ndarray:
    """(frames,) int64: the number of each frame's segment, 0, 1, ..., from one length a line.

    Raises:
        InputError: a length that is no whole number above 0, or lengths that do not sum to the video's frames.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        if not whole_number(line):
            raise InputError(f"{path}, line {number}: {line!r} is no segment length; write whole numbers above 0")
    lengths = [int(line) for line in lines]
    if sum(lengths) != frames:
        raise InputError(f"{path}: its {len(lengths)} segments have {sum(lengths)} frames; the video has {frames}")
    return np.repeat(np.arange(len(lengths)), lengths)


@dataclass(frozen=True)
class Split:
    """Which videos train, choose and test; the parts are disjoint and none is empty."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    rule: str
    """How the validation part came about: from a file, or cut from training by `hold_out` or `hold_out_groups`."""

    def part(self, name: str) -> tuple[str, ...]:
        """The videos of ``train``, ``valid`` or ``test``."""
        if name not in PARTS:
            raise InputError(f"no part {name!r} in a split; the parts are {', '.join(PARTS)}")
        videos: tuple[str, ...] = getattr(self, name)
        return videos


def hold_out(videos: Collection[str], share: float = VALID_SHARE) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(kept, held out): the videos whose SHA-256 of the name comes first, ``share`` of them, at least one, never all.

    The rule looks at nothing but names, so it does not move when files are listed in another order. Videos of one
    person may fall on both sides: where groups are known, `hold_out_groups` keeps them together.
    """
    return _parted(videos, set(by_hash(videos)[: _held_count(videos, share)]))


def hold_out_groups(
    videos: Collection[str], groups: Mapping[str, str], share: float = VALID_SHARE
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(kept, held out) as `hold_out`, but whole groups, so that no person is on both sides.

    Groups are taken in the order of the SHA-256 of their names, each that brings the number of videos nearer to
    ``share`` of them; where every group is so large that none does, the smallest one. At least one, never all.

    Raises:
        InputError: all videos are of one group.
    """
    sizes = Counter(groups[video] for video in videos)
    if len(sizes) < 2:
        raise InputError(f"all {len(videos)} videos are of the group {next(iter(sizes), '')!r}; none can be held out")
    wanted, ranked, held = _held_count(videos, share), by_hash(sizes), list[str]()
    for group in ranked:
        taken = sum(sizes[one] for one in held)
        if len(held) < len(sizes) - 1 and abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            held.append(group)
    held = held or [min(ranked, key=sizes.__getitem__)]
    return _parted(videos, {video for video in videos if groups[video] in held})


def _held_count(videos: Collection[str], share: float) -> int:
    return min(max(1, round(len(videos) * share)), len(videos) - 1)


def _parted(videos: Collection[str], held: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name for name in videos if name not in held), tuple(name for name in videos if name in held)


def labelled_share(split: Split, share: float, seed: int = 0, groups: Mapping[str, str] | None = None) -> Split:
    """The split with labels for ``share`` of its training and of its validation videos, at least one of each.

    A smaller share is a part of a larger one with the same seed: the videos are ranked by SHA-256 of the name, as in
    `hold_out`, with another seed than 0 of the name and that number. With ``groups`` the first video of each comes
    before the second of any, so that few labels are of as many persons as they can be.
    """

    def kept(videos: tuple[str, ...]) -> tuple[str, ...]:
        ranked = by_hash(videos, seed) if groups is None else _in_turn(by_hash(videos, seed), groups)
        first = set(ranked[: max(1, round(len(videos) * share))])
        return tuple(name for name in videos if name in first)

    return replace(split, train=kept(split.train), valid=kept(split.valid))


def by_hash(names: Collection[str], seed: int = 0) -> list[str]:
    """Names of videos or groups in an order that only they and the seed decide."""
    salt = f"/{seed}" if seed else ""
    return sorted(names, key=lambda name: hashlib.sha256((name + salt).encode()).hexdigest())


def _in_turn(videos: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """The first video of each group, then the second of each, and so on, otherwise in the order given."""
    before, places = Counter[str](), dict[str, int]()
    for video in videos:
        places[video] = before[groups[video]]
        before[groups[video]] += 1
    return sorted(videos, key=places.__getitem__)


def split_names(folder: Path) -> list[str]:
    """Names K of the splits for which ``splits/train.splitK.bundle`` exists, numbers in them by their value."""
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
    """Split ``name`` of the folder's ``splits/``; without a validation bundle, one is cut from training.

    Args:
        left_out: bad videos that the user chose to skip, which are dropped from every part.
        groups: the group of every known video; the validation part is then cut by group.

    Raises:
        InputError: no such split, an empty part, a video listed twice or in two parts, a video without features.
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
    """(training videos, validation videos, how the second were chosen)."""
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


def found_name(line: str, known: Collection[Collection[str]]) -> str | None:
    """The video that a line of a list names, with or without an ending, in any of some collections of names."""
    spellings = (line, line.removesuffix(".txt"), line.removesuffix(".npy"))  # a name may itself end like a file
    return next((name for name in spellings if any(name in names for names in known)), None)


def _bundle_path(folder: Path, part: str, name: str) -> Path:
    return folder / "splits" / f"{part}.split{name}.bundle"


def _bundle(path: Path, known: Collection[str], left_out: Collection[str]) -> tuple[str, ...]:
    videos: dict[str, None] = {}
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        video = found_name(line, (known, left_out))
        if video is None:
            raise InputError(f"{path}, line {number}: no features for {line!r} in {path.parents[1] / 'features'}")
        if video in videos:
            raise InputError(f"{path}, line {number}: {video!r} is listed twice")
        videos[video] = None
    if not lines:
        raise InputError(f"{path}: an empty split; list one video a line")
    usable = tuple(name for name in videos if name not in left_out)
    if not usable:
        raise InputError(f"{path}: nothing is left of this split, all its {len(videos)} videos were unusable")
    return usable
