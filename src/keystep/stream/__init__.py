"""Live encoding: a chunk of frames in, final latents out, with a state that the caller holds.

The state keeps the keys and values that later frames can still see, so each frame is computed once, whatever the
chunks; the latents are those of `PJEPA.encode` with the same attention. With a window, the state stops growing.
A causal model answers at once. A block-causal one answers when a block is complete; until then `provisional` says what
the frames of the open block would be if the video ended now.

Temporal heads stream alike: `init_head`, `step_head`, `finish_head`. `LiveSteps` runs a model and a head together.
"""

from keystep.stream.heads import HeadState, finish_head, init_head, step_head
from keystep.stream.live import LiveSteps, Reading
from keystep.stream.saving import load, save
from keystep.stream.smoothing import Smoothing
from keystep.stream.state import StreamState
from keystep.stream.steps import delays, finish, init, provisional, reset, step

__all__ = [
    "HeadState",
    "LiveSteps",
    "Reading",
    "Smoothing",
    "StreamState",
    "delays",
    "finish",
    "finish_head",
    "init",
    "init_head",
    "load",
    "provisional",
    "reset",
    "save",
    "step",
    "step_head",
]
