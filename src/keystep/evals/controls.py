"""Controls: what a representation gets for free, without learning anything about procedures.

Smoothing, centring and the clock alone lift a linear probe by many points, so a learned representation has to beat
*them*, not raw features. Each function maps the frames of one video (T, D) to (T, D') float32 and says whether it is
causal: whether the output at a frame depends on nothing later. A `Control` carries the same facts into tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keystep.data.statistics import principal_components
from keystep.errors import InputError

Array = npt.NDArray[Any]
Frames = npt.NDArray[np.float32]
Position = Literal["none", "elapsed", "progress"]

WIDTHS_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Widths of the moving average to try, beside one frame: no averaging. The best is chosen on validation videos."""

ONE_FRAME = "of one frame (raw)"
"""How the name of a moving average says that it averages nothing."""

OFFSETS_SECONDS = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)
"""Nine moments around a frame, dense near it. Not causal."""

CAUSAL_OFFSETS_SECONDS = (-30.0, -15.0, -8.0, -4.0, -2.5, -1.5, -0.8, -0.4, 0.0)
"""Nine moments up to a frame, dense near it."""


@dataclass(frozen=True)
class Control:
    """One row of the table of controls."""

    name: str
    transform: Callable[[Array], Frames]
    """(T, D) of one video -> (T, D')."""
    causal: bool
    position: Position = "none"
    """What it knows of the position in the video. A fair comparison gives the learned side the same."""
    oracle: bool = False
    """Uses true labels, so no system could have it."""


def plain_controls() -> tuple[Control, ...]:
    """The raw frames and the two centred ones."""
    return (
        Control("raw", _frames, causal=True),
        Control("centred", centre, causal=False),
        Control("running-centred", running_centre, causal=True),
    )


def smoothing_controls(rate: float | Fraction, *, causal: bool, position: Position = "none") -> tuple[Control, ...]:
    """Moving averages of the centred input, one for each width of `WIDTHS_SECONDS`, alone or beside the position.

    The first is the raw input itself, an average over one frame that is not centred either. Causal ones average the
    running-centred input over the past. They are one control together: choose the width on the validation videos, and
    show that one.
    """
    if causal and position == "progress":
        raise InputError("progress needs the length of the video, so no causal control has it; use elapsed")

    def at_width(width: int | None) -> Control:
        def transform(features: Array) -> Frames:
            if width is None:
                centred = _frames(features)
                parts = [centred]
            else:
                centred = running_centre(features) if causal else centre(features)
                parts = [moving_average(centred, width, causal=causal)]
            if position == "elapsed":
                parts.append(elapsed(len(centred), rate))
            elif position == "progress":
                parts.append(progress(len(centred)))
            return np.concatenate(parts, axis=1)

        span = ONE_FRAME if width is None else f"{width / float(rate):.3g} s"
        name = f"{'trailing' if causal else 'centred'} average {span}"
        name += "" if position == "none" else f" + {position}"
        sees_no_future = causal or (width is None and position != "progress")
        return Control(name, transform, causal=sees_no_future, position=position)

    return tuple(at_width(width) for width in (None, *token_widths(rate)))


def offset_controls(
    train: Sequence[Array], rate: float | Fraction, *, causal: bool, components: Sequence[int] = (24, 64)
) -> tuple[Control, ...]:
    """Nine moments of the centred input side by side, reduced to principal components fitted on ``train`` (T_i, D).

    One control for each number of components: choose on the validation videos, as with the widths. The linear probe
    learns its own smoothing and differences over time from it, so it often beats every moving average.
    """
    centring = running_centre if causal else centre
    fitted = FramePCA.fit([centring(video) for video in train], max(components, default=0))
    offsets = CAUSAL_OFFSETS_SECONDS if causal else OFFSETS_SECONDS

    def with_components(count: int) -> Control:
        def transform(features: Array) -> Frames:
            return temporal_offsets(fitted.transform(centring(features))[:, :count], rate, offsets)

        name = f"{'past ' if causal else ''}offsets of {count} components"
        return Control(name, transform, causal=causal)

    available = fitted.components.shape[1]
    return tuple(with_components(count) for count in sorted({min(count, available) for count in components}))


def token_widths(rate: float | Fraction, seconds: Sequence[float] = WIDTHS_SECONDS) -> tuple[int, ...]:
    """The odd numbers of tokens nearest to ``seconds`` at ``rate`` tokens a second, each once, rising."""
    hertz = _hertz(rate)
    if not seconds or min(seconds) <= 0:
        raise InputError(f"widths must be above 0 seconds: {list(seconds)}")
    return tuple(sorted({max(1, 2 * round((width * hertz - 1) / 2) + 1) for width in seconds}))


def centre(features: Array) -> Frames:
    """The video's mean removed. Not causal: the mean sees the whole video."""
    frames = _frames(features)
    return np.asarray(frames - frames.mean(axis=0, dtype=np.float64), dtype=np.float32)


