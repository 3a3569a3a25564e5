"""The authors' feature archives, memory-mapped: a video is read when it is asked for, never the whole archive.

Three kinds, told apart by the keys of their dictionary::

    packed    paths, tokens (total, width), times (total,), offsets (N + 1,)   Assembly101, EgoProceL
    surgical  the same, with phase_labels, phase_class_names, source_splits    Cholec80, M2CAI16
    sharded   shards, shard_ids, local_indices, num_tokens, video_ids          LEMON's index; each shard is packed

Their "tokens" are our features; video v has the rows offsets[v] to offsets[v + 1].
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from keystep.errors import InputError, named, quoted
from keystep.interop.official.reading import read_payload
from keystep.types import parse_rate

Kind = Literal["packed", "surgical", "sharded"]
MOST_METADATA = 4096
"""Letters of JSON that a value may have to be kept as metadata."""
MOST_SLOTS_A_SECOND = 1000


@dataclass(frozen=True)
class ArchiveVideo:
    """One video of an archive."""

    name: str
    """Its path (packed) or id (surgical, sharded), unique in the archive."""
    features: np.ndarray
    """(T, width) float16, float32 or float64: a view of the file, read when it is used."""
    times: np.ndarray
    """(T,) float64 seconds, never falling: the stored float32 values, exactly."""
    labels: np.ndarray | None
    """(T,) int64 class ids of a surgical video, negative where there is none."""


@dataclass(frozen=True)
class Archive:
    """An archive that was opened and checked; its features were not read."""

    path: Path
    kind: Kind
    names: tuple[str, ...]
    lengths: np.ndarray
    """(N,) int64 slots of each video; 0 for those without any."""
    width: int
    splits: tuple[str, ...]
    """The split of each video as the archive says it; empty where it says none."""
    classes: tuple[str, ...]
    """Class names of a surgical archive."""
    rate: Fraction | None
    """Nominal slots a second, where the archive says so."""
    metadata: dict[str, Any]
    """What else it says of itself, as far as it is plain and short."""
    rows: _Packed | _Shards

    def video(self, index: int) -> ArchiveVideo:
        """Video number ``index``.

        Raises:
            InputError: times that are not finite or fall; a bad or missing shard.
        """
        name = self.names[index]
        features, stored, labels = self.rows.read(index)
        times = stored.numpy().astype(np.float64)
        if not np.isfinite(times).all() or (np.diff(times) < 0).any():
            slot = int(np.argmin(np.isfinite(times) & (np.diff(times, prepend=-np.inf) >= 0)))
            raise InputError(
                f"{self.path}: {quoted(name)} has the time {times[slot]} in slot {slot}; times must be finite and "
                "never fall"
            )
        return ArchiveVideo(name, features.numpy(), times, None if labels is None else labels.numpy())

    def order(self) -> list[int]:
        """The videos that have slots, in the order in which they lie on disk, so that each shard is opened once."""
        return [index for index in self.rows.order() if self.lengths[index]]

    def missing(self) -> list[Path]:
        """Shards that the index names but that are not there."""
        return [] if isinstance(self.rows, _Packed) else [path for path in self.rows.files if not path.exists()]


def open_archive(path: Path | str, *, verify: bool = False) -> Archive:
    """Open an archive of any kind; of a sharded one, the index, whose shards are opened when they are needed.

    Args:
        verify: compare all of each file with its checksums when it is opened, which reads it once more.

    Raises:
        InputError: missing, damaged or unsafe file, another layout, or numbers that do not fit together, with the file
            and the value.
    """
    path = Path(path)
    payload = read_payload(path, verify=verify)
    if {"shards", "shard_ids", "local_indices"} <= set(payload):
        return _open_index(payload, path, verify)
    rows = _Packed.check(payload, path)
    surgical = "phase_labels" in payload
    names = _names(payload, "video_ids" if surgical and "video_ids" in payload else "paths", path)
    if len(names) != len(rows.offsets) - 1:
        raise InputError(f"{path}: {len(rows.offsets)} offsets for {len(names)} videos; expected one more than videos")
    classes: tuple[str, ...] = ()
    if surgical:
        classes = tuple(_strings(payload, "phase_class_names", path))
        highest = int(rows.labels.max()) if rows.labels is not None and len(rows.labels) else -1
        if highest >= len(classes):
            raise InputError(f"{path}: phase label {highest}, but phase_class_names has {len(classes)} names")
    return Archive(
        path=path,
        kind="surgical" if surgical else "packed",
        names=names,
        lengths=np.diff(rows.offsets),
        width=rows.tokens.shape[1],
        splits=_splits(payload, "source_splits", len(names), path),
        classes=classes,
        rate=_rate(payload, path),
        metadata=_metadata(payload),
        rows=rows,
    )


def _open_index(payload: Mapping[str, Any], path: Path, verify: bool) -> Archive:
    named_by = {key: _strings(payload, key, path) for key in ("video_ids", "paths") if payload.get(key) is not None}
    names = _names(payload, "video_ids" if "video_ids" in named_by else "paths", path)
    for key, others in named_by.items():
        if len(others) != len(names):
            raise InputError(f"{path}: {key} has {len(others)} values for {len(names)} videos")
    shard_ids, local, lengths = (
        _integers(payload, key, len(names), path) for key in ("shard_ids", "local_indices", "num_tokens")
    )
    files = [_shard_path(path, text) for text in _strings(payload, "shards", path)]
    for key, values, limit in (("shard_ids", shard_ids, len(files)), ("local_indices", local, None)):
        wrong = values < 0 if limit is None else (values < 0) | (values >= limit)
        if wrong.any():
            raise InputError(f"{path}: {key} has {values[wrong.argmax()]}, with {len(files)} shards")
    if (lengths < 0).any():
        raise InputError(f"{path}: num_tokens has {lengths.min()}; lengths cannot be negative")
    place, times = Counter(zip(shard_ids.tolist(), local.tolist(), strict=True)).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: {times} videos are video {place[1]} of shard {place[0]}; each has its own place")
    width = _width(payload, path)
    if width is None:
        raise InputError(f"{path}: no feature_dim in it, the width of the features")
    return Archive(
        path=path,
        kind="sharded",
        names=names,
        lengths=lengths,
        width=width,
        splits=_splits(payload, "splits", len(names), path),
        classes=(),
        rate=_rate(payload, path),
        metadata=_metadata(payload),
        rows=_Shards(names, named_by, files, shard_ids, local, lengths, width, verify),
    )


@dataclass(frozen=True)
class _Packed:
    """The rows of all videos of one file."""

    path: Path
    tokens: Tensor
    """(total, width), on disk."""
    times: Tensor
    """(total,)"""
    offsets: np.ndarray
    """(N + 1,) int64"""
    labels: Tensor | None

    @classmethod
    def check(cls, payload: Mapping[str, Any], path: Path) -> _Packed:
        missing = sorted({"tokens", "times", "offsets"} - set(payload))
        if missing:
            held = ", ".join(map(named, sorted(payload)[:8]))
            raise InputError(f"{path}: no {missing[0]} in it; this is no feature archive (it holds {held})")
        tokens, times, labels = (payload.get(key) for key in ("tokens", "times", "phase_labels"))
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype not in _FLOATS or not tokens.shape[1]:
            raise InputError(f"{path}: tokens are {_what(tokens)}; expected (total, width) floats")
        if not isinstance(times, Tensor) or times.dtype not in _FLOATS or times.shape != tokens.shape[:1]:
            raise InputError(f"{path}: times are {_what(times)}; expected one float for each of {len(tokens)} tokens")
        if labels is not None and (
            not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS or labels.shape != tokens.shape[:1]
        ):
            raise InputError(f"{path}: phase_labels are {_what(labels)}; expected one for each of {len(tokens)} tokens")
        if _width(payload, path) not in (None, tokens.shape[1]):
            raise InputError(
                f"{path}: feature_dim {quoted(payload['feature_dim'])}, but tokens are {tokens.shape[1]} wide"
            )
        offsets = _offsets(payload["offsets"], len(tokens), path)
        return cls(path, tokens, times, offsets, None if labels is None else labels.long())

    def read(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(features, times, labels) of a video, the features as a view of the file."""
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.tokens[part], self.times[part], None if self.labels is None else self.labels[part]

    def order(self) -> list[int]:
        return list(range(len(self.offsets) - 1))


