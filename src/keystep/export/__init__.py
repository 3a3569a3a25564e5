"""Models and heads without PyTorch: one step, ``step(x, *state) -> (y, *state)``, in ONNX or torch.export.

Models and heads that see the future are exported as a graph of whole videos, ``video(x) -> y``.
The state is plain tensors of fixed size that any runtime can hold; the numbers are those of `keystep.stream`.
"""

from keystep.export.artefact import export_step, export_video
from keystep.export.step import ExportedStep
from keystep.export.video import ExportedVideo

__all__ = ["ExportedStep", "ExportedVideo", "export_step", "export_video"]
