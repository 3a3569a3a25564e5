"""Controls: representations that use no procedural learning.

Smoothing, centring, the clock and histories improve a linear probe by many points, so a learned representation has to
beat these, not only raw features. Each function maps the frames of one video, (T, D), to (T, D') float32, and documents
whether it is causal, that is, whether the output at a frame is independent of later frames. Time spans are in frames.
`keystep.evals.candidates` lists the spans to try; `keystep.evals.history` has the controls with memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keystep.data.statistics import principal_components
from keystep.errors import InputError

Array = npt.NDArray[Any]
Frames = npt.NDArray[np.float32]
Transform = Callable[[Array], Frames]
"""(T, D) features of one video -> (T, D')."""
Position = Literal["none", "elapsed", "progress"]


@dataclass(frozen=True)
class Control:
    """A control: a transform of single videos."""

    name: str
    transform: Transform
    causal: bool
    position: Position = "none"
    """What it knows about the position in the video. A fair comparison gives the learned side the same."""
    parts: Mapping[str, Control] = field(default_factory=dict)
    """For a concatenation of controls: band name -> control, in column order."""
    edge: str = ""
    """For the last candidate of a grid: why a better one may lie outside of it. Otherwise empty."""


def side_by_side(name: str, parts: Mapping[str, Control]) -> Control:
    """Concatenate several controls. The result is causal if all parts are."""

    def transform(features: Array) -> Frames:
        return np.concatenate([part.transform(features) for part in parts.values()], axis=1)

    return Control(name, transform, all(part.causal for part in parts.values()), parts=dict(parts))


def centre(features: Array) -> Frames:
    """Subtract the video's mean. Not causal."""
    frames = as_frames(features)
    return np.asarray(frames - frames.mean(axis=0, dtype=np.float64), dtype=np.float32)


def running_centre(features: Array) -> Frames:
    """Subtract the mean of the frames so far, including the current one. Causal; the first frame becomes 0."""
    frames = as_frames(features)
    so_far = np.cumsum(frames, axis=0, dtype=np.float64) / np.arange(1, len(frames) + 1)[:, None]
    return np.asarray(frames - so_far, dtype=np.float32)


def moving_average(features: Array, width: int, *, causal: bool) -> Frames:
    """Mean over ``width`` frames: the most recent ones (causal), or an odd number centred on the frame (not causal).

    At the edges, the mean is over the frames of the window that exist. O(T) for every width, using float64 sums.

    Raises:
        InputError: a width below 1, or an even width that is not causal.
    """
    if width < 1 or (not causal and width % 2 == 0):
        kind, rule = ("trailing", "at least 1") if causal else ("centred", "odd and at least 1")
        raise InputError(f"{kind} average: width must be {rule}, not {width}")
    frames = as_frames(features)
    index = np.arange(len(frames))
    reach = 0 if causal else width // 2  # frames after the current one
    stop = np.minimum(index + reach + 1, len(frames))
    start = np.maximum(index + reach + 1 - width, 0)
    sums = _running_sums(frames)
    return np.asarray((sums[stop] - sums[start]) / (stop - start)[:, None], dtype=np.float32)


def elapsed(length: int, tau: float) -> Frames:
    """(T, 2): time since the start of the video in units of ``tau`` frames, and log(1 + time). Causal.

    The logarithm lets a linear probe separate early steps even in an hour-long video.
    """
    time = np.arange(length) / check_positive(tau, "tau")
    return np.stack([time, np.log1p(time)], axis=1).astype(np.float32)


def progress(length: int) -> Frames:
    """(T, 1): t / T, from 0 to just below 1. Not causal, because T is known only at the end."""
    return (np.arange(length) / max(length, 1)).astype(np.float32)[:, None]


def averaged_offsets(features: Array, offsets: Sequence[float]) -> Frames:
    """Concatenate averages at several offsets: (T, D) -> (T, offsets x D).

    The average at an offset spans the odd number of frames nearest to half the offset, so it never includes the current
    frame, and is causal if no offset is positive. The first and last frame are repeated beyond the ends of the video.
    Offsets that round to the same frame count once. Apply it to the output of `FramePCA` to limit the width.

    Args:
        features: (T, D) of one video.
        offsets: in frames, negative for the past.

    Raises:
        InputError: no offsets.
    """
    if not offsets:
        raise InputError("averaged offsets: give at least one offset")
    frames = as_frames(features)
    index, last = np.arange(len(frames)), len(frames) - 1
    sums = _running_sums(frames)
    moments = []
    for shift, width in dict.fromkeys((round(offset), nearest_odd(abs(offset) / 2)) for offset in offsets):
        start = np.clip(index + shift - width // 2, 0, last)
        stop = np.clip(index + shift + width // 2, 0, last) + 1
        moments.append((sums[stop] - sums[start]) / (stop - start)[:, None])
    return np.concatenate(moments, axis=1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FramePCA:
    """The leading principal components of single frames, fitted on training videos. Causal."""

    mean: npt.NDArray[np.float64]  # (D,)
    components: npt.NDArray[np.float64]  # (D, K), orthonormal, by falling variance

    @classmethod
    def fit(cls, videos: Iterable[Array], components: int = 24) -> FramePCA:
        """Fit to the training videos, (T_i, D) each, which are iterated twice, one at a time.

        Features with fewer dimensions than ``components`` keep all of them.

        Raises:
            InputError: videos of different widths, no frames, or no components.
        """
        total, count, widths = np.zeros(1), 0, set[int]()
        for frames in map(as_frames, videos):
            widths.add(frames.shape[1])
            if len(widths) > 1:
                raise InputError(f"cannot fit principal components to different widths: {sorted(widths)}")
            total, count = total + frames.sum(axis=0, dtype=np.float64), count + len(frames)
        if components < 1 or count == 0:
            raise InputError(f"cannot fit {components} principal components to {count} frames")
        mean = total / count
        _, vectors = principal_components(map(as_frames, videos), mean)  # (D, D)
        largest = np.abs(vectors).argmax(axis=0)  # the sign of a component is arbitrary: fix it
        return cls(mean, (vectors * np.sign(vectors[largest, np.arange(len(mean))]))[:, :components])

    def transform(self, features: Array) -> Frames:
        """(T, D) -> (T, K)."""
        frames = as_frames(features)
        if frames.shape[1] != len(self.mean):
            raise InputError(f"components were fitted to width {len(self.mean)}, not {frames.shape[1]}")
        return np.asarray((frames - self.mean) @ self.components, dtype=np.float32)


def segment_means(features: Array, labels: Array) -> Frames:
    """Replace each frame by the mean of its segment, the maximal run of one label. ORACLE if the labels are true
    labels.

    It shows the value of the boundaries alone.

    Args:
        features: (T, D).
        labels: (T,) of any comparable type.

    Raises:
        InputError: labels of another length.
    """
    frames, truth = as_frames(features), np.asarray(labels)
    if truth.shape != (len(frames),):
        raise InputError(f"labels have shape {truth.shape}; expected ({len(frames)},)")
    starts = np.flatnonzero(np.concatenate([[True], truth[1:] != truth[:-1]]))
    lengths = np.diff(starts, append=len(frames))
    means = np.add.reduceat(frames, starts, axis=0, dtype=np.float64) / lengths[:, None]
    return np.repeat(means, lengths, axis=0).astype(np.float32)


def as_frames(features: Array) -> Frames:
    """Features as (T, D) float32.

    Raises:
        InputError: another shape, no frames, or NaN or infinite values.
    """
    frames = np.asarray(features, dtype=np.float32)
    if frames.ndim != 2 or not len(frames):
        raise InputError(f"features have shape {frames.shape}; expected (T, D) with at least one frame")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"features, frame {int((~usable).argmax())}: NaN or infinite; repair this video")
    return frames


def nearest_odd(frames: float) -> int:
    """The odd number nearest to ``frames``, at least 1."""
    return max(1, 2 * round((frames - 1) / 2) + 1)


def check_positive(value: float, name: str) -> float:
    """The value as float, if it is positive and finite.

    Raises:
        InputError: it is not.
    """
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be above 0, not {value}")
    return float(value)


def _running_sums(frames: Frames) -> npt.NDArray[np.float64]:
    """(T + 1, D) float64: sums of all frames before each index."""
    sums = np.zeros((len(frames) + 1, frames.shape[1]))
    np.cumsum(frames, axis=0, dtype=np.float64, out=sums[1:])
    return sums
