"""Streams on disk: a stream survives the end of its process, and goes on to the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import ref

from keystep.errors import InputError
from keystep.persistence import check_format, load_tensors, read_metadata, save_tensors, weights_signature
from keystep.pjepa import PJEPA
from keystep.stream.cache import Cache
from keystep.stream.state import StreamState

FORMAT = "keystep-stream"
FORMAT_VERSION = "1"


def save(path: Path | str, model: PJEPA, state: StreamState, extra: Mapping[str, Any] | None = None) -> None:
    """Write a stream's state to one safetensors file, whole or not at all; ``extra`` is plain data to keep with it."""
    tensors = {"positions": state.cache.positions, "waiting": state.waiting, "total": state.total}
    for block in range(model.config.depth):
        tensors[f"keys.{block}"] = state.cache.keys(block)
        tensors[f"values.{block}"] = state.cache.values(block)
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": model.config.model_dump_json(),
        "weights": state.weights,
        "counts": json.dumps([state.frames, state.held, state.given, state.cache.geometry]),
        "extra": json.dumps(dict(extra or {})),
    }
    save_tensors(Path(path), tensors, record)


def load(path: Path | str, model: PJEPA) -> StreamState:
    """The state of a stream that `save` wrote, on the model's device.

    Raises:
        InputError: no such file, a damaged one, another format or version, or another model's state.
    """
    return load_with_extra(path, model)[0]


def load_with_extra(path: Path | str, model: PJEPA) -> tuple[StreamState, dict[str, Any]]:
    """What `load` gives, and the plain data that was kept with it."""
    path = Path(path)
    record = read_metadata(path)
    check_format(path, record, FORMAT, FORMAT_VERSION, "a stream's state")
    if record.get("config") != model.config.model_dump_json() or record.get("weights") != weights_signature(model):
        raise InputError(f"{path}: the state of another model; load the model that the stream was begun with")
    tensors = load_tensors(path)
    frames, held, given, (start, capacity) = _counts(path, record)
    device = model.mask_token.device
    keys, values = (
        [tensors[f"{part}.{block}"].to(device) for block in range(model.config.depth)] for part in ("keys", "values")
    )
    state = StreamState(
        owner=ref(model),
        weights=record["weights"],
        config=model.config,
        frames=tuple(frames),
        cache=Cache.rebuilt(tensors["positions"].to(device), keys, values, start, capacity),
        waiting=tensors["waiting"].to(device),
        held=tuple(held),
        total=tensors["total"].to(device),
        given=tuple(given),
    )
    return state, json.loads(record["extra"])


def _counts(path: Path, record: dict[str, str]) -> Any:
    try:
        return json.loads(record["counts"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: its record is damaged: {error}") from error
