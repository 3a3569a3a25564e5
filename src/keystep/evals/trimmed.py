"""Trimmed clips: one label for a period with known ends, with or without the preceding part of the take as context.

The benchmark (EgoExo4D's fine-grained keystep recognition, top-1 over 278 classes) consists of trimmed egocentric
clips. P-JEPA's result streams over the whole take and classifies each clip, so it has seen the take up to the end of
the clip, unlike all earlier results. This causal context is allowed here and is stated. The control is the same model
on each clip alone. (Features with windows longer than a slot extend slightly beyond the ends of a clip in both cases.)

Nothing after the end of a clip is used: with ``context="take"``, the model runs on the take truncated at the end of the
clip. This holds for every model, and for causal ones it gives the same result as a stream. (It needs one pass for each
clip, but takes are only minutes long.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keystep.config.attention import AttentionPattern
from keystep.data.annotation import Split
from keystep.data.clips import TrimmedClip
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe
from keystep.pjepa import PJEPA

Array = npt.NDArray[Any]
PerFrame = Callable[[Array], Array]
"""(T, D_in) features of a video or clip -> (T, ...) output for each slot: latents or class scores."""
Context = Literal["take", "clip"]
Aggregate = Literal["mean", "last"]

CONTEXTS: Mapping[Context, str] = {
    "take": "causal context of the same take",
    "clip": "each clip alone",
}
ROUNDING = 1e-6
"""Seconds: slots this close to the start or end of a clip are on it."""


class ClassProbabilities(Protocol):
    """A head (`keystep.heads.Head`), or anything else with this method."""

    def probabilities(self, latents: Tensor, /) -> Tensor:
        """(B, T, D) -> (B, T, C)"""
        ...


@dataclass(frozen=True, eq=False)
class TrimmedResult:
    """One prediction for each clip. clips: N; scores: (N, C); context, aggregate: as in `classify_clips`."""

    clips: tuple[TrimmedClip, ...]
    scores: Array
    context: Context
    aggregate: Aggregate

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """(N,) class ids."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    @property
    def top1(self) -> float:
        """Percentage of labelled clips that are correct.

        Raises:
            InputError: no clip is labelled.
        """
        labels = np.array([-1 if clip.label is None else clip.label for clip in self.clips])
        if (labels < 0).all():
            raise InputError(f"none of the {len(self.clips)} clips has a label; there is nothing to score")
        return float(100 * (self.predictions == labels)[labels >= 0].mean())

    def describe(self) -> str:
        """The context and aggregation in words."""
        return f"{CONTEXTS[self.context]}, {self.aggregate} of the clip's slots"


def classify_clips(
    folder: FeatureFolder,
    clips: Sequence[TrimmedClip],
    score: PerFrame,
    *,
    context: Context,
    aggregate: Aggregate = "mean",
) -> TrimmedResult:
    """Classify clips from the class scores of their slots, averaged or those of the last slot.

    Args:
        folder: the data.
        clips: to classify.
        score: features -> class scores that may be averaged, such as probabilities.
        context: ``take`` also uses the preceding part of the take, ``clip`` the clip alone.
        aggregate: ``mean`` or ``last``.

    Raises:
        InputError: no clips, a take that is not in the folder, or an unknown context or aggregate.
    """
    if aggregate not in get_args(Aggregate):
        raise InputError(f"unknown aggregate {aggregate!r}; expected one of {', '.join(get_args(Aggregate))}")
    slots = clip_frames(folder, clips, score, context)
    rows = [frames.mean(axis=0) if aggregate == "mean" else frames[-1] for frames in slots]
    return TrimmedResult(tuple(clips), np.stack(rows), context, aggregate)


def clip_frames(
    folder: FeatureFolder, clips: Sequence[TrimmedClip], per_frame: PerFrame, context: Context
) -> list[Array]:
    """The output of ``per_frame`` at the slots of each clip: (n_i, ...), n_i > 0, in the order of the clips.

    Raises:
        InputError: no clips, or an unknown context.
    """
    if context not in CONTEXTS:
        raise InputError(f"unknown context {context!r}; expected one of {', '.join(CONTEXTS)}")
    if not clips:
        raise InputError(f"{folder.root}: no clips in this part; check that their takes are in the split")
    found: dict[int, Array] = {}
    for take in dict.fromkeys(clip.take for clip in clips):
        features, times = folder.features(take), folder.times(take)
        for index, clip in enumerate(clips):
            if clip.take != take:
                continue
            first, stop = clip_slots(times, clip)
            begin = 0 if context == "take" else first
            result = np.asarray(per_frame(features[begin:stop]))
            assert len(result) == stop - begin, "one row per slot"
            found[index] = result[first - begin :]
    return [found[index] for index in range(len(clips))]


