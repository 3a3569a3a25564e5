"""Controls: what a representation gets for free, without learning anything about procedures.

Smoothing, centring, the clock and counts of what has been lift a linear probe by many points, so a learned
representation has to beat *them*, not raw features. Each function maps the frames of one video (T, D) to (T, D')
float32 and says whether it is causal: whether the output at a frame depends on nothing later. Spans of time are in
frames here; `keystep.evals.candidates` says which ones are tried, `keystep.evals.history` has those that remember.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keystep.data.statistics import principal_components
from keystep.errors import InputError

Array = npt.NDArray[Any]
Frames = npt.NDArray[np.float32]
Transform = Callable[[Array], Frames]
"""(T, D) of one video -> (T, D')."""
Position = Literal["none", "elapsed", "progress"]


@dataclass(frozen=True)
class Control:
    """One row of the table of controls."""

    name: str
    transform: Transform
    causal: bool
    position: Position = "none"
    """What it knows of the position in the video. A fair comparison gives the learned side the same."""
    parts: Mapping[str, Control] = field(default_factory=dict)
    """Of several controls side by side: each by the name of its band, in the order of the columns."""
    edge: str = ""
    """Why it is the last of the candidates that it is chosen from, so that one beyond it might be better; or empty."""


def side_by_side(name: str, parts: Mapping[str, Control]) -> Control:
    """Several controls as one, which is causal if all of them are."""

    def transform(features: Array) -> Frames:
        return np.concatenate([part.transform(features) for part in parts.values()], axis=1)

    return Control(name, transform, all(part.causal for part in parts.values()), parts=dict(parts))


def centre(features: Array) -> Frames:
    """The video's mean removed. Not causal: the mean sees the whole video."""
    frames = as_frames(features)
    return np.asarray(frames - frames.mean(axis=0, dtype=np.float64), dtype=np.float32)


def running_centre(features: Array) -> Frames:
    """The mean of the frames so far (this one included) removed. Causal; the first frame becomes 0."""
    frames = as_frames(features)
    so_far = np.cumsum(frames, axis=0, dtype=np.float64) / np.arange(1, len(frames) + 1)[:, None]
    return np.asarray(frames - so_far, dtype=np.float32)


def moving_average(features: Array, width: int, *, causal: bool) -> Frames:
    """The mean over ``width`` frames: the last ones (causal), or an odd number around the frame (not causal).

    At the edges, over those frames of the window that exist. O(T) for every width, by sums in float64.
    """
    if width < 1 or (not causal and width % 2 == 0):
        kind, rule = ("trailing", "at least 1") if causal else ("centred", "odd and at least 1")
        raise InputError(f"a {kind} average over {width} frames: the width must be {rule}")
    frames = as_frames(features)
    index = np.arange(len(frames))
    reach = 0 if causal else width // 2  # frames after the current one
    stop = np.minimum(index + reach + 1, len(frames))
    start = np.maximum(index + reach + 1 - width, 0)
    sums = _running_sums(frames)
    return np.asarray((sums[stop] - sums[start]) / (stop - start)[:, None], dtype=np.float32)


def elapsed(length: int, tau: float) -> Frames:
    """(T, 2): the time since the start of the video in units of ``tau`` frames, and log(1 + it). Causal.

    Two columns, because a linear probe can then also tell early steps apart in an hour-long video.
    """
    time = np.arange(length) / above_zero(tau, "tau")
    return np.stack([time, np.log1p(time)], axis=1).astype(np.float32)


def progress(length: int) -> Frames:
    """(T, 1): t / T from 0 to just below 1. Not causal: T is known only when the video is over."""
    return (np.arange(length) / max(length, 1)).astype(np.float32)[:, None]


def averaged_offsets(features: Array, offsets: Sequence[float]) -> Frames:
    """Moments around a frame side by side, each an average that widens with its distance: (T, D) -> (T, moments x D).

    The average of an offset runs over the odd number of frames nearest to half its distance, so it never reaches the
    frame itself and is causal if no offset is above 0. Before the start stands the first frame, after the end the last
    one. Offsets that round to the same moment count once. Follow `FramePCA`, so that it stays small.

    Args:
        offsets: in frames, below 0 for the past.
    """
    if not offsets:
        raise InputError("averaged offsets: name at least one offset")
    frames = as_frames(features)
    index, last = np.arange(len(frames)), len(frames) - 1
    sums = _running_sums(frames)
    moments = []
    for shift, width in dict.fromkeys((round(offset), odd(abs(offset) / 2)) for offset in offsets):
        start = np.clip(index + shift - width // 2, 0, last)
        stop = np.clip(index + shift + width // 2, 0, last) + 1
        moments.append((sums[stop] - sums[start]) / (stop - start)[:, None])
    return np.concatenate(moments, axis=1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FramePCA:
    """The leading principal components of single frames, fitted on training videos. Causal: frame by frame."""

    mean: npt.NDArray[np.float64]  # (D,)
    components: npt.NDArray[np.float64]  # (D, K), orthonormal, by falling variance

    @classmethod
    def fit(cls, videos: Sequence[Array], components: int = 24) -> FramePCA:
        """From the training videos, each (T_i, D); narrower features keep all their D components."""
        arrays = [as_frames(video).astype(np.float64) for video in videos]
        count, widths = sum(map(len, arrays)), {array.shape[1] for array in arrays}
        if len(widths) > 1:
            raise InputError(f"cannot fit principal components to different widths: {sorted(widths)}")
        if components < 1 or count == 0:
            raise InputError(f"cannot fit {components} principal components to {count} frames")
        mean = np.sum([array.sum(axis=0) for array in arrays], axis=0) / count
        _, vectors = principal_components(arrays, mean)  # (D, D)
        largest = np.abs(vectors).argmax(axis=0)  # the sign of a component is arbitrary: fix it
        return cls(mean, (vectors * np.sign(vectors[largest, np.arange(len(mean))]))[:, :components])

    def transform(self, features: Array) -> Frames:
        """(T, D) -> (T, K)."""
        frames = as_frames(features)
        if frames.shape[1] != len(self.mean):
            raise InputError(f"components were fitted to width {len(self.mean)}, not {frames.shape[1]}")
        return np.asarray((frames - self.mean) @ self.components, dtype=np.float32)


def segment_means(features: Array, labels: Array) -> Frames:
    """Each frame replaced by the mean of its segment, the maximal run of one label. ORACLE if the labels are true ones.

    labels: (T,) of any type that can be compared. It shows what boundaries alone are worth.
    """
    frames, truth = as_frames(features), np.asarray(labels)
    if truth.shape != (len(frames),):
        raise InputError(f"{len(frames)} frames need as many labels, not an array of shape {truth.shape}")
    starts = np.flatnonzero(np.concatenate([[True], truth[1:] != truth[:-1]]))
    lengths = np.diff(starts, append=len(frames))
    means = np.add.reduceat(frames, starts, axis=0, dtype=np.float64) / lengths[:, None]
    return np.repeat(means, lengths, axis=0).astype(np.float32)


def as_frames(features: Array) -> Frames:
    """(T, D) as float32, or a line that names what is wrong with it."""
    frames = np.asarray(features, dtype=np.float32)
    if frames.ndim != 2 or not len(frames):
        raise InputError(f"features have shape {frames.shape}; expected (T, D) with at least one frame")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"features, frame {int((~usable).argmax())}: NaN or infinite; repair this video")
    return frames


def odd(frames: float) -> int:
    """The odd number nearest to ``frames``, at least 1."""
    return max(1, 2 * round((frames - 1) / 2) + 1)


def above_zero(value: float, name: str) -> float:
    """A number that has to be above 0 and finite."""
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be above 0, not {value}")
    return float(value)


def _running_sums(frames: Frames) -> npt.NDArray[np.float64]:
    """(T + 1, D): sums of the frames before each, in float64."""
    sums = np.zeros((len(frames) + 1, frames.shape[1]))
    np.cumsum(frames, axis=0, dtype=np.float64, out=sums[1:])
    return sums
