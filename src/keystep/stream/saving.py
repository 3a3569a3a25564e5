"""Streams on disk: a stream survives the end of its process, and goes on to the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import ref

from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.cache import Cache
from keystep.nn.context import Kind, Memory
from keystep.persistence import check_format, load_tensors, read_metadata, save_tensors, weights_signature
from keystep.stream.state import Network, StreamState

FORMAT = "keystep-stream"
FORMAT_VERSION = "2"
MODEL, HEAD = "model", "head"
"""The networks that a file may hold the states of."""


def save(path: Path | str, network: Network, state: StreamState, extra: Mapping[str, Any] | None = None) -> None:
    """Write a stream's state to one safetensors file, whole or not at all; ``extra`` is plain data to keep with it."""
    save_all(path, {MODEL: (network, state)}, extra)


def load(path: Path | str, network: Network) -> StreamState:
    """The state of a stream that `save` wrote, on the network's device.

    Raises:
        InputError: no such file, a damaged one, another format or version, or another network's state.
    """
    return load_all(path, {MODEL: network})[0][MODEL]


def save_all(
    path: Path | str, parts: Mapping[str, tuple[Network, StreamState]], extra: Mapping[str, Any] | None = None
) -> None:
    """What `save` does, with the states of several networks in one file."""
    record = {"format": FORMAT, "version": FORMAT_VERSION, "extra": json.dumps(dict(extra or {}))}
    tensors: dict[str, Tensor] = {}
    for part, (network, state) in parts.items():
        described, own = _described(network, state)
        record[part] = json.dumps(described)
        tensors |= {f"{part}.{name}": tensor for name, tensor in own.items()}
    save_tensors(Path(path), tensors, record)


def load_all(path: Path | str, networks: Mapping[str, Network]) -> tuple[dict[str, StreamState], dict[str, Any]]:
    """The state of each network, and the plain data that was kept with them."""
    path = Path(path)
    record = read_metadata(path)
    check_format(path, record, FORMAT, FORMAT_VERSION, "a stream's state")
    found = [part for part in (MODEL, HEAD) if part in record]
    if found != [*networks]:
        raise InputError(f"{path}: the state of a {' and a '.join(found)}; resume it with no less and no more")
    tensors = load_tensors(path)
    states = {part: _restored(path, part, network, record, tensors) for part, network in networks.items()}
    return states, json.loads(record.get("extra", "{}"))


def _described(network: Network, state: StreamState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state as plain data and tensors."""
    tensors = {"waiting": state.waiting, **{f"states.{name}": x for name, x in state.memory.states.items()}}
    caches = []
    for number, (kind, cache) in enumerate(state.memory.caches.items()):
        tensors[f"{number}.positions"] = cache.positions
        for name in cache.names:
            tensors[f"{number}.keys.{name}"], tensors[f"{number}.values.{name}"] = cache.read(name)
        pattern = kind.pattern.model_dump(mode="json")
        caches.append({"pattern": pattern, "stride": kind.stride, "lies": cache.geometry, "names": cache.names})
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


def _restored(
    path: Path, part: str, network: Network, record: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> StreamState:
    """The state of one network."""
    device = next(network.parameters()).device

    def tensor(name: str) -> Tensor:
        return tensors[f"{part}.{name}"].to(device)

    try:
        described = json.loads(record[part])
        if described["config"] != network.config.model_dump(mode="json") or described["weights"] != weights_signature(
            network
        ):
            raise InputError(f"{path}: the state of another {part}; load the {part} that the stream was begun with")
        caches = {}
        for number, cache in enumerate(described["caches"]):
            parts = {
                name: (tensor(f"{number}.keys.{name}"), tensor(f"{number}.values.{name}")) for name in cache["names"]
            }
            kind = Kind(AttentionPattern.model_validate(cache["pattern"]), cache["stride"])
            caches[kind] = Cache.rebuilt(tensor(f"{number}.positions"), parts, *cache["lies"])
        return StreamState(
            owner=ref(network),
            weights=described["weights"],
            config=network.config,
            frames=tuple(described["frames"]),
            memory=Memory(caches, {name: tensor(f"states.{name}") for name in described["states"]}),
            waiting=tensor("waiting"),
            held=tuple(described["held"]),
            given=tuple(described["given"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its record is damaged: {type(error).__name__} {error}") from error
