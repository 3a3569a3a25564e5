"""A model's stream for devices without PyTorch: one step, ``step(x, *state) -> (y, *state)``, in ONNX or torch.export.

The state is plain tensors of fixed size that any runtime can hold; the numbers are those of `keystep.stream`.
"""

from keystep.export.artefact import export_step
from keystep.export.step import ExportedStep

__all__ = ["ExportedStep", "export_step"]
