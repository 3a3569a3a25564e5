"""What a file has to hold, said once as a pydantic model and checked before any of it is used."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from keystep.errors import InputError, named, quoted
from keystep.reading.text import MOST_JSON, read_json


class Record(BaseModel):
    """Base of what files hold: types as they are written, nothing converted; names that are not listed are left out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


Kind = TypeVar("Kind")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(kind: type[Kind], data: Any, source: str) -> Kind:
    """Data as a record (or any type that pydantic knows).

    Raises:
        InputError: the first thing that is missing or does not fit, with its place; names ``source``.
    """
    try:
        return cast(Kind, _adapter(cast(Any, kind)).validate_python(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(named(str(part)) for part in first["loc"])
        found = (
            "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", not {quoted(first['input'])}"
        )
        said = first["msg"].removeprefix("Value error, ")
        message = said[:1].lower() + said[1:]
        raise InputError(f"{source}: {f'{place}: ' if place else ''}{message}{found}") from error


def read_record(path: Path, kind: type[Kind], most: int = MOST_JSON) -> Kind:
    """The object in a JSON file as a record.

    Raises:
        InputError: what `keystep.reading.read_json` and `checked` raise.
    """
    return checked(kind, read_json(path, most), str(path))