def clip_slots(times: Array, clip: TrimmedClip) -> tuple[int, int]:
    """(first slot, last slot + 1) with start <= time < end. If there are none, the slot nearest to the middle."""
    first, stop = np.searchsorted(times + ROUNDING, [clip.start, clip.end], side="left").tolist()
    if first < stop:
        return first, stop
    nearest = int(np.abs(times - (clip.start + clip.end) / 2).argmin())
    return nearest, nearest + 1


def split_clips(
    clips: Sequence[TrimmedClip], split: Split
) -> tuple[list[TrimmedClip], list[TrimmedClip], list[TrimmedClip]]:
    """The labelled clips of the split's training, validation and test takes."""
    train, valid, test = (
        [clip for clip in clips if clip.label is not None and clip.take in set(split.part(part))]
        for part in ("train", "valid", "test")
    )
    return train, valid, test


def model_frames(model: PJEPA, pattern: AttentionPattern | None = None) -> PerFrame:
    """A function that computes a model's latents.

    Args:
        model: the model.
        pattern: replaces its attention pattern, for example by its live one.

    Raises:
        InputError: segment attention, because clips have no segments.
    """
    if model.config.oracle or (pattern is not None and pattern.oracle):
        raise InputError("clips have no segments; use a model without segment attention (causal, block_causal, ...)")

    def latents(features: Array) -> Array:
        with torch.inference_mode():
            found = model.encode(torch.from_numpy(features)[None], pattern=pattern)[0]
        return np.asarray(found.float().cpu().numpy())

    return latents


def raw_frames(features: Array) -> Array:
    """The features, which do not depend on context."""
    return features


def head_scores(frames: PerFrame, head: ClassProbabilities) -> PerFrame:
    """A function that computes the class probabilities of a head on latents (or other features)."""

    def probabilities(features: Array) -> Array:
        with torch.inference_mode():
            found = torch.from_numpy(np.asarray(frames(features)))[None]
            return np.asarray(head.probabilities(found)[0].cpu().numpy())

    return probabilities


def fit_clip_probe(
    folder: FeatureFolder,
    train: Sequence[TrimmedClip],
    valid: Sequence[TrimmedClip],
    frames: PerFrame,
    *,
    context: Context,
    config: ProbeConfig | None = None,
) -> LinearProbe:
    """Fit a linear probe on the slots of labelled clips, with the context that it will be tested with."""

    def part(clips: Sequence[TrimmedClip]) -> tuple[list[Array], list[Array]]:
        slots = clip_frames(folder, clips, frames, context)
        return slots, [np.full(len(rows), clip.label) for rows, clip in zip(slots, clips, strict=True)]

    return fit_probe(*part(train), *part(valid), classes=len(folder.classes), config=config)


def judge_clips(
    folder: FeatureFolder,
    clips: Sequence[TrimmedClip],
    split: Split,
    frames: PerFrame,
    *,
    config: ProbeConfig | None = None,
    aggregate: Aggregate = "mean",
) -> dict[Context, TrimmedResult]:
    """Classify the test clips with linear probes, with the take as context and (as the control) without context.

    Probe settings are selected on the slots of the validation takes' clips.
    """
    train, valid, test = split_clips(clips, split)
    results: dict[Context, TrimmedResult] = {}
    for context in CONTEXTS:
        probe = fit_clip_probe(folder, train, valid, frames, context=context, config=config)
        score = head_scores(frames, probe.head(folder.classes))
        results[context] = classify_clips(folder, test, score, context=context, aggregate=aggregate)
    return results


def submission(result: TrimmedResult) -> dict[str, Any]:
    """Predictions in the format of ``keystep_segment_test_unannotated.json``, with the missing ``label_id`` added.

    The benchmark documents its files but not its submission format (the challenge page was not accessible), so this
    format is inferred: names, takes and times are those of the benchmark, and each entry gets a ``label_id``.

    Raises:
        InputError: a clip without a benchmark name.
    """
    unnamed = [clip for clip in result.clips if not clip.name]
    if unnamed:
        raise InputError(
            f"{len(unnamed)} clips, such as that of {unnamed[0].take} at {unnamed[0].start:g} s, have no benchmark "
            "name; prepare the data set with keystep_benchmark/*.json"
        )
    segments = [
        {
            "ego_segment_name": clip.name,
            "take_uid": clip.take_uid,
            "take_name": clip.take,
            "start_time": clip.start,
            "end_time": clip.end,
            "label_id": label,
        }
        for clip, label in zip(result.clips, result.predictions.tolist(), strict=True)
    ]
    return {"description": f"keystep: {result.describe()}", "segments": segments}
