"""Check a head from outside on random frames before it is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.heads.head import Head
from keystep.nn.context import Cached, Memory

CHECKED_FRAMES = 8
"""Number of frames whose scores must not change with later frames."""
TOLERANCE = 1e-4


@torch.no_grad()
def try_head(head: Head) -> None:
    """Compare a head's behaviour in eval mode with its stated shape and delay; the head is not changed.

    Raises:
        InputError: scores have another shape, depend on frames beyond the stated delay, or differ between a stream and
            the whole video.
    """
    kind, was_training, device = head.config.kind, head.training, head.standardise.mean.device
    block = 1 if head.delay is None else head.delay + 1
    frames, cut = 4 * block + 2 * CHECKED_FRAMES, block + CHECKED_FRAMES
    x = torch.randn(1, frames, head.width, generator=torch.Generator().manual_seed(0)).to(device)
    head.eval()
    try:
        scores = head(x)
        expected = (head.stages, 1, frames, head.classes)
        if not isinstance(scores, Tensor) or scores.shape != expected:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"head {kind}: run returned {shape} for (1, {frames}, {head.width}); expected {expected}")
        if head.delay is None:
            return
        later = head(torch.cat([x[:, :cut], x[:, cut:] + 1], dim=1))
        if not _agree(scores[:, :, : CHECKED_FRAMES + 1], later[:, :, : CHECKED_FRAMES + 1]):
            raise InputError(
                f"head {kind}: scores depend on frames beyond its delay, {head.delay}; state the true delay, or "
                "None if it sees the whole video"
            )
        if not _agree(scores, _stream_scores(head, x, 2 * block)):
            raise InputError(
                f"head {kind}: scores on a stream differ from those on the whole video; use the context (around, "
                "attend, state) for everything outside of the given frames"
            )
    finally:
        head.train(was_training)


def _stream_scores(head: Head, x: Tensor, size: int) -> Tensor:
    """Scores (S, 1, T, C) of one video (1, T, D) that is streamed in chunks of ``size`` frames."""
    memory, found, first = Memory(), [], 0
    for chunk in torch.split(x, size, dim=1):
        context = Cached(memory, (first,), (chunk.shape[1],), chunk.shape[1], x.device)
        found.append(head.scores(chunk, context))
        memory, first = context.remembered, first + chunk.shape[1]
    return torch.cat(found, dim=2)


def _agree(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, atol=TOLERANCE, rtol=TOLERANCE)
