"""The authors' feature archives, memory-mapped, so that only the requested video is read.

There are three kinds, distinguished by their dictionary keys::

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
"""Maximum length of a metadata value as JSON."""
MOST_SLOTS_A_SECOND = 1000


@dataclass(frozen=True)
class ArchiveVideo:
    """A video of an archive."""

    name: str
    """Its path (packed) or id (surgical, sharded), unique in the archive."""
    features: np.ndarray
    """(T, width) float16, float32 or float64: a memory-mapped view of the file."""
    times: np.ndarray
    """(T,) float64 seconds, non-decreasing: the exact float32 values of the file."""
    labels: np.ndarray | None
    """(T,) int64 class ids of a surgical video, negative if unlabelled."""


@dataclass(frozen=True)
class Archive:
    """An opened and validated archive; features are read on demand."""

    path: Path
    kind: Kind
    names: tuple[str, ...]
    lengths: np.ndarray
    """(N,) int64 number of slots of each video; may be 0."""
    width: int
    splits: tuple[str, ...]
    """The split of each video, or empty if the archive has none."""
    classes: tuple[str, ...]
    """Class names of a surgical archive."""
    rate: Fraction | None
    """Nominal slots per second, if given in the archive."""
    metadata: dict[str, Any]
    """Other short JSON-compatible entries of the archive."""
    rows: _Packed | _Shards

    def video(self, index: int) -> ArchiveVideo:
        """Read the video with this index.

        Raises:
            InputError: times that are not finite or decrease, or an invalid or missing shard.
        """
        name = self.names[index]
        features, stored, labels = self.rows.read(index)
        times = stored.double().numpy()  # numpy would warn of signalling NaN
        if not np.isfinite(times).all() or (np.diff(times) < 0).any():
            slot = int(np.argmin(np.isfinite(times) & (np.diff(times, prepend=-np.inf) >= 0)))
            raise InputError(
                f"{self.path}: {quoted(name)} has the time {times[slot]} in slot {slot}; times must be finite and "
                "non-decreasing"
            )
        return ArchiveVideo(name, features.numpy(), times, None if labels is None else labels.numpy())

    def order(self) -> list[int]:
        """Indices of the videos with slots in the order on disk, so that each shard is opened once."""
        return [index for index in self.rows.order() if self.lengths[index]]

    def missing(self) -> list[Path]:
        """Shards that are listed in the index but do not exist."""
        return [] if isinstance(self.rows, _Packed) else [path for path in self.rows.files if not path.exists()]


def open_archive(path: Path | str, *, verify: bool = False) -> Archive:
    """Open an archive of any kind. For a sharded archive, open the index; its shards are opened on demand.

    Args:
        path: of the archive or index.
        verify: compare each file with its checksums when it is opened, which reads it completely.

    Raises:
        InputError: a missing, damaged or unsafe file, an unknown layout, or inconsistent contents.
    """
    path = Path(path)
    payload = read_payload(path, verify=verify)
    if {"shards", "shard_ids", "local_indices"} <= set(payload):
        return _open_index(payload, path, verify)
    rows = _Packed.check(payload, path)
    surgical = "phase_labels" in payload
    names = _names(payload, "video_ids" if surgical and "video_ids" in payload else "paths", path)
    if len(names) != len(rows.offsets) - 1:
        raise InputError(f"{path}: {len(rows.offsets)} offsets for {len(names)} videos; expected {len(names) + 1}")
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
        raise InputError(f"{path}: {times} videos refer to video {place[1]} of shard {place[0]}; expected one")
    width = _width(payload, path)
    if width is None:
        raise InputError(f"{path}: feature_dim (the width of the features) is missing")
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
    """The rows of all videos of a file."""

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
            raise InputError(f"{path}: not a feature archive: {missing[0]} is missing (it contains {held})")
        tokens, times, labels = (payload.get(key) for key in ("tokens", "times", "phase_labels"))
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype not in _FLOATS or not tokens.shape[1]:
            raise InputError(f"{path}: tokens are {_describe(tokens)}; expected (total, width) floats")
        if not isinstance(times, Tensor) or times.dtype not in _FLOATS or times.shape != tokens.shape[:1]:
            raise InputError(f"{path}: times are {_describe(times)}; expected {len(tokens)} floats, one for each token")
        if labels is not None and (
            not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS or labels.shape != tokens.shape[:1]
        ):
            raise InputError(
                f"{path}: phase_labels are {_describe(labels)}; expected {len(tokens)} integers, one for each token"
            )
        if _width(payload, path) not in (None, tokens.shape[1]):
            raise InputError(
                f"{path}: feature_dim is {quoted(payload['feature_dim'])}, but tokens have width {tokens.shape[1]}"
            )
        offsets = _offsets(payload["offsets"], len(tokens), path)
        return cls(path, tokens, times, offsets, None if labels is None else labels.long())

    def read(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """(features, times, labels) of a video; features are a view of the file."""
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.tokens[part], self.times[part], None if self.labels is None else self.labels[part]

    def order(self) -> list[int]:
        return list(range(len(self.offsets) - 1))


class _Shards:
    """The rows of a sharded archive. Only one shard is open at a time."""

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
            raise InputError(f"{rows.path}: {name} is video {place} in the index, but the shard has {count} videos")
        for key, theirs in list(held.items())[:1]:  # ids if available, because paths may be written differently
            ours = self.named_by[key][index]
            if theirs[place] != ours:
                names = f"{quoted(theirs[place])}, but {quoted(ours)} in the index"
                raise InputError(f"{rows.path}: video {place} is {names}")
        features, times, labels = rows.read(place)
        if len(features) != self.lengths[index]:
            raise InputError(f"{rows.path}: {name} has {len(features)} tokens, but {self.lengths[index]} in the index")
        return features, times, labels

    def _shard(self, number: int) -> tuple[_Packed, Mapping[str, Sequence[str]]]:
        """The rows of a shard, and its names for the videos under the keys that the index has too."""
        if self._open is None or self._open[0] != number:
            self._open = None  # close the previous shard first
            path = self.files[number]
            payload = read_payload(path, verify=number in self._unverified)
            self._unverified.discard(number)
            rows = _Packed.check(payload, path)
            if rows.tokens.shape[1] != self.width:
                raise InputError(f"{path}: tokens have width {rows.tokens.shape[1]}, but {self.width} in the index")
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


def _describe(value: object) -> str:
    """Type and shape of a value, for messages."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"of type {type(value).__name__}"


