"""Batches of crops for training, each a pure function of the seed and its index, and batches for encoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from keystep.batch import SequenceBatch
from keystep.config import MaskingConfig, TrainConfig
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.masking import draw_hidden

TrainingBatch = tuple[SequenceBatch, Tensor]
"""Crops, and (B, T) bool, the frames to hide."""
Sample = tuple[np.ndarray, np.ndarray, list[int] | None]
"""Features (T, D_in) of a crop, its hidden frames (T,) bool, and its segment lengths for ORACLE models."""


class Crops(Dataset[TrainingBatch]):
    """The training batches of one process, by index.

    In each epoch, every video contributes one random crop of consecutive frames, in random order. Order, crops and
    masks depend only on the seed and the index of the sample, not on the number of processes or on earlier batches, so
    a resumed run is identical to an uninterrupted one.

    Batches extend across epochs, unless the training is counted in ``epochs``: then the last batch of an epoch may be
    smaller, and its last step may have fewer parts.

    Args:
        folder: the data set.
        videos: to train on.
        train: settings of batches and crops.
        masking: settings of the masks.
        segments: whether crops include the lengths of their true segments, for ORACLE models.
        process: rank of this process.
        processes: number of processes.

    Raises:
        InputError: no videos, or a batch size that processes and accumulated parts do not divide.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        videos: Sequence[str],
        train: TrainConfig,
        masking: MaskingConfig,
        *,
        segments: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.folder, self.videos = folder, tuple(videos)
        self.train, self.masking = train, masking
        self.segments = segments
        self.process = process
        self.share, rest = divmod(train.batch_size, train.accumulate * processes)
        if rest or not self.videos:
            raise InputError(
                f"{len(self.videos)} videos in batches of {train.batch_size} cannot be shared by {processes} processes "
                f"x {train.accumulate} accumulated parts"
            )
        self.processes = processes
        self.batches_an_epoch = train.batches_an_epoch(len(self.videos))

    def parts(self, step: int) -> range:
        """Indices of the batches of optimiser step ``step``."""
        if self.train.epochs is None:
            return range(step * self.train.accumulate, (step + 1) * self.train.accumulate)
        epoch, place = divmod(step, self.train.steps_an_epoch(len(self.videos)))
        first = place * self.train.accumulate
        last = min(first + self.train.accumulate, self.batches_an_epoch)
        return range(epoch * self.batches_an_epoch + first, epoch * self.batches_an_epoch + last)

    def __len__(self) -> int:
        return self.parts(self.train.steps - 1).stop

    def __getitem__(self, number: int) -> TrainingBatch:
        return collate([self.sample(index) for index in self._samples(number)])

    def _samples(self, number: int) -> range:
        """Indices of the samples of a batch."""
        if self.train.epochs is None:
            first = (number * self.processes + self.process) * self.share
            return range(first, first + self.share)
        epoch, place = divmod(number, self.batches_an_epoch)
        first = place * self.share
        last = min(first + self.share, len(self.videos))
        return range(epoch * len(self.videos) + first, epoch * len(self.videos) + last)

    def sample(self, index: int) -> Sample:
        """The crop with index ``index`` in the whole training, with its mask."""
        epoch, place = divmod(index, len(self.videos))
        video = self.videos[self._order(epoch)[place]]
        rng = np.random.default_rng((self.train.seed, 1, index))
        start, stop = self._crop(video, rng)
        segments = self.folder.segment_lengths(video, start, stop) if self.segments else None
        return self.folder.features(video, start, stop), draw_hidden(stop - start, self.masking, rng), segments

    def _order(self, epoch: int) -> np.ndarray:
        """(videos,) the order of an epoch: shuffled, and in buckets of similar length if ``train.bucket`` is set."""
        rng = np.random.default_rng((self.train.seed, 0, epoch))
        order = rng.permutation(len(self.videos))
        if self.train.bucket is None:
            return order
        rows = self.train.bucket * self.share
        lengths = np.array([self.folder.length(video) for video in self.videos])
        buckets = (order[first : first + rows] for first in range(0, len(order), rows))
        by_length = np.concatenate([bucket[np.argsort(lengths[bucket], kind="stable")] for bucket in buckets])
        batches = [by_length[first : first + self.share] for first in range(0, len(order), self.share)]
        whole, rest = [b for b in batches if len(b) == self.share], [b for b in batches if len(b) < self.share]
        return np.concatenate([*(whole[place] for place in rng.permutation(len(whole))), *rest])

    def _crop(self, video: str, rng: np.random.Generator) -> tuple[int, int]:
        """First slot and end of a random crop of ``crop_frames`` frames, or of ``crop_segments`` whole segments."""
        if self.train.crop_segments is None:
            length = self.folder.length(video)
            start = int(rng.integers(0, max(1, length - self.train.crop_frames + 1)))
            return start, min(length, start + self.train.crop_frames)
        lengths = self.folder.segment_lengths(video)
        first = int(rng.integers(0, max(1, len(lengths) - self.train.crop_segments + 1)))
        start = sum(lengths[:first])
        return start, start + sum(lengths[first : first + self.train.crop_segments])


def collate(samples: Sequence[Sample]) -> TrainingBatch:
    """Pad crops, masks and segments to one batch; padding is not hidden."""
    features, hidden, segments = zip(*samples, strict=True)
    batch = SequenceBatch.pad(features, None if segments[0] is None else segments)
    mask = torch.zeros(batch.valid.shape, dtype=torch.bool)
    for row, frames in enumerate(hidden):
        mask[row, : len(frames)] = torch.from_numpy(frames)
    return batch, mask


def length_buckets(lengths: dict[str, int], frames: int) -> list[list[str]]:
    """Group videos of similar length.

    Args:
        lengths: video -> frames.
        frames: maximum number of padded frames per group; a single video may have more.

    Returns:
        Groups of names, longest videos first.
    """
    groups: list[list[str]] = []
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (len(groups[-1]) + 1) * longest <= frames:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups
