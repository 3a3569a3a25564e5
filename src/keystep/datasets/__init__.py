"""Downloaded data sets, checked against what was published, as feature folders that everything else reads."""

from keystep.datasets.preparation import Prepared, examine, prepare
from keystep.datasets.survey import Survey
from keystep.plugins import DATA_SETS

__all__ = ["DATA_SETS", "Prepared", "Survey", "examine", "prepare"]
