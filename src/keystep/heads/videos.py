"""Training videos of a head: protocol, checks, statistics and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from keystep.data.annotation import IGNORED
from keystep.data.statistics import ChannelMoments
from keystep.errors import InputError

LabelledVideo = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""(T, D) features and (T,) class ids, -100 if unlabelled."""
SORTED_BATCHES = 8
"""Number of batches whose videos are sorted by length together."""


class Videos(Protocol):
    """Videos that are read on access. A list of (features, labels) satisfies this."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LabelledVideo: ...


@dataclass(frozen=True, eq=False)
class VideoStatistics:
    """Statistics of some videos.

    Attributes:
        lengths: frames of each video.
        counts: (C,) labelled frames of each class.
        mean, deviation: (D,) float32 over all frames. The deviation of a constant channel is infinite, so that dividing
            by it removes the channel.
        fingerprint: SHA-256 of all features and labels.
    """

    lengths: tuple[int, ...]
    counts: Tensor
    mean: Tensor
    deviation: Tensor
    fingerprint: str


def measure_videos(videos: Videos, classes: int, part: str) -> VideoStatistics:
    """Read every video once.

    Args:
        videos: to read.
        classes: number of classes C.
        part: name of the videos in messages, such as ``training``.

    Raises:
        InputError: no labelled frame, or an invalid shape, width, label or value, with the number of the video from 0.
    """
    lengths, counts, digest = [], np.zeros(classes, np.int64), sha256()
    moments: ChannelMoments | None = None
    for index in range(len(videos)):
        features, labels = check_video(videos[index], classes, f"{part} video {index}")
        width = features.shape[1]
        moments = moments or ChannelMoments(width)
        if width != len(moments.mean):
            raise InputError(f"{part} video {index} has width {width}, the first one {len(moments.mean)}")
        moments.add(features)
        counts += np.bincount(labels[labels != IGNORED], minlength=classes)
        lengths.append(len(features))
        digest.update(features.tobytes() + labels.tobytes())
    if moments is None or not counts.sum():
        raise InputError(f"no {part} frame has a label (of {len(videos)} videos)")
    return VideoStatistics(
        tuple(lengths),
        torch.from_numpy(counts),
        torch.from_numpy(moments.mean.astype(np.float32)),
        torch.from_numpy(moments.deviation(np.inf).astype(np.float32)),
        digest.hexdigest(),
    )


def check_video(video: LabelledVideo, classes: int, name: str) -> LabelledVideo:
    """Validate features and labels, and convert them to (T, D) float32 and (T,) int64.

    Args:
        video: features and labels.
        classes: number of classes.
        name: of the video, for messages.

    Raises:
        InputError: an invalid shape, type, label or value.
    """
    features, labels = np.asarray(video[0], dtype=np.float32), np.asarray(video[1])
    if features.ndim != 2 or not len(features):
        raise InputError(f"{name}: features of shape {features.shape}; expected (T, D) with at least one frame")
    if labels.shape != features.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{name}: {len(features)} frames need as many integer labels, not {labels.dtype} {labels.shape}"
        )
    wrong = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        frame = int(wrong.argmax())
        raise InputError(f"{name}, frame {frame}: label {labels[frame]} is outside of 0..{classes - 1}")
    usable = np.isfinite(features).all(axis=1)
    if not usable.all():
        raise InputError(f"{name}, frame {int((~usable).argmax())}: NaN or infinite; remove or repair this video")
    return features, labels.astype(np.int64)


def plan_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Distribute all videos over batches of ``size`` videos of similar lengths, by the arguments only.

    The shuffled videos are sorted by length in groups of `SORTED_BATCHES` batches, and the batches shuffled again.
    """
    rng = np.random.default_rng((seed, 0, epoch))
    order = rng.permutation(len(lengths)).tolist()
    found: list[list[int]] = []
    for start in range(0, len(order), SORTED_BATCHES * size):
        group = sorted(order[start : start + SORTED_BATCHES * size], key=lambda index: lengths[index])
        found += [group[first : first + size] for first in range(0, len(group), size)]
    return [found[index] for index in rng.permutation(len(found))]


def load_batch(
    videos: Videos, chosen: Sequence[int], classes: int, part: str, crop: int | None = None, seed: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Read some videos as one padded batch.

    Args:
        videos: to read from.
        chosen: their indices.
        classes: number of classes.
        part: name of the videos in messages.
        crop: take this many frames of longer videos, at a position that depends on ``seed`` and the index.
        seed: of the crops.

    Returns:
        Features (B, T, D), labels (B, T) with -100 at padding, and valid (B, T) bool.

    Raises:
        InputError: as for `check_video`.
    """

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for index in chosen:
            features, labels = check_video(videos[index], classes, f"{part} video {index}")
            if crop is not None and len(features) > crop:
                start = int(np.random.default_rng((*seed, index)).integers(len(features) - crop + 1))
                features, labels = features[start : start + crop], labels[start : start + crop]
            yield torch.from_numpy(features), torch.from_numpy(labels)

    features, labels = zip(*parts(), strict=True)
    lengths = torch.tensor([len(row) for row in labels])
    padded = pad_sequence(list(features), batch_first=True)
    valid = torch.arange(padded.shape[1]) < lengths[:, None]
    return padded, pad_sequence(list(labels), batch_first=True, padding_value=float(IGNORED)), valid
