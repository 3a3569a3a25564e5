"""Heads on streams: a chunk of latents or features in, the scores that became final out.

The state keeps the frames that convolutions reach back to, and the keys and values that attention still sees. It is a
value: a step returns a new one and leaves the old one usable. Its size is bounded, whatever the length of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from keystep.errors import InputError
from keystep.heads import LinearHead
from keystep.temporal.flow import Continued
from keystep.temporal.head import TemporalHead, checked

CHUNK = 256
"""Frames that go through a head at once, so that a long chunk needs no more memory than a short one."""


@dataclass(frozen=True, eq=False)
class HeadState:
    """Where B streams are, which run in step.

    owner, weights: the head that the state belongs to, and its signature.
    frames: index of the next frame to score.
    waiting: (B, n, D) frames of the open chunk of a head that answers chunk by chunk.
    carried: what the head remembers, in the order in which it asks for it.
    """

    owner: ReferenceType[TemporalHead]
    weights: str
    frames: int
    waiting: Tensor
    carried: tuple[Tensor, ...] = ()

    @property
    def held(self) -> int:
        """Frames that wait for the end of their chunk."""
        return int(self.waiting.shape[1])

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.waiting, *self.carried))


def init_head(head: TemporalHead, batch: int = 1) -> HeadState:
    """The state before the first frame of ``batch`` streams.

    Raises:
        InputError: the head sees the future, or is in training mode.
    """
    if head.delay is None:
        raise InputError(f"this {head.config.kind} head reads the whole video; train one with causal=true for streams")
    if head.training:
        raise InputError("this head is in training mode, where its answers are random; call head.eval() first")
    return HeadState(ref(head), head.signature, 0, head.standardise.mean.new_zeros(batch, 0, head.width))


def step_head(head: TemporalHead, chunk: Tensor, state: HeadState) -> tuple[Tensor, HeadState]:
    """Take the next frames, (B, n, D); return the scores that became final, (B, m, C), and the new state.

    ``m`` equals ``n``, but for heads that answer chunk by chunk: there it is a multiple of their chunk and may be 0.
    The scores are those of the offline run. After an error the old state is as good as before.

    Raises:
        InputError: another batch size or width than the state's, a frame that is not finite or so large that the
            head's numbers overflow, another head's state, or a stream that was finished in the middle of a chunk.
    """
    chunk = _checked(head, chunk, state)
    assert head.delay is not None
    block = head.delay + 1
    if state.frames % block and not state.held:
        raise InputError(
            f"this stream was finished at frame {state.frames}, in the middle of a chunk of {block}; go on from the "
            "state before finish_head, or begin anew"
        )
    rows = torch.cat([state.waiting, chunk], dim=1)
    ready = rows.shape[1] // block * block
    scores, state = _advanced(head, rows[:, :ready], block, state)
    return scores, replace(state, waiting=rows[:, ready:].clone())  # not a view that keeps the whole chunk


def finish_head(head: TemporalHead, state: HeadState) -> tuple[Tensor, HeadState]:
    """Score what the open chunk holds, as if the videos ended here; (B, m, C) and the state behind it."""
    _check_owner(head, state)
    scores, after = _advanced(head, state.waiting, max(1, state.held), state)
    return scores, replace(after, waiting=state.waiting[:, :0])


AnyHead = LinearHead | TemporalHead
"""What can read steps off a stream: a `LinearHead` answers each frame by itself and needs no state."""


def begin(head: AnyHead) -> HeadState | None:
    """The state before the first frame of one stream; None for heads that remember nothing."""
    return init_head(head) if isinstance(head, TemporalHead) else None


@torch.no_grad()
def read(
    head: AnyHead, latents: Tensor, state: HeadState | None, *, end: bool = False
) -> tuple[Tensor, HeadState | None]:
    """The next latents (n, D) of one stream -> the probabilities (m, C) that became final, and the new state.

    end: as if the video ended behind them, so that nothing waits on.
    """
    if not isinstance(head, TemporalHead):
        return head.probabilities(latents.float().cpu()), None
    assert state is not None
    if not len(latents) and not state.held:  # nothing came and nothing waits, the stream may be over
        return latents.new_zeros(0, head.classes).float().cpu(), state
    scores, state = step_head(head, latents[None], state)
    if end:
        rest, state = finish_head(head, state)
        scores = torch.cat([scores, rest], dim=1)
    return scores[0].softmax(-1).float().cpu(), state


@torch.no_grad()
def _advanced(head: TemporalHead, frames: Tensor, block: int, state: HeadState) -> tuple[Tensor, HeadState]:
    """Score (B, n, D) frames that follow on what the state remembers, in pieces of whole blocks."""
    size = max(block, CHUNK // block * block)
    parts = [frames.new_zeros(len(frames), 0, head.classes)]
    for start in range(0, frames.shape[1], size):
        piece = frames[:, start : start + size]
        flow = Continued(piece, state.frames, state.carried)
        scores = head.run(head.standardise(piece), flow)[-1]
        if not bool(scores.isfinite().all()):
            row, frame = (~scores.isfinite().all(-1)).nonzero()[0].tolist()
            raise InputError(
                f"frame {state.frames + frame} of stream {row}, or one before it, is so large that the head's numbers "
                "overflow; look for broken features"
            )
        parts.append(scores)
        state = replace(state, frames=state.frames + piece.shape[1], carried=tuple(flow.carry))
    return torch.cat(parts, dim=1), state


def _check_owner(head: TemporalHead, state: HeadState) -> None:
    if state.owner() is not head and state.weights != head.signature:
        raise InputError("this state belongs to another head; begin with keystep.stream.init_head(head)")
    if head.training:
        raise InputError("this head is in training mode, where its answers are random; call head.eval() first")


def _checked(head: TemporalHead, chunk: Tensor, state: HeadState) -> Tensor:
    """The chunk on the head's device and in its precision."""
    _check_owner(head, state)
    chunk = checked(head, chunk).to(head.standardise.mean)
    if len(chunk) != len(state.waiting):
        raise InputError(f"the chunk has {len(chunk)} streams; this state has {len(state.waiting)}")
    finite = chunk.isfinite().all(-1)
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise InputError(f"frame {state.frames + state.held + frame} of stream {row} holds NaN or infinity")
    return chunk
