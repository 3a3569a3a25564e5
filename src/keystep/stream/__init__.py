"""Streaming: compute latents and class scores chunk by chunk, with an explicit state.

The state caches what later frames can attend to, so that each frame is computed once, independently of the chunks. The
latents equal those of `PJEPA.encode` with the same attention. With a window, the state has bounded size. A causal model
answers immediately, a block-causal one when a block is complete; until then, `provisional` returns the latents that the
frames of the open block would have if the video ended now.

All functions accept a model or a head. `Stream` runs a model and a head together, and `LiveSteps` adds times, smoothing
and the treatment of gaps.
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
