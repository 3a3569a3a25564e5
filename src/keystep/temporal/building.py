"""From settings to a head, and to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from keystep.config.base import build
from keystep.errors import InputError
from keystep.persistence import check_format, load_strict, load_tensors, read_metadata, save_tensors
from keystep.temporal.config import KINDS, AttentiveConfig, ContextConfig, HeadConfig, LinearConfig, MstcnConfig
from keystep.temporal.context import Context
from keystep.temporal.head import TemporalHead
from keystep.temporal.mstcn import Mstcn
from keystep.temporal.probes import AttentiveProbe, LinearProbe

FORMAT = "keystep-temporal-head"
FORMAT_VERSION = "1"


def build_head(config: HeadConfig, width: int, classes: int, seed: int | None = None) -> TemporalHead:
    """An untrained head for features ``width`` wide. seed: of its weights; None: torch's own generator goes on."""
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_head(config, width, classes)
    match config:
        case LinearConfig():
            return LinearProbe(config, width, classes)
        case AttentiveConfig():
            return AttentiveProbe(config, width, classes)
        case MstcnConfig():
            return Mstcn(config, width, classes)
        case ContextConfig():
            return Context(config, width, classes)


def save_head(path: Path | str, head: TemporalHead) -> None:
    """Write one safetensors file, whole or not at all."""
    record = {
        "config": head.config.model_dump(mode="json"),
        "width": head.width,
        "classes": head.classes,
        "names": head.names,
        "origin": dict(head.origin),
    }
    header = {"format": FORMAT, "version": FORMAT_VERSION, "head": json.dumps(record)}
    save_tensors(Path(path), head.state_dict(), header)


def load_head(path: Path | str) -> TemporalHead:
    """A head that `save_head` wrote, in eval mode.

    Raises:
        InputError: no such file, a damaged one, one of another format or version, weights that do not fit.
    """
    path = Path(path)
    header = read_metadata(path)
    check_format(path, header, FORMAT, FORMAT_VERSION, "a temporal head that keystep trained")
    try:
        record = json.loads(header["head"])
        config = build(KINDS[record["config"]["kind"]], record["config"])
        head = build_head(config, int(record["width"]), int(record["classes"]))
        head.names, head.origin = tuple(record["names"]), dict(record["origin"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: its record is damaged: {reason}") from error
    load_strict(head, load_tensors(path), str(path))
    return head.eval()