def running_centre(features: Array) -> Frames:
    """The mean of the frames so far (this one included) removed. Causal; the first frame becomes 0."""
    frames = _frames(features)
    so_far = np.cumsum(frames, axis=0, dtype=np.float64) / np.arange(1, len(frames) + 1)[:, None]
    return np.asarray(frames - so_far, dtype=np.float32)


def moving_average(features: Array, width: int, *, causal: bool) -> Frames:
    """The mean over ``width`` frames: the last ones (causal), or an odd number around the frame (not causal).

    At the edges, over those frames of the window that exist. O(T) for every width, by sums in float64.
    """
    if width < 1 or (not causal and width % 2 == 0):
        kind, rule = ("trailing", "at least 1") if causal else ("centred", "odd and at least 1")
        raise InputError(f"a {kind} average over {width} frames: the width must be {rule}")
    frames = _frames(features)
    index = np.arange(len(frames))
    reach = 0 if causal else width // 2  # frames after the current one
    stop = np.minimum(index + reach + 1, len(frames))
    start = np.maximum(index + reach + 1 - width, 0)
    sums = np.zeros((len(frames) + 1, frames.shape[1]))
    np.cumsum(frames, axis=0, dtype=np.float64, out=sums[1:])
    return np.asarray((sums[stop] - sums[start]) / (stop - start)[:, None], dtype=np.float32)


def elapsed(length: int, rate: float | Fraction) -> Frames:
    """(T, 2): minutes since the start of the video, and log(1 + minutes). Causal.

    Two columns, because a linear probe can then also tell steps of the first minute apart in an hour-long video.
    """
    minutes = np.arange(length) / (60 * _hertz(rate))
    return np.stack([minutes, np.log1p(minutes)], axis=1).astype(np.float32)


def progress(length: int) -> Frames:
    """(T, 1): t / T from 0 to just below 1. Not causal: T is known only when the video is over."""
    return (np.arange(length) / max(length, 1)).astype(np.float32)[:, None]


def temporal_offsets(features: Array, rate: float | Fraction, seconds: Sequence[float] = OFFSETS_SECONDS) -> Frames:
    """The frames at several time offsets side by side: (T, D) -> (T, offsets x D). Causal if no offset is above 0.

    Before the start stands the first frame, after the end the last one. Follow `FramePCA`, so that it stays small.
    """
    if not seconds:
        raise InputError("temporal offsets: name at least one offset in seconds")
    frames, hertz = _frames(features), _hertz(rate)
    index = np.arange(len(frames))
    shifts = [round(second * hertz) for second in seconds]
    return np.concatenate([frames[np.clip(index + shift, 0, index[-1])] for shift in shifts], axis=1)


@dataclass(frozen=True, eq=False)
class FramePCA:
    """The leading principal components of single frames, fitted on training videos. Causal: frame by frame."""

    mean: npt.NDArray[np.float64]  # (D,)
    components: npt.NDArray[np.float64]  # (D, K), orthonormal, by falling variance

    @classmethod
    def fit(cls, videos: Sequence[Array], components: int = 24) -> FramePCA:
        """From the training videos, each (T_i, D); narrower features keep all their D components."""
        arrays = [_frames(video).astype(np.float64) for video in videos]
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
        frames = _frames(features)
        if frames.shape[1] != len(self.mean):
            raise InputError(f"components were fitted to width {len(self.mean)}, not {frames.shape[1]}")
        return np.asarray((frames - self.mean) @ self.components, dtype=np.float32)


def segment_means(features: Array, labels: Array) -> Frames:
    """Each frame replaced by the mean of its segment, the maximal run of one label. ORACLE if the labels are true ones.

    labels: (T,) of any type that can be compared. It shows what boundaries alone are worth.
    """
    frames, truth = _frames(features), np.asarray(labels)
    if truth.shape != (len(frames),):
        raise InputError(f"{len(frames)} frames need as many labels, not an array of shape {truth.shape}")
    starts = np.flatnonzero(np.concatenate([[True], truth[1:] != truth[:-1]]))
    lengths = np.diff(starts, append=len(frames))
    means = np.add.reduceat(frames, starts, axis=0, dtype=np.float64) / lengths[:, None]
    return np.repeat(means, lengths, axis=0).astype(np.float32)


def _frames(features: Array) -> Frames:
    """(T, D) as float32, or a line that names what is wrong with it."""
    frames = np.asarray(features, dtype=np.float32)
    if frames.ndim != 2 or not len(frames):
        raise InputError(f"features have shape {frames.shape}; expected (T, D) with at least one frame")
    usable = np.isfinite(frames).all(axis=1)
    if not usable.all():
        raise InputError(f"features, frame {int((~usable).argmax())}: NaN or infinite; repair this video")
    return frames


def _hertz(rate: float | Fraction) -> float:
    """Tokens a second as a float, above 0."""
    if not 0 < rate < float("inf"):
        raise InputError(f"a rate must be above 0 tokens a second, not {rate}")
    return float(rate)