class _Shards:
    """The rows of a sharded archive; one shard is open at a time."""

    def __init__(
        self,
        names: Sequence[str],
        named_by: Mapping[str, Sequence[str]],
        files: list[Path],
        shard_ids: np.ndarray,
        local: np.ndarray,
        lengths: np.ndarray,
        width: int,
        verify: bool,
    ) -> None:
        self.names, self.named_by, self.files = names, named_by, files
        self.shard_ids, self.local, self.lengths, self.width = shard_ids, local, lengths, width
        self._unverified = set(range(len(files))) if verify else set()
        self._open: tuple[int, _Packed, Mapping[str, Sequence[str]]] | None = None

    def read(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, held = self._shard(int(self.shard_ids[index]))
        place, name, count = int(self.local[index]), quoted(self.names[index]), len(rows.offsets) - 1
        if place >= count:
            raise InputError(f"{rows.path}: the index says that {name} is its video {place}; it has {count}")
        for key, theirs in list(held.items())[:1]:  # ids, or else paths, which may be written in another way
            ours = self.named_by[key][index]
            if theirs[place] != ours:
                said = f"{quoted(theirs[place])}, the index says {quoted(ours)}"
                raise InputError(f"{rows.path}: its video {place} is {said}")
        features, times, labels = rows.read(place)
        if len(features) != self.lengths[index]:
            raise InputError(f"{rows.path}: {name} has {len(features)} tokens, the index says {self.lengths[index]}")
        return features, times, labels

    def _shard(self, number: int) -> tuple[_Packed, Mapping[str, Sequence[str]]]:
        """The rows of a shard, and what it calls its videos where the index says that too."""
        if self._open is None or self._open[0] != number:
            self._open = None  # let go of the old one first
            path = self.files[number]
            payload = read_payload(path, verify=number in self._unverified)
            self._unverified.discard(number)
            rows = _Packed.check(payload, path)
            if rows.tokens.shape[1] != self.width:
                raise InputError(f"{path}: tokens are {rows.tokens.shape[1]} wide, the index says {self.width}")
            held = {key: _strings(payload, key, path) for key in self.named_by if payload.get(key) is not None}
            for key, names in held.items():
                if len(names) != len(rows.offsets) - 1:
                    raise InputError(f"{path}: {len(rows.offsets)} offsets for {len(names)} {key}")
            self._open = number, rows, held
        return self._open[1], self._open[2]

    def order(self) -> list[int]:
        return [int(index) for index in np.lexsort((self.local, self.shard_ids))]


_FLOATS = (torch.float16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def _what(value: object) -> str:
    """A value in few words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"of type {type(value).__name__}"


def _offsets(value: object, total: int, path: Path) -> np.ndarray:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.ndim != 1 or len(value) < 2:
        raise InputError(f"{path}: offsets are {_what(value)}; expected int64 (videos + 1,)")
    offsets: np.ndarray = value.numpy()
    if offsets[0] != 0 or offsets[-1] != total:
        raise InputError(f"{path}: offsets go from {offsets[0]} to {offsets[-1]}; expected 0 to {total}, all tokens")
    falling = np.diff(offsets) < 0
    if falling.any():
        place = int(falling.argmax())
        raise InputError(f"{path}: offsets fall from {offsets[place]} to {offsets[place + 1]} at video {place}")
    return offsets


def _strings(payload: Mapping[str, Any], key: str, path: Path) -> list[str]:
    """A list of names that can be written down; whole numbers count as names."""
    values = payload.get(key)
    if key not in payload:
        raise InputError(f"{path}: no {key} in it")
    plain = isinstance(values, (list, tuple)) and len(values) > 0
    if not plain or not all(isinstance(value, str) or type(value) is int for value in values or ()):
        raise InputError(f"{path}: {key} is no list of names, but {_what(values)}")
    names = [value if isinstance(value, str) else quoted(value) for value in values or ()]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: {key} has {quoted(name)}, which is no text that can be written") from error
    return names


def _width(payload: Mapping[str, Any], path: Path) -> int | None:
    width = payload.get("feature_dim")
    if width is not None and (type(width) is not int or width < 1):
        raise InputError(f"{path}: feature_dim {quoted(width)} is no width of features")
    return width


def _integers(payload: Mapping[str, Any], key: str, count: int, path: Path) -> np.ndarray:
    """(count,) int64 from a tensor or a list."""
    value = payload.get(key)
    plain = isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
    if not plain and not (isinstance(value, Tensor) and value.ndim == 1 and value.dtype in _INTEGERS):
        raise InputError(f"{path}: {key} is {_what(value)}; expected one whole number for each video")
    try:
        numbers = np.asarray(value, dtype=np.int64)
    except OverflowError as error:
        raise InputError(f"{path}: {key} has a number that does not fit into 64 bits") from error
    if len(numbers) != count:
        raise InputError(f"{path}: {key} has {len(numbers)} values for {count} videos")
    return numbers


def _names(payload: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """Names of the videos: relative, inside of the archive, each once."""
    names = _strings(payload, key, path)
    for name in names:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path}: {key} has {quoted(name)}, which leads out of the archive; not imported")
    (most, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise InputError(f"{path}: {key} has {quoted(most)} twice; names must be unique")
    return tuple(names)


def _shard_path(index: Path, text: str) -> Path:
    """A shard beside the index. (Links are followed: download caches consist of them.)"""
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts or not text.isprintable():
        raise InputError(f"{index}: shard {quoted(text)} leads out of the index's folder; not opened")
    return index.parent / text


def _splits(payload: Mapping[str, Any], key: str, count: int, path: Path) -> tuple[str, ...]:
    if key not in payload:
        return ()
    splits = _strings(payload, key, path)
    if len(splits) != count:
        raise InputError(f"{path}: {key} has {len(splits)} values for {count} videos")
    return tuple(splits)


def _rate(payload: Mapping[str, Any], path: Path) -> Fraction | None:
    rate = payload.get("target_fps")
    if rate is None:
        return None
    number = type(rate) in (int, float)
    try:
        if not number and not (isinstance(rate, str) and re.fullmatch(r"[0-9./]{1,20}", rate)):
            raise InputError("no number")
        parsed = parse_rate(quoted(rate) if number else rate)
        if not 1 <= parsed * MOST_SLOTS_A_SECOND <= MOST_SLOTS_A_SECOND**2:
            raise InputError("too large or too small")
    except InputError as error:
        raise InputError(f"{path}: target_fps {quoted(rate)} is no number of slots a second: {error}") from error
    return parsed.limit_denominator(MOST_SLOTS_A_SECOND + 1)


_NOT_METADATA = {
    *("paths", "video_paths", "video_ids", "splits", "source_splits", "phase_class_names"),
    *("shards", "shard_root", "shard_ids", "local_indices", "num_tokens", "durations_sec"),
}
"""What is read above, what only repeats it, and where the shards once lay."""


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Strings, numbers, lists and dictionaries; what is too long to keep says so."""
    kept: dict[str, Any] = {}
    for key, value in payload.items():
        if key in _NOT_METADATA or isinstance(value, Tensor):
            continue
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # a tensor, NaN or endless nesting inside of it
            continue
        kept[key] = json.loads(text) if len(text) <= MOST_METADATA else f"(not kept: {len(text):,} letters)"
    return kept
