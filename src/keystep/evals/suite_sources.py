"""What a suite's heads read: raw features, the best control, and every model's latents, with what each has to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from keystep.encoding import encode_videos
from keystep.evals.candidates import RAW
from keystep.evals.controls import Control
from keystep.evals.judge import Family, Judge, Mode, Representation
from keystep.evals.modes import marked_oracle, pattern_delay, patterns_of, slot_delay
from keystep.evals.protocol import Entrant
from keystep.evals.results import head_origin
from keystep.evals.study import candidates_of, control_key, plain, represented
from keystep.evals.trimmed import PerFrame, model_frames, raw_frames
from keystep.progress import Task

BEST_CONTROL = "best control"


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
    judge: Judge,
    entrants: Sequence[Entrant],
    mode: Mode,
    seeds: int,
    task: Task,
    weights: Mapping[tuple[str, int], str],
) -> Iterator[Source]:
    """Raw features, the control that is best on validation, and every model's latents, in one mode."""
    raw = {name: judge.folder.vectors(name) for name in judge.videos}
    own_delay = slot_delay(judge.folder)
    for seed in range(seeds):
        yield Source("raw features", "raw", mode, seed, 1, own_delay, "", {}, lambda: raw, raw_frames)
    best, transformed = _best_control(judge, raw, mode, task)
    for seed in range(seeds):
        block, delay = (1, own_delay) if best.causal else (None, None)
        yield Source(
            BEST_CONTROL, "control", mode, seed, block, delay, best.name, {}, lambda: transformed, best.transform
        )
    for entrant in entrants:
        pattern = patterns_of(entrant.model).get(mode)
        if pattern is None:
            continue
        wait = pattern_delay(pattern, float(judge.folder.timeline.rate))
        block = {"causal": 1, "block_causal": pattern.block}.get(pattern.kind)
        family: Family = "oracle" if entrant.model.config.oracle else "learned"
        family = "reconstruction" if entrant.reconstruction else family
        yield Source(
            marked_oracle(entrant.name) if entrant.model.config.oracle else entrant.name,
            family,
            mode,
            entrant.seed,
            block,
            own_delay if block is not None else None if wait is None else wait + own_delay,
            str(pattern),
            head_origin(judge.folder, weights.get((entrant.name, entrant.seed), ""), mode, family == "oracle"),
            lambda entrant=entrant, pattern=pattern: dict(  # type: ignore[misc]
                encode_videos(entrant.model, judge.folder, judge.videos, pattern)
            ),
            lambda features, model=entrant.model, pattern=pattern: model_frames(model, pattern)(features),  # type: ignore[misc]
        )


def _best_control(judge: Judge, raw: Representation, mode: Mode, task: Task) -> tuple[Control, Representation]:
    """Of all that learns nothing, the control whose linear probe is best on validation."""
    candidates, causal = candidates_of(judge, raw), mode == "causal"

    def score(control: Control) -> float:
        task.advance(0, f"choosing the control: {control.name} ({mode})")
        key = control_key(control, mode, candidates)
        return judge.run(partial(represented, control, raw), refine=False, key=key).valid_accuracy

    smoothing = max(candidates.smoothing(causal=causal), key=score)
    offsets = max(candidates.offsets(causal=causal), key=score)
    histories = candidates.histories(causal=causal).values()
    best = max((RAW, smoothing, offsets, *histories, candidates.together(smoothing, offsets, causal=causal)), key=score)
    return best, plain(represented(best, raw))
