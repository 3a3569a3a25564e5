"""What temporal heads read: raw features, the best control, and every model's latents, with what each has to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keystep.encoding import encode_videos
from keystep.evals.controls import Control
from keystep.evals.judge import Judge, Representation
from keystep.evals.model_rows import CONTROL
from keystep.evals.modes import marked_oracle, pattern_delay, patterns_of, slot_delay
from keystep.evals.protocol import Entrant
from keystep.evals.results import head_origin
from keystep.evals.rows import Family, Mode
from keystep.evals.study import plain, represented
from keystep.evals.trimmed import PerFrame, model_frames, raw_frames


@dataclass(frozen=True, eq=False)
class Source:
    """One representation in one mode.

    block: slots that become final together; None: all of the video's, or those of a segment. delay: seconds that its
    slots wait beyond that, and all that they wait where there is no block; None: until the video is over.
    """

    name: str
    family: Family
    mode: Mode
    seed: int
    block: int | None
    delay: float | None
    detail: str
    origin: Mapping[str, str]
    """What a head on it has to be used with; for `keystep stream`."""
    made: Callable[[], Representation]
    """(T, D) of each video of the split."""
    frames: PerFrame
    """The same of any stretch of features, for clips."""


def sources(
    judge: Judge, entrants: Sequence[Entrant], mode: Mode, seeds: int, best: Control | None
) -> Iterator[Source]:
    """Raw features, the best control, and every model's latents, in one mode.

    Args:
        seeds: of heads on what has no seed itself.
        best: the control that is best on the validation videos; None: no model is to be compared with one.
    """
    own_delay = slot_delay(judge.folder)
    if seeds and best is not None:
        yield from _simple(judge, mode, seeds, best)
    for entrant in entrants:
        model, pattern = entrant.model, patterns_of(entrant.model).get(mode)
        if pattern is None:
            continue
        wait = pattern_delay(pattern, float(judge.folder.timeline.rate))
        block = {"causal": 1, "block_causal": pattern.block}.get(pattern.kind)
        oracle = model.config.oracle
        family: Family = "reconstruction" if entrant.reconstruction else "learned"
        yield Source(
            marked_oracle(entrant.name) if oracle else entrant.name,
            family,
            mode,
            entrant.seed,
            block,
            own_delay if block is not None else None if wait is None else wait + own_delay,
            str(pattern),
            head_origin(judge.folder, model.fingerprint, mode, oracle),
            lambda model=model, pattern=pattern: dict(  # type: ignore[misc]
                encode_videos(model, judge.folder, judge.videos, pattern)
            ),
            lambda features, model=model, pattern=pattern: model_frames(model, pattern)(features),  # type: ignore[misc]
        )


def _simple(judge: Judge, mode: Mode, seeds: int, best: Control) -> Iterator[Source]:
    """Raw features and the best control, once for each seed of a head."""
    raw = {name: judge.folder.vectors(name) for name in judge.videos}
    own_delay = slot_delay(judge.folder)
    for seed in range(seeds):
        yield Source("raw features", "raw", mode, seed, 1, own_delay, "", {}, lambda: raw, raw_frames)
    transformed = plain(represented(best, raw))
    for seed in range(seeds):
        block, delay = (1, own_delay) if best.causal else (None, None)
        yield Source(CONTROL, "control", mode, seed, block, delay, best.name, {}, lambda: transformed, best.transform)
