"""Data sets by name; a class is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, cast, get_args, get_type_hints

from pydantic import BaseModel

from keystep.config.base import build
from keystep.datasets.survey import Preparer
from keystep.errors import InputError

DATA_SETS: Mapping[str, str] = {
    "assembly101": "keystep.datasets.assembly101:Assembly101",
    "egoprocel": "keystep.datasets.egoprocel:EgoProceL",
    "egoexo4d": "keystep.datasets.egoexo4d:EgoExo4D",
    "breakfast": "keystep.datasets.mstcn:Breakfast",
    "50salads": "keystep.datasets.mstcn:Salads50",
    "gtea": "keystep.datasets.mstcn:GTEA",
    "cholec80": "keystep.datasets.surgical:Cholec80",
    "m2cai16": "keystep.datasets.surgical:M2CAI16",
}
"""Name -> module and class of its `Preparer`."""


def find_data_set(name: str) -> type[Any]:
    """The class of a data set.

    Raises:
        InputError: an unknown name, or a data set that this installation does not have.
    """
    if name not in DATA_SETS:
        near = difflib.get_close_matches(name, DATA_SETS, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(DATA_SETS)}"
        raise InputError(f"no data set {name!r}; {known}")
    module, _, kind = DATA_SETS[name].partition(":")
    try:
        return cast("type[Any]", getattr(importlib.import_module(module), kind))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise InputError(f"{name}: this installation of keystep has no module {module}") from error


def preparer(name: str, settings: Mapping[str, Any]) -> Preparer:
    """A data set with options.

    Raises:
        InputError: an unknown data set or option (with the nearest known one), or a bad value.
    """
    kind = find_data_set(name)
    return cast("Preparer", kind(build(options_of(kind), settings)))


def options_of(kind: type[Any]) -> type[BaseModel]:
    """The class of a preparer's options, from the annotation of its argument ``config``."""
    annotation = get_type_hints(kind.__init__)["config"]
    options = (option for option in get_args(annotation) or (annotation,) if issubclass(option, BaseModel))
    return cast("type[BaseModel]", next(options))
