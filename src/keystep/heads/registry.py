"""Which heads there are: from settings to a head, and back from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator

from keystep.config.base import build
from keystep.config.model import MOST_INPUTS
from keystep.errors import InputError, quoted
from keystep.heads.attentive import AttentiveProbe
from keystep.heads.config import KINDS, MOST_CLASSES, HeadConfig
from keystep.heads.head import FORMAT, FORMAT_VERSION, Head
from keystep.heads.linear import LinearHead
from keystep.heads.long_context import LongContext
from keystep.heads.mstcn import Mstcn
from keystep.persistence import check_format, check_size, load_strict, load_tensors, read_metadata
from keystep.reading import Record, checked, parse_json

HEADS: Mapping[str, type[Any]] = MappingProxyType(
    {"linear": LinearHead, "attentive": AttentiveProbe, "mstcn": Mstcn, "context": LongContext}
)
"""The head of each kind, made from (its config, width, classes)."""


class _HeadRecord(Record):
    """What the header of a head's file holds, see `Head.save`."""

    config: dict[str, Any]
    width: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    names: list[str]
    origin: dict[str, str]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(self.names) not in (0, self.classes):
            raise ValueError(f"{len(self.names)} names for {self.classes} classes")
        return self


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
        record = checked(_HeadRecord, parse_json(header.get("head", "null")), "head")
        kind = record.config.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise InputError(f"unknown kind {quoted(kind)}; known: {', '.join(KINDS)}")
        config = build(KINDS[kind], record.config)
    except ValueError as error:
        raise InputError(
            f"{path}: its record is damaged: {str(error).removeprefix(f'{path}, its record: ')}"
        ) from error
    check_size(lambda: build_head(config, record.width, record.classes), path)
    head = build_head(config, record.width, record.classes)
    head.names, head.origin = tuple(record.names), record.origin
    load_strict(head, load_tensors(path), str(path))
    return head.eval()
