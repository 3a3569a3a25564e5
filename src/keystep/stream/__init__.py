"""Live encoding: a chunk of frames in, final latents out, with a state that the caller holds.

The state keeps what later frames can still see, so each frame is computed once, whatever the chunks; the latents are
those of `PJEPA.encode` with the same attention. With a window, the state stops growing.
A causal model answers at once. A block-causal one answers when a block is complete; until then `provisional` says what
the frames of the open block would be if the video ended now.

Heads stream alike: every function takes a head where it takes a model. `Stream` runs a model and a head together, and
`LiveSteps` adds times, smoothing and gaps.
"""

from keystep.stream.live import LiveSteps, Reading
from keystep.stream.saving import load, save
from keystep.stream.session import Position, Stream, StreamResult
from keystep.stream.smoothing import Smoothing
from keystep.stream.state import StreamState
from keystep.stream.steps import delays, finish, init, provisional, reset, step

__all__ = [
    "LiveSteps",
    "Position",
    "Reading",
    "Smoothing",
    "Stream",
    "StreamResult",
    "StreamState",
    "delays",
    "finish",
    "init",
    "load",
    "provisional",
    "reset",
    "save",
    "step",
]
