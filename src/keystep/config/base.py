"""The base of all settings, and how they are built: layers, files (YAML) and the command line's ``--set``.

Errors list everything that is wrong at once, and suggest the nearest known name.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from keystep.errors import InputError
from keystep.files import replacing

AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


class Config(BaseModel):
    """Base of all settings: immutable, finite, unknown names refused, documented by the lines under the fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
    )


def build(kind: type[AnyConfig], *layers: Mapping[str, Any]) -> AnyConfig:
    """One checked config from nested dictionaries, later ones on top.

    Raises:
        InputError: every unknown name (with the nearest known one) and every bad value, with its path.
    """
    try:
        return kind.model_validate(merged(*layers))
    except ValidationError as error:
        raise InputError("; ".join(_explain(kind, item) for item in error.errors())) from error


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one, later ones on top."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(value, Mapping) and isinstance(below, Mapping)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def assignments(settings: list[str]) -> dict[str, Any]:
    """``["train.steps=100"]`` as a nested dictionary; values are read as YAML."""
    result: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(f"--set {setting!r} is not NAME=VALUE, such as train.steps=1000")
        try:
            value = _number(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting!r}: {text!r} is not a YAML value") from error
        for key in reversed(path.split(".")):
            value = {key: value}
        result = merged(result, value)
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """A config file as nested dictionaries."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected names and values, found {type(data).__name__}")
    return {key: _number(value) for key, value in data.items()}


def write_yaml(path: Path, config: BaseModel) -> None:
    """All settings of a config, defaults included, so that the file says everything."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; people mean the number."""
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, str) and value[:1].isdigit() and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(kind: type[BaseModel], item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = _fields(kind, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
        return f"unknown setting {path}" + (f" (did you mean {near[0]}?)" if near else f"; known: {', '.join(names)}")
    message = str(item["msg"]).removeprefix("Value error, ")
    where = f"{path}: " if path else ""
    return where + message + (f", not {item['input']!r}" if not isinstance(item["input"], dict) else "")


def _fields(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a path inside a config class."""
    current: Any = kind
    for part in path:
        if isinstance(part, int):
            current = get_args(current)[0]
        elif isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        if get_origin(current) in (Union, types.UnionType):
            current = next((option for option in get_args(current) if option is not type(None)), current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
