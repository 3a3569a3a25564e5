"""Inputs of temporal heads: raw features, the best control, and the latents of every model, with their delays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keystep.encoding import encode_videos
from keystep.evals.controls import Control
from keystep.evals.judge import Judge
from keystep.evals.model_rows import CONTROL
from keystep.evals.modes import attention_patterns, mark_oracle, pattern_delay, slot_delay
from keystep.evals.protocol import Entrant
from keystep.evals.representation import Computed, Representation, stored
from keystep.evals.results import head_origin
from keystep.evals.rows import Family, Mode
from keystep.evals.study import apply_control, without_bands
from keystep.evals.trimmed import PerFrame, model_frames, raw_frames


@dataclass(frozen=True, eq=False)
class HeadInput:
    """A representation in one mode.

    Attributes:
        name, family, mode, seed, detail: as in `Row`.
        block: number of slots that become final together; None: all of the video or segment.
        delay: additional delay in seconds, or the total delay if there is no block; None: until the end of the video.
    """

    name: str
    family: Family
    mode: Mode
    seed: int
    block: int | None
    delay: float | None
    detail: str
    origin: Mapping[str, str]
    """The model and data that a head on it has to be used with; for `keystep stream`."""
    made: Callable[[], Representation]
    """Computes (T, D) for each video of the split."""
    frames: PerFrame
    """The same for a part of a video; for clips."""


def sources(
    judge: Judge, entrants: Sequence[Entrant], mode: Mode, seeds: int, best: Control | None
) -> Iterator[HeadInput]:
    """Yield raw features, the best control, and the latents of every model in one mode.

    Args:
        judge: data and split.
        entrants: the models.
        mode: ``offline`` or ``causal``.
        seeds: number of seeds of heads on raw features and the control.
        best: the best control on the validation videos; None: skip raw features and the control.
    """
    own_delay = slot_delay(judge.folder)
    if seeds and best is not None:
        yield from _simple(judge, mode, seeds, best)
    for entrant in entrants:
        model, pattern = entrant.model, attention_patterns(entrant.model).get(mode)
        if pattern is None:
            continue
        wait = pattern_delay(pattern, float(judge.folder.timeline.rate))
        block = {"causal": 1, "block_causal": pattern.block}.get(pattern.kind)
        oracle = model.config.oracle
        family: Family = "reconstruction" if entrant.reconstruction else "learned"
        yield HeadInput(
            mark_oracle(entrant.name) if oracle else entrant.name,
            family,
            mode,
            entrant.seed,
            block,
            own_delay if block is not None else None if wait is None else wait + own_delay,
            str(pattern),
            head_origin(judge.folder, model.fingerprint, mode, oracle),
            lambda model=model, pattern=pattern: stored(  # type: ignore[misc]
                encode_videos(model, judge.folder, judge.videos, pattern), judge.kept.folder
            ),
            lambda features, model=model, pattern=pattern: model_frames(model, pattern)(features),  # type: ignore[misc]
        )


def count_sources(entrants: Sequence[Entrant], mode: Mode, seeds: int) -> int:
    """Number of representations that `sources` yields, if the best control is known."""
    return 2 * seeds + sum(mode in attention_patterns(entrant.model) for entrant in entrants)


def _simple(judge: Judge, mode: Mode, seeds: int, best: Control) -> Iterator[HeadInput]:
    """Raw features and the best control, for each seed."""
    raw = Computed(judge.videos, judge.folder.vectors)
    own_delay = slot_delay(judge.folder)
    for seed in range(seeds):
        yield HeadInput("raw features", "raw", mode, seed, 1, own_delay, "", {}, lambda: raw, raw_frames)
    transformed = without_bands(apply_control(best, raw))
    for seed in range(seeds):
        block, delay = (1, own_delay) if best.causal else (None, None)
        yield HeadInput(
            CONTROL, "control", mode, seed, block, delay, best.name, {}, lambda: transformed, best.transform
        )
