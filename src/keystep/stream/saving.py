"""Save and load the state of streams; a restored stream continues bit-identically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from weakref import ref

import torch
from pydantic import Field, model_validator
from torch import Tensor

from keystep.errors import InputError, named, one_line, quoted
from keystep.nn.cache import EMPTY, Cache
from keystep.nn.context import SPARE, Kind, Memory
from keystep.persistence import check_format, load_tensors, read_metadata, save_tensors, weights_signature
from keystep.reading import Record, checked, parse_json
from keystep.stream.state import Network, StreamState
from keystep.stream.steps import CHUNK, example

FORMAT = "keystep-stream"
FORMAT_VERSION = "3"
MODEL, HEAD = "model", "head"
"""Names of the networks in a file."""

Kept = TypeVar("Kept")
Count = Annotated[int, Field(ge=0, le=10**15)]


class _CacheRecord(Record):
    """Schema of the keys of one kind. kind: pattern and stride. lies: first column, and columns in the buffers."""

    kind: Annotated[list[Any], Field(min_length=2, max_length=2)]
    lies: Annotated[list[Count], Field(min_length=2, max_length=2)]
    names: list[str]


class _StateRecord(Record):
    """Schema of the header's entry about the state of one network."""

    config: dict[str, Any]
    weights: str
    frames: Annotated[list[Count], Field(min_length=1)]
    held: list[Count]
    given: list[Count]
    caches: list[_CacheRecord]
    states: list[str]

    @model_validator(mode="after")
    def _check_stream_counts(self) -> Self:
        if not len(self.frames) == len(self.held) == len(self.given):
            raise ValueError(f"{len(self.frames)} frames, {len(self.held)} held, {len(self.given)} given of streams")
        return self


def save(path: Path | str, network: Network, state: StreamState, extra: Mapping[str, Any] | None = None) -> None:
    """Write the state of a stream to one safetensors file, atomically.

    Args:
        path: the file.
        network: the model or head of the state.
        state: to save.
        extra: plain data of the caller to store with it.

    Raises:
        InputError: the file cannot be written.
    """
    save_all(path, {MODEL: (network, state)}, extra)


def load(path: Path | str, network: Network) -> StreamState:
    """Load the state of a stream that `save` wrote, to the network's device.

    Args:
        path: the file.
        network: the model or head of the state.

    Raises:
        InputError: a missing or damaged file, another format or version, or the state of another network.
    """
    return load_all(path, {MODEL: network})[0][MODEL]


def save_all(
    path: Path | str, parts: Mapping[str, tuple[Network, StreamState]], extra: Mapping[str, Any] | None = None
) -> None:
    """Like `save`, with the states of several networks in one file: name (`MODEL`, `HEAD`) -> network and state."""
    record = {"format": FORMAT, "version": FORMAT_VERSION, "extra": json.dumps(dict(extra or {}))}
    tensors: dict[str, Tensor] = {}
    for part, (network, state) in parts.items():
        described, own = _describe(network, state)
        record[part] = json.dumps(described)
        tensors |= {f"{part}.{name}": tensor for name, tensor in own.items()}
    save_tensors(Path(path), tensors, record)


def load_all(path: Path | str, networks: Mapping[str, Network]) -> tuple[dict[str, StreamState], dict[str, Any]]:
    """Like `load`, for several networks.

    Args:
        path: the file.
        networks: name (`MODEL`, `HEAD`) -> network, exactly those of the file.

    Returns:
        The state of each network, and the caller's extra data.

    Raises:
        InputError: as for `load`, or the file has states of other networks.
    """
    path = Path(path)
    record = read_metadata(path)
    check_format(path, record, FORMAT, FORMAT_VERSION, "a stream's state")
    found = [part for part in (MODEL, HEAD) if part in record]
    if found != [*networks]:
        raise InputError(f"{path}: the state of a {' and a '.join(found)}; resume it with exactly these")
    described = {part: _read_part(path, record, part, _StateRecord) for part in networks}
    extra = _read_part(path, record, "extra", dict[str, Any])
    for part, network in networks.items():
        _check_network(path, part, network, described[part])
    tensors = load_tensors(path, hashed=True)
    states = {
        part: _Restorer(path, part, network, tensors).state(described[part]) for part, network in networks.items()
    }
    return states, extra


def _read_part(path: Path, record: Mapping[str, str], name: str, kind: type[Kept]) -> Kept:
    try:
        data = parse_json(record.get(name, "null"))
    except ValueError as error:
        raise InputError(f"{path}: its record is damaged: {name}: {one_line(error)}") from error
    return checked(kind, data, f"{path}: its record is damaged: {name}")


def _check_network(path: Path, part: str, network: Network, described: _StateRecord) -> None:
    if described.config != network.config.model_dump(mode="json") or described.weights != weights_signature(network):
        raise InputError(f"{path}: the state of another {part}; load the {part} that the stream was started with")


