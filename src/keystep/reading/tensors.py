"""The header of a safetensors file: what it claims, held against the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from keystep.errors import InputError, named, one_line
from keystep.reading.records import Record, checked
from keystep.reading.text import check_regular, parse_json

MOST_HEADER = 64 << 20
ITEM_BITS: Mapping[str, int] = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16},
    **{"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64},
}
Size = Annotated[int, Field(ge=0)]


class _Tensor(Record):
    dtype: str
    shape: Annotated[list[Size], Field(max_length=32)]
    data_offsets: Annotated[list[Size], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class TensorHeader:
    """metadata: the record that was kept with the tensors. shapes: of each tensor."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> TensorHeader:
    """The header of a safetensors file; its tensors fill the file without gaps.

    Raises:
        InputError: missing, cut off, no safetensors file, or one that is not as large as it claims.
    """
    size = check_regular(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MOST_HEADER):
                raise ValueError(f"a header of {length:,} bytes is claimed in a file of {size:,}")
            header = parse_json(file.read(length).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a whole safetensors file: its header is no object")
    metadata = checked(dict[str, str], header.pop("__metadata__", {}), f"{path}, __metadata__")
    tensors = {name: checked(_Tensor, value, f"{path}, {named(name)}") for name, value in header.items()}
    _check_layout(path, tensors, size - 8 - length)
    return TensorHeader(metadata, {name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _check_layout(path: Path, tensors: Mapping[str, Any], held: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        first, last = tensor.data_offsets
        bits = ITEM_BITS.get(tensor.dtype)
        if bits is None:
            raise InputError(f"{path}: {named(name)} has the type {named(tensor.dtype)}, which is not read")
        if first != end or (last - first) * 8 != bits * math.prod(tensor.shape):
            raise InputError(
                f"{path}: not a whole safetensors file: {named(name)}, {tensor.dtype} {tuple(tensor.shape)}, claims "
                f"the bytes {first:,} to {last:,}"
            )
        end = last
    if end != held:
        raise InputError(f"{path}: not a whole safetensors file: {held:,} bytes of tensors, {end:,} are claimed")
