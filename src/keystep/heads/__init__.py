"""Heads on frozen latents, or on any features: a video's frames in, class scores of every frame out.

``head_config("context", {"causal": True})`` -> settings, `build_head` -> a head, `train_head` -> a trained one that was
chosen on validation videos, ``head.save(path)``, `load_head`, `describe`. Heads with a causal form run on streams like
models do (`keystep.stream`), and are exported with them.
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
