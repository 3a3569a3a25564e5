"""Trimmed clips: one label for a stretch with known ends, with what came before it in the take or without.

The benchmark (EgoExo4D's fine-grained keystep recognition, top-1 over 278 classes) hands out trimmed egocentric clips.
P-JEPA's row on it streams over the whole take and answers for each clip, so it has seen the take up to the clip's end,
which no row before it has: a causal context that is allowed here and said. The same model on each clip alone is its
control. (Features whose window is longer than a slot reach a little over the clip's ends either way.)

Nothing after a clip's end is ever read: with ``context="take"`` the model runs on the take cut off at the clip's end,
so this holds for any model, and for causal ones it is the number that a stream gives. (A pass for each clip is the
price; takes are minutes long.)
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
from keystep.data.clips import Clip
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe
from keystep.pjepa import PJEPA

Array = npt.NDArray[Any]
PerFrame = Callable[[Array], Array]
"""(T, D_in) features of a stretch from its beginning -> (T, ...) of each slot: latents, or class scores."""
Context = Literal["take", "clip"]
Aggregate = Literal["mean", "last"]

CONTEXTS: Mapping[Context, str] = {
    "take": "causal context of the same take",
    "clip": "each clip alone",
}
ROUNDING = 1e-6
"""Seconds: a slot this near to a clip's bound lies on it."""


class ClassProbabilities(Protocol):
    """A head (`keystep.heads.Head`), or anything else of that method."""

    def probabilities(self, latents: Tensor, /) -> Tensor:
        """(B, T, D) -> (B, T, C)"""
        ...


@dataclass(frozen=True, eq=False)
class TrimmedResult:
    """One prediction a clip. clips: N; scores: (N, C); context, aggregate: how they were made."""

    clips: tuple[Clip, ...]
    scores: Array
    context: Context
    aggregate: Aggregate

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """(N,) class ids."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    @property
    def top1(self) -> float:
        """Share of right clips among those with a label, 0-100.

        Raises:
            InputError: none has one.
        """
        labels = np.array([-1 if clip.label is None else clip.label for clip in self.clips])
        if (labels < 0).all():
            raise InputError(f"none of {len(self.clips)} clips has a published label; there is nothing to score")
        return float(100 * (self.predictions == labels)[labels >= 0].mean())

    def describe(self) -> str:
        """For tables."""
        return f"{CONTEXTS[self.context]}, {self.aggregate} of the clip's slots"


def classify_clips(
    folder: FeatureFolder,
    clips: Sequence[Clip],
    score: PerFrame,
    *,
    context: Context,
    aggregate: Aggregate = "mean",
) -> TrimmedResult:
    """Classify clips by class scores of their slots: (n, C) each, averaged, or those at the last slot.

    Args:
        score: from the features of a stretch, class scores of its slots that may be averaged, such as probabilities.

    Raises:
        InputError: no clips, a take that the folder lacks, or an unknown context or aggregate.
    """
    if aggregate not in get_args(Aggregate):
        raise InputError(f"aggregate {aggregate!r} is none of {', '.join(get_args(Aggregate))}")
    slots = clip_frames(folder, clips, score, context)
    rows = [frames.mean(axis=0) if aggregate == "mean" else frames[-1] for frames in slots]
    return TrimmedResult(tuple(clips), np.stack(rows), context, aggregate)


def clip_frames(folder: FeatureFolder, clips: Sequence[Clip], per_frame: PerFrame, context: Context) -> list[Array]:
    """What ``per_frame`` gives at the slots of each clip: (n_i, ...), n_i > 0, in the order of the clips."""
    if context not in CONTEXTS:
        raise InputError(f"context {context!r} is none of {', '.join(CONTEXTS)}")
    if not clips:
        raise InputError(f"{folder.root}: no clips of this part; is there a split of their takes?")
    found: dict[int, Array] = {}
    for take in dict.fromkeys(clip.take for clip in clips):
        features, times = folder.features(take), folder.times(take)
        for index, clip in enumerate(clips):
            if clip.take != take:
                continue
            first, stop = clip_slots(times, clip)
            begin = 0 if context == "take" else first
            result = np.asarray(per_frame(features[begin:stop]))
            assert len(result) == stop - begin, "one row a slot"
            found[index] = result[first - begin :]
    return [found[index] for index in range(len(clips))]


def clip_slots(times: Array, clip: Clip) -> tuple[int, int]:
    """(first slot, last slot + 1) with start <= time < end; of a clip without any, the slot nearest to its middle."""
    first, stop = np.searchsorted(times + ROUNDING, [clip.start, clip.end], side="left").tolist()
    if first < stop:
        return first, stop
    nearest = int(np.abs(times - (clip.start + clip.end) / 2).argmin())
    return nearest, nearest + 1


def parts_of(clips: Sequence[Clip], split: Split) -> tuple[list[Clip], list[Clip], list[Clip]]:
    """Labelled clips of the split's training, validation and test takes."""
    train, valid, test = (
        [clip for clip in clips if clip.label is not None and clip.take in set(split.part(part))]
        for part in ("train", "valid", "test")
    )
    return train, valid, test


