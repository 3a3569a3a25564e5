"""Heads on frozen latents or other features: they map the frames of a video to class scores of every frame.

``head_config("context", {"causal": True})`` makes settings, `build_head` an untrained head, and `train_head` a trained
one, selected on validation videos. ``head.save(path)`` and `load_head` store it; `describe` measures it. Causal heads
run on streams as models do (`keystep.stream`), and are exported with them.
"""

from keystep.heads.config import PRESETS, HeadConfig, TrainingConfig
from keystep.heads.description import Description, describe, frames_per_second
from keystep.heads.head import Head
from keystep.heads.linear import Affine, LinearHead, linear_head
from keystep.heads.registry import build_head, head_config, load_head
from keystep.heads.training import TrainedHead, train_head
from keystep.heads.videos import Videos

__all__ = [
    "PRESETS",
    "Affine",
    "Description",
    "Head",
    "HeadConfig",
    "LinearHead",
    "TrainedHead",
    "TrainingConfig",
    "Videos",
    "build_head",
    "describe",
    "frames_per_second",
    "head_config",
    "linear_head",
    "load_head",
    "train_head",
]
