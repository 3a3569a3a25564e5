"""Latents of whole videos, for everything that reads representations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from keystep.batch import SequenceBatch
from keystep.data.crops import length_buckets
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.nn.attention import AttentionPattern
from keystep.pjepa import PJEPA

BATCH_FRAMES = 16_384


def encode_videos(
    model: PJEPA,
    folder: FeatureFolder,
    names: Sequence[str],
    pattern: AttentionPattern | None = None,
    progress: Callable[[str], None] = lambda video: None,
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (T, D) float32 latents) of each video, longest first; bad videos go to the folder's problems.

    Videos of similar length share a batch; every video is encoded whole, whatever its length.
    """
    if folder.width != model.config.input_dim:
        raise InputError(f"{folder.root}: features are {folder.width} wide; this model reads {model.config.input_dim}")
    oracle = model.config.oracle or (pattern is not None and pattern.oracle)
    for group in length_buckets({name: folder.length(name) for name in names}, BATCH_FRAMES):
        read = {}
        for name in group:
            features = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
            if features is not None:
                read[name] = features
            progress(name)
        if not read:
            continue
        segments = [folder.segment_lengths(name) for name in read] if oracle else None
        batch = SequenceBatch.pad(list(read.values()), segments)
        with torch.inference_mode():
            latents = model.encode(batch.features, batch.valid, batch.segment_lengths, pattern).float().cpu().numpy()
        for row, (name, features) in enumerate(read.items()):
            yield name, latents[row, : len(features)]
