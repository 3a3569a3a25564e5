"""Temporal heads on frozen latents, or on any features: a video's frames in, class scores of every frame out.

``head_config("context", {"causal": True})`` -> settings, `build_head` -> a head, `train_head` -> a trained one that was
chosen on validation videos, `save_head`, `load_head`, `describe`. Causal heads run on streams: `keystep.stream.heads`.
"""

from keystep.temporal.building import build_head, load_head, save_head
from keystep.temporal.config import PRESETS, HeadConfig, TrainingConfig, head_config
from keystep.temporal.description import Description, describe, frames_per_second
from keystep.temporal.head import TemporalHead
from keystep.temporal.training import TrainedHead, train_head
from keystep.temporal.videos import Videos

__all__ = [
    "PRESETS",
    "Description",
    "HeadConfig",
    "TemporalHead",
    "TrainedHead",
    "TrainingConfig",
    "Videos",
    "build_head",
    "describe",
    "frames_per_second",
    "head_config",
    "load_head",
    "save_head",
    "train_head",
]
