"""What a head costs and needs: parameters, delay, reach, speed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from keystep.heads.head import Head


@dataclass(frozen=True)
class Description:
    """parameters: learned numbers. delay: frames until an answer is final, at most; None: the whole video.

    before, after: frames that an answer can depend on (the receptive field without the frame itself).
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
    """A head in numbers."""
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return Description(head.config.kind, parameters, head.delay, *head.reach)


@torch.no_grad()
def frames_per_second(head: Head, frames: int = 2000, repeats: int = 3) -> float:
    """Frames of one video that the head scores in a second, offline, on its device: the best of some runs."""
    like = next(head.parameters())
    features = like.new_zeros(1, frames, head.width)
    was_training = head.training
    head.eval()
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        float(head(features)[-1, 0, -1, 0])  # a GPU has to be done
        best = min(best, time.perf_counter() - start)
    head.train(was_training)
    return frames / best
