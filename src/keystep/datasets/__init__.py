"""Downloaded data sets, checked against what was published, as feature folders that everything else reads."""

from keystep.datasets.preparation import Prepared, examine, prepare
from keystep.datasets.registry import DATA_SETS
from keystep.datasets.survey import Survey

__all__ = ["DATA_SETS", "Prepared", "Survey", "examine", "prepare"]
