"""Which heads there are: from settings to a head, and back from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from keystep.config.base import build
from keystep.errors import InputError
from keystep.heads.attentive import AttentiveProbe
from keystep.heads.config import KINDS, HeadConfig
from keystep.heads.head import FORMAT, FORMAT_VERSION, Head
from keystep.heads.linear import LinearHead
from keystep.heads.long_context import LongContext
from keystep.heads.mstcn import Mstcn
from keystep.persistence import check_format, load_strict, load_tensors, read_metadata

HEADS: Mapping[str, type[Any]] = MappingProxyType(
    {"linear": LinearHead, "attentive": AttentiveProbe, "mstcn": Mstcn, "context": LongContext}
)
"""The head of each kind, made from (its config, width, classes)."""


def build_head(config: HeadConfig, width: int, classes: int, seed: int | None = None) -> Head:
    """An untrained head for features ``width`` wide.

    Args:
        seed: of its weights; None: torch's own generator is used as it is.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_head(config, width, classes)
    head: Head = HEADS[config.kind](config, width, classes)
    return head


def load_head(path: Path | str) -> Head:
    """A head that `Head.save` wrote, in eval mode.

    Raises:
        InputError: no such file, a damaged one, one of another format or version, weights that do not fit.
    """
    path = Path(path)
    header = read_metadata(path)
    check_format(path, header, FORMAT, FORMAT_VERSION, "a head that keystep wrote")
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
