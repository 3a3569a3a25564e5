"""Annotations as files of other programs, in and out; times survive to the slot, and what is lost is said.

`export_annotations` writes the labels of a feature folder in one of `keystep.plugins.FORMATS`, `import_annotations`
reads such files into ``groundTruth/``. One file a format, behind one protocol (`formats.Format`).
"""

from keystep.exchange.exporting import Exported, export_annotations
from keystep.exchange.importing import ImportedAnnotations, import_annotations
from keystep.plugins import FORMATS

__all__ = ["FORMATS", "Exported", "ImportedAnnotations", "export_annotations", "import_annotations"]
