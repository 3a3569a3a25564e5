"""Parameters, delay, receptive field and speed of a head."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from keystep.heads.head import Head


@dataclass(frozen=True)
class Description:
    """A head in numbers.

    Attributes:
        kind: its name.
        parameters: number of learned weights.
        delay: maximum number of frames until scores are final. None: needs the whole video.
        before, after: past and future frames in the receptive field.
    """

    kind: str
    parameters: int
    delay: int | None
    before: int
    after: int

    def __str__(self) -> str:
        when = "after the whole video" if self.delay is None else f"after at most {self.delay} frames"
        return (
            f"{self.kind}: {self.parameters:,} parameters, answers {when}, sees {self.before:,} frames back and "
            f"{self.after:,} ahead"
        )


def describe(head: Head) -> Description:
    """Count the parameters of a head and state its delay and receptive field."""
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return Description(head.config.kind, parameters, head.delay, *head.reach)


@torch.no_grad()
def frames_per_second(head: Head, frames: int = 2000, repeats: int = 3) -> float:
    """Measure the offline speed of a head on its device.

    Args:
        head: as it is; put into eval mode meanwhile.
        frames: length of the video.
        repeats: number of runs, of which the fastest counts.

    Returns:
        Frames of one video that the head scores per second.
    """
    like = next(head.parameters())
    features = like.new_zeros(1, frames, head.width)
    was_training = head.training
    head.eval()
    best = float("inf")
    for _ in range(repeats + 1):  # the first run is a warm-up
        start = time.perf_counter()
        float(head(features)[-1, 0, -1, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    head.train(was_training)
    return frames / best
