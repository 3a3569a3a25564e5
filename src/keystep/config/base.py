"""The base class of all settings, and how they are built from layers, YAML files and the command line's ``--set``.

An error lists all problems at once and suggests the nearest known name for an unknown one.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from keystep.errors import InputError, named, one_line, quoted
from keystep.files import replacing
from keystep.plugins import allow, specs_in
from keystep.reading import parse_yaml, read_text
from keystep.reading.text import DEPTH, MOST_YAML

AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


class Config(BaseModel):
    """Base class of all settings: immutable, finite numbers only, unknown names are errors.

    The docstring under each field is its description in ``keystep config`` and in the JSON schema.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_parts(cls, data: Any) -> Any:
        """A nested config that is given in part keeps the rest of its default, such as the kind of an attention."""
        if not isinstance(data, Mapping):
            return data
        parts = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, Config)}
        given = {name: data[name] for name in parts if isinstance(data.get(name), Mapping)}
        return {**data, **{name: merged(parts[name].model_dump(exclude_unset=True), given[name]) for name in given}}


def build(kind: type[AnyConfig], *layers: Mapping[str, Any]) -> AnyConfig:
    """Build a validated config from nested dictionaries; later ones override earlier ones.

    Raises:
        InputError: lists every unknown name (with the nearest known one) and every invalid value, with its path.
    """
    try:
        return kind.model_validate(merged(*layers))
    except ValidationError as error:
        raise InputError("; ".join(_explain(kind, item) for item in error.errors())) from error


def config_of(kind: type[Any], base: type[AnyConfig]) -> type[AnyConfig]:
    """Return the class of a plug-in's settings, from the annotation of its ``__init__`` argument ``config``.

    Raises:
        InputError: if there is no such annotation, or it is not derived from ``base``.
    """
    try:
        annotation = get_type_hints(kind.__init__).get("config")
    except NameError as error:
        raise InputError(f"{kind.__name__}: cannot resolve the annotations of __init__: {error}") from error
    options = (option for option in get_args(annotation) or (annotation,))
    found = next((option for option in options if isinstance(option, type) and issubclass(option, base)), None)
    if found is None:
        raise InputError(
            f"{kind.__name__}: __init__ has no argument config annotated with a class derived from {base.__name__}"
        )
    return found


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries; later ones override earlier ones."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(value, Mapping) and isinstance(below, Mapping)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def assignments(settings: list[str]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` settings, such as ``["train.steps=100"]``, into a nested dictionary; values are YAML.

    The user typed these, so plug-ins that they name may be imported (`keystep.plugins.allow`).

    Raises:
        InputError: if a setting is not ``NAME=VALUE``, its value is not YAML, or its name is nested too deeply.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(f"--set {setting!r} is not NAME=VALUE, such as train.steps=1000")
        try:
            value = _number(parse_yaml(text))
        except ValueError as error:
            raise InputError(f"--set {setting!r}: {text!r} is not a YAML value") from error
        names = path.split(".")
        if len(names) > DEPTH:
            raise InputError(f"--set {quoted(setting)}: nested more than {DEPTH} levels deep")
        for key in reversed(names):
            value = {key: value}
        result = merged(result, value)
    allow(*specs_in(result))
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file into nested dictionaries.

    Raises:
        InputError: if the file cannot be read, or is not a YAML mapping from names to values.
    """
    text = read_text(path, MOST_YAML)
    try:
        data = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{path}: invalid YAML: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of names to values, found {type(data).__name__}")
    strange = next((key for key in data if not isinstance(key, str)), None)
    if strange is not None:
        raise InputError(f"{path}: {quoted(strange)} is not the name of a setting")
    return {key: _number(value) for key, value in data.items()}


def write_yaml(path: Path, config: BaseModel) -> None:
    """Write all settings of a config to a YAML file, defaults included."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _number(value: Any) -> Any:
    """Convert text such as 1e-4, which YAML 1.1 does not read as a number, to a float."""
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, str) and value[:1].isdigit() and "e" in value.lower():
        try:
            return float(value) if math.isfinite(float(value)) else value
        except ValueError:
            return value
    return value


def _explain(kind: type[BaseModel], item: Any) -> str:
    path = ".".join(named(str(part)) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = _fields(kind, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
        return f"unknown setting {path}" + (f" (did you mean {near[0]}?)" if near else f"; known: {', '.join(names)}")
    message = str(item["msg"]).removeprefix("Value error, ")
    where = f"{path}: " if path else ""
    return where + message + (f", not {quoted(item['input'])}" if not isinstance(item["input"], dict) else "")


def _fields(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the names of the settings at a path inside a config class."""
    current: Any = kind
    for part in path:
        if isinstance(part, int):
            current = next(iter(get_args(current)), None)
        elif isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        if get_origin(current) in (Union, types.UnionType):
            current = next((option for option in get_args(current) if option is not type(None)), current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
