"""Find data sets by name (`keystep.plugins.DATA_SETS`); their classes are imported on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from keystep.config.base import build, config_of
from keystep.datasets.survey import Preparer
from keystep.plugins import DATA_SETS


def preparer(name: str, settings: Mapping[str, Any]) -> Preparer:
    """Create the preparer of a data set.

    Args:
        name: of the data set.
        settings: its options.

    Raises:
        InputError: an unknown data set or option (with the nearest known one), or an invalid value.
    """
    kind = DATA_SETS.find(name)
    return cast("Preparer", kind(build(config_of(kind, BaseModel), settings)))
