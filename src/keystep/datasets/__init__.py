"""Convert downloaded data sets to feature folders, after comparing them with the published numbers."""

from keystep.datasets.preparation import Prepared, examine, prepare
from keystep.datasets.survey import Survey
from keystep.plugins import DATA_SETS

__all__ = ["DATA_SETS", "Prepared", "Survey", "examine", "prepare"]
