"""Export of models and heads to ONNX or torch.export, to run without PyTorch: ``step(x, *state) -> (y, *state)``.

Models and heads that use future frames are exported as a graph for whole videos, ``video(x) -> y``. The state consists
of tensors of fixed size that any runtime can hold. Results equal those of `keystep.stream`.
"""

from keystep.export.artefact import export_step, export_video
from keystep.export.step import ExportedStep
from keystep.export.video import ExportedVideo

__all__ = ["ExportedStep", "ExportedVideo", "export_step", "export_video"]