def model_frames(model: PJEPA, pattern: AttentionPattern | None = None) -> PerFrame:
    """A model's latents of a stretch. pattern: another attention than its own, such as its live one.

    Raises:
        InputError: the model attends by segment, which a clip does not have.
    """
    if model.config.oracle or (pattern is not None and pattern.oracle):
        raise InputError("clips have no segments; judge them with a model that needs none (causal, block_causal, ...)")

    def latents(features: Array) -> Array:
        with torch.inference_mode():
            found = model.encode(torch.from_numpy(features)[None], pattern=pattern)[0]
        return np.asarray(found.float().cpu().numpy())

    return latents


def raw_frames(features: Array) -> Array:
    """The features themselves: what comes before a clip changes nothing."""
    return features


def scores_of(frames: PerFrame, head: ClassProbabilities) -> PerFrame:
    """Class probabilities by a head on latents (or on any frames)."""

    def probabilities(features: Array) -> Array:
        with torch.inference_mode():
            found = torch.from_numpy(np.asarray(frames(features)))[None]
            return np.asarray(head.probabilities(found)[0].cpu().numpy())

    return probabilities


def fit_clip_probe(
    folder: FeatureFolder,
    train: Sequence[Clip],
    valid: Sequence[Clip],
    frames: PerFrame,
    *,
    context: Context,
    config: ProbeConfig | None = None,
) -> LinearProbe:
    """A linear probe on the slots of labelled clips, made in the same context in which it will be used."""

    def part(clips: Sequence[Clip]) -> tuple[list[Array], list[Array]]:
        slots = clip_frames(folder, clips, frames, context)
        return slots, [np.full(len(rows), clip.label) for rows, clip in zip(slots, clips, strict=True)]

    return fit_probe(*part(train), *part(valid), classes=len(folder.classes), config=config)


def judge_clips(
    folder: FeatureFolder,
    clips: Sequence[Clip],
    split: Split,
    frames: PerFrame,
    *,
    config: ProbeConfig | None = None,
    aggregate: Aggregate = "mean",
) -> dict[Context, TrimmedResult]:
    """The test clips by a linear probe, with the take's context and, as the control, each alone.

    Probe settings are chosen on the slots of the validation takes' clips.
    """
    train, valid, test = parts_of(clips, split)
    results: dict[Context, TrimmedResult] = {}
    for context in CONTEXTS:
        probe = fit_clip_probe(folder, train, valid, frames, context=context, config=config)
        score = scores_of(frames, probe.head(folder.classes))
        results[context] = classify_clips(folder, test, score, context=context, aggregate=aggregate)
    return results


def submission(result: TrimmedResult) -> dict[str, Any]:
    """Predictions in the form of ``keystep_segment_test_unannotated.json`` with the missing ``label_id`` filled in.

    The benchmark documents its files and not its submission (and the page of the challenge could not be read), so this
    form is inferred: the names, takes and times are the benchmark's own, one ``label_id`` is added to each.

    Raises:
        InputError: a clip without the benchmark's name, so that the clips are not the benchmark's.
    """
    unnamed = [clip for clip in result.clips if not clip.name]
    if unnamed:
        raise InputError(
            f"{len(unnamed)} clips, such as that of {unnamed[0].take} at {unnamed[0].start:g} s, have no name "
            "of the benchmark; prepare the data set with keystep_benchmark/*.json"
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