def _describe(network: Network, state: StreamState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state as plain data and tensors."""
    tensors = {"waiting": state.waiting, **{f"states.{name}": x for name, x in state.memory.states.items()}}
    caches = []
    for number, (kind, cache) in enumerate(state.memory.caches.items()):
        tensors[f"{number}.positions"] = cache.positions
        for name in cache.names:
            tensors[f"{number}.keys.{name}"], tensors[f"{number}.values.{name}"] = cache.read(name)
        which = [kind.pattern.model_dump(mode="json"), kind.stride]
        caches.append({"kind": which, "lies": cache.geometry, "names": cache.names})
    described = {
        "config": network.config.model_dump(mode="json"),
        "weights": state.weights,
        "frames": state.frames,
        "held": state.held,
        "given": state.given,
        "caches": caches,
        "states": [*state.memory.states],
    }
    return described, tensors


class _Restorer:
    """Rebuilds the state of one network, and checks each tensor against what the network caches."""

    def __init__(self, path: Path, part: str, network: Network, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.part, self.network = path, part, network
        self.own = {
            name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")
        }
        self.example = example(network)

    def state(self, described: _StateRecord) -> StreamState:
        """The state, on the network's device.

        Raises:
            InputError: a missing tensor, or one with an unexpected type, shape or value.
        """
        streams = len(described.frames)
        waiting = self._take("waiting", self.example.waiting, (streams, max(described.held)), (0, 1))
        memory = Memory(
            dict(self._cache(*each, described) for each in enumerate(described.caches)),
            {name: self._state(name, streams) for name in described.states},
        )
        self._check_complete(described, memory)
        return StreamState(
            owner=ref(self.network),
            weights=described.weights,
            config=self.network.config,
            frames=tuple(described.frames),
            memory=memory,
            waiting=waiting,
            held=tuple(described.held),
            given=tuple(described.given),
        )

    def _state(self, name: str, streams: int) -> Tensor:
        like = self.example.memory.states.get(name)
        if like is None:
            raise self._damage_error(f"a state {named(name)}, which this {self.part} does not have")
        return self._take(f"states.{name}", like, (streams,), (0,))

    def _cache(self, number: int, record: _CacheRecord, described: _StateRecord) -> tuple[Kind, Cache]:
        kinds = self.example.memory.caches
        kind = next(
            (kind for kind in kinds if [kind.pattern.model_dump(mode="json"), kind.stride] == record.kind), None
        )
        if kind is None or {*record.names} != {*kinds[kind].names} or len(record.names) != len(kinds[kind].names):
            raise self._damage_error(f"keys {quoted(record.kind)}, which this {self.part} does not keep")
        positions = self._take(f"{number}.positions", kinds[kind].positions, (len(described.frames), None), (0, 1))
        ends = torch.tensor(described.frames, device=positions.device)[:, None]
        if bool((positions < EMPTY).any()) or bool((positions >= ends).any()):
            raise self._damage_error("keys of future frames")
        columns, (start, capacity) = positions.shape[1], record.lies
        if not start + columns <= capacity <= _most_columns(kind, columns, self.network):
            raise self._damage_error(f"{columns} keys from {start} on in buffers for {capacity}")
        parts = {}
        for name in record.names:
            like, shape = kinds[kind].read(name), (len(described.frames), columns)
            keys, values = (
                self._take(f"{number}.{what}.{name}", own, shape, (0, 2))
                for what, own in zip(("keys", "values"), like, strict=True)
            )
            parts[name] = (keys, values)
        return kind, Cache.from_saved(positions, parts, start, capacity)

    def _take(self, name: str, like: Tensor, sizes: tuple[int | None, ...], axes: tuple[int, ...]) -> Tensor:
        """A tensor with the type and shape of ``like``, except for ``sizes`` along ``axes`` (None: any size)."""
        if name not in self.own:
            raise self._damage_error(f"no tensor {named(name)}")
        tensor, expected = self.own[name], list(like.shape)
        for axis, size in zip(axes, sizes, strict=True):
            if tensor.ndim > axis:
                expected[axis] = tensor.shape[axis] if size is None else size
        if list(tensor.shape) != expected or tensor.dtype != like.dtype:
            raise self._damage_error(
                f"{named(name)} is {tuple(tensor.shape)} {tensor.dtype}, not {tuple(expected)} {like.dtype}"
            )
        if not bool(tensor.isfinite().all()):
            raise self._damage_error(f"{named(name)} holds NaN or infinity")
        return tensor.to(like.device)

    def _check_complete(self, described: _StateRecord, memory: Memory) -> None:
        """Check that the stream has all parts that its network caches; before the first frame it may have none."""
        own = self.example.memory
        parts = (memory.caches.keys(), own.caches.keys()), (memory.states.keys(), own.states.keys())
        started = any(described.frames) or memory.caches or memory.states
        if started and any(found != needed for found, needed in parts):
            raise self._damage_error(f"parts of what this {self.part} caches are missing")
        if len(described.caches) != len(memory.caches) or len(described.states) != len(memory.states):
            raise self._damage_error("a part is named twice")

    def _damage_error(self, what: str) -> InputError:
        return InputError(f"{self.path}: its record is damaged: {self.part}: {what}")


def _most_columns(kind: Kind, columns: int, network: Network) -> int:
    """Largest number of columns that buffers with ``columns`` keys can have."""
    pattern = kind.pattern
    piece = max(CHUNK, pattern.block or 1, getattr(network, "delay", None) or 0) + 1
    return 2 * columns + SPARE + (pattern.window or 0) + (pattern.memory or 0) + 2 * piece
