"""Batches for training, each a pure function of the seed and its number, and batches for encoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from keystep.batch import SequenceBatch
from keystep.config import MaskingConfig, TrainConfig
from keystep.data.annotation import segment_lengths as segment_lengths
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.masking import draw_hidden

TrainingBatch = tuple[SequenceBatch, Tensor]
"""Crops, and (B, T) bool: the frames to hide."""
Sample = tuple[np.ndarray, np.ndarray, list[int] | None]
"""One crop's features (T, D_in), its hidden frames (T,) bool, and its segment lengths for oracle models."""


class Crops(Dataset[TrainingBatch]):
    """Batch number ``n`` of one process's share of the training data.

    Every video is seen once an epoch, in an order drawn for that epoch, as one crop of consecutive frames from anywhere
    in it. Order, crops and masks depend on the seed and the sample's number alone: not on how many processes share the
    work, nor on what was read before. A resumed run therefore goes on exactly where it stopped.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        videos: Sequence[str],
        train: TrainConfig,
        masking: MaskingConfig,
        *,
        with_segments: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.folder, self.videos = folder, tuple(videos)
        self.train, self.masking = train, masking
        self.with_segments = with_segments
        self.process = process
        self.share, rest = divmod(train.batch_size, train.accumulate * processes)
        if rest or not self.videos:
            raise InputError(
                f"{len(self.videos)} videos in batches of {train.batch_size} cannot be shared by {processes} processes "
                f"x {train.accumulate} accumulated parts"
            )
        self.processes = processes

    def __len__(self) -> int:
        return self.train.steps * self.train.accumulate

    def __getitem__(self, number: int) -> TrainingBatch:
        first = (number * self.processes + self.process) * self.share
        return collate([self.sample(index) for index in range(first, first + self.share)])

    def sample(self, index: int) -> Sample:
        """Crop number ``index`` of the whole training, with its mask."""
        epoch, place = divmod(index, len(self.videos))
        video = self.videos[np.random.default_rng((self.train.seed, 0, epoch)).permutation(len(self.videos))[place]]
        rng = np.random.default_rng((self.train.seed, 1, index))
        length = self.folder.length(video)
        start = int(rng.integers(0, max(1, length - self.train.crop + 1)))
        stop = min(length, start + self.train.crop)
        segments = self.folder.segment_lengths(video, start, stop) if self.with_segments else None
        return self.folder.features(video, start, stop), draw_hidden(stop - start, self.masking, rng), segments


def collate(samples: Sequence[Sample]) -> TrainingBatch:
    """Pad crops, masks and segments to one batch."""
    features, hidden, segments = zip(*samples, strict=True)
    batch = SequenceBatch.pad(features, None if segments[0] is None else segments)
    mask = torch.zeros(batch.valid.shape, dtype=torch.bool)
    for row, frames in enumerate(hidden):
        mask[row, : len(frames)] = torch.from_numpy(frames)
    return batch, mask


def length_buckets(lengths: dict[str, int], frames: int) -> list[list[str]]:
    """Videos of similar length together, each group at most ``frames`` padded frames in all (one video at least)."""
    groups: list[list[str]] = []
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (len(groups[-1]) + 1) * longest <= frames:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups
