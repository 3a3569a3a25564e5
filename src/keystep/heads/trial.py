"""A head from outside, tried on made-up frames before it is trained: no test of ours has seen it."""

from __future__ import annotations

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.heads.head import Head
from keystep.nn.context import Cached, Memory

SETTLED = 8
"""Frames whose scores have to be final when the later ones change."""
TOLERANCE = 1e-4


@torch.no_grad()
def try_head(head: Head) -> None:
    """Compare what a head says of itself with what it does, in eval mode; the head stays as it is.

    Raises:
        InputError: scores of another shape, scores that later frames change behind the stated delay, or other scores
            on a stream than on the whole video.
    """
    kind, was_training, device = head.config.kind, head.training, head.standardise.mean.device
    block = 1 if head.delay is None else head.delay + 1
    frames, cut = 4 * block + 2 * SETTLED, block + SETTLED
    x = torch.randn(1, frames, head.width, generator=torch.Generator().manual_seed(0)).to(device)
    head.eval()
    try:
        scores = head(x)
        expected = (head.stages, 1, frames, head.classes)
        if not isinstance(scores, Tensor) or scores.shape != expected:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"head {kind}: its run gave {shape} for (1, {frames}, {head.width}); expected {expected}")
        if head.delay is None:
            return
        later = head(torch.cat([x[:, :cut], x[:, cut:] + 1], dim=1))
        if not _alike(scores[:, :, : SETTLED + 1], later[:, :, : SETTLED + 1]):
            raise InputError(
                f"head {kind}: frames that are further ahead than its delay, {head.delay}, change its scores; state "
                "the true delay, None if it sees the whole video"
            )
        if not _alike(scores, _streamed(head, x, 2 * block)):
            raise InputError(
                f"head {kind}: other scores on a stream than on the whole video; ask the context (around, attend, "
                "state) for whatever lies outside of the frames at hand"
            )
    finally:
        head.train(was_training)


def _streamed(head: Head, x: Tensor, size: int) -> Tensor:
    """The scores of one video (1, T, D) that comes in chunks, (S, 1, T, C)."""
    memory, found, first = Memory(), [], 0
    for chunk in torch.split(x, size, dim=1):
        context = Cached(memory, (first,), (chunk.shape[1],), chunk.shape[1], x.device)
        found.append(head.scores(chunk, context))
        memory, first = context.remembered, first + chunk.shape[1]
    return torch.cat(found, dim=2)


def _alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, atol=TOLERANCE, rtol=TOLERANCE)
