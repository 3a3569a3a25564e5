"""V-JEPA 2 and 2.1 (arXiv:2506.09985): self-supervised video transformers with published checkpoints."""

from keystep.extraction.backbones.vjepa.config import MODELS, VJEPAConfig
from keystep.extraction.backbones.vjepa.features import VJEPA, load
from keystep.extraction.backbones.vjepa.model import VJEPAEncoder

__all__ = ["MODELS", "VJEPA", "VJEPAConfig", "VJEPAEncoder", "load"]