def _offsets(value: object, total: int, path: Path) -> np.ndarray:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.ndim != 1 or len(value) < 2:
        raise InputError(f"{path}: offsets are {_describe(value)}; expected int64 (videos + 1,)")
    offsets: np.ndarray = value.numpy()
    if offsets[0] != 0 or offsets[-1] != total:
        raise InputError(f"{path}: offsets range from {offsets[0]} to {offsets[-1]}; expected 0 to {total}")
    falling = np.diff(offsets) < 0
    if falling.any():
        place = int(falling.argmax())
        raise InputError(f"{path}: offsets decrease from {offsets[place]} to {offsets[place + 1]} at video {place}")
    return offsets


def _strings(payload: Mapping[str, Any], key: str, path: Path) -> list[str]:
    """A list of names that can be encoded; integers are converted."""
    values = payload.get(key)
    if key not in payload:
        raise InputError(f"{path}: {key} is missing")
    plain = isinstance(values, (list, tuple)) and len(values) > 0
    if not plain or not all(isinstance(value, str) or type(value) is int for value in values or ()):
        raise InputError(f"{path}: {key} is {_describe(values)}; expected a list of names")
    names = [value if isinstance(value, str) else quoted(value) for value in values or ()]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: {key} has {quoted(name)}, which is not valid text") from error
    return names


def _width(payload: Mapping[str, Any], path: Path) -> int | None:
    width = payload.get("feature_dim")
    if width is not None and (type(width) is not int or width < 1):
        raise InputError(f"{path}: feature_dim must be a positive integer, not {quoted(width)}")
    return width


def _integers(payload: Mapping[str, Any], key: str, count: int, path: Path) -> np.ndarray:
    """A tensor or list as (count,) int64."""
    value = payload.get(key)
    plain = isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
    if not plain and not (isinstance(value, Tensor) and value.ndim == 1 and value.dtype in _INTEGERS):
        raise InputError(f"{path}: {key} is {_describe(value)}; expected one integer for each video")
    try:
        numbers = np.asarray(value, dtype=np.int64)
    except OverflowError as error:
        raise InputError(f"{path}: {key} has a number that exceeds 64 bits") from error
    if len(numbers) != count:
        raise InputError(f"{path}: {key} has {len(numbers)} values for {count} videos")
    return numbers


def _names(payload: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """Video names, which must be unique relative paths within the archive."""
    names = _strings(payload, key, path)
    for name in names:
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path}: {key} has {quoted(name)}, which points outside of the archive; not imported")
    (most, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise InputError(f"{path}: {key} has {quoted(most)} twice; names must be unique")
    return tuple(names)


def _shard_path(index: Path, text: str) -> Path:
    """Path of a shard in the folder of the index. (Links are followed, because download caches consist of links.)"""
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts or not text.isprintable():
        raise InputError(f"{index}: shard {quoted(text)} points outside of the index's folder; not opened")
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
            raise InputError("not a number")
        parsed = parse_rate(quoted(rate) if number else rate)
        if not 1 <= parsed * MOST_SLOTS_A_SECOND <= MOST_SLOTS_A_SECOND**2:
            raise InputError("too large or too small")
    except InputError as error:
        raise InputError(f"{path}: target_fps {quoted(rate)} is not a rate in slots per second: {error}") from error
    return parsed.limit_denominator(MOST_SLOTS_A_SECOND + 1)


_NOT_METADATA = {
    *("paths", "video_paths", "video_ids", "splits", "source_splits", "phase_class_names"),
    *("shards", "shard_root", "shard_ids", "local_indices", "num_tokens", "durations_sec"),
}
"""Keys that are read elsewhere, redundant, or the former location of the shards."""


def _metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-compatible entries; those that are too long are replaced by a note."""
    kept: dict[str, Any] = {}
    for key, value in payload.items():
        if key in _NOT_METADATA or isinstance(value, Tensor):
            continue
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # contains a tensor, NaN or endless nesting
            continue
        kept[key] = json.loads(text) if len(text) <= MOST_METADATA else f"(not kept: {len(text):,} letters)"
    return kept
