"""Backbones that need no weights, for tests: what they give can be said from the pictures."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor

from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.backbones.custom import FunctionBackbone

PICTURE = Picture(height=8, width=8, interpolation="area")


def _cells(clips: Tensor) -> Tensor:
    """Mean colours of four corners, of the clip's last picture, on the scale 0..1: (n, 12)."""
    last = clips[:, -1].float() / 255  # (n, 8, 8, 3)
    corners = [last[:, rows, columns].mean((1, 2)) for rows in CORNERS for columns in CORNERS]
    return torch.cat(corners, dim=1)


CORNERS = (slice(0, 4), slice(4, 8))


def colours() -> FunctionBackbone:
    """The colours of one picture."""
    return FunctionBackbone(_cells, name="toy", weights="0" * 64, width=12, picture=PICTURE, clip=ClipSpec())


def moving() -> FunctionBackbone:
    """The colours of the last of five pictures, a fifth of a second long."""
    clip = ClipSpec(frames=5, frame_rate=20)  # type: ignore[arg-type]  # a whole number is a fraction
    return FunctionBackbone(_cells, name="toy-clips", weights="1" * 64, width=12, picture=PICTURE, clip=clip)


def broken() -> FunctionBackbone:
    """Gives NaN."""

    def nothing(clips: Tensor) -> Tensor:
        return torch.full((len(clips), 12), float("nan"))

    return FunctionBackbone(nothing, name="toy-broken", weights="2" * 64, width=12, picture=PICTURE, clip=ClipSpec())


def huge() -> FunctionBackbone:
    """A thousand times too large for float16."""
    return FunctionBackbone(
        lambda clips: 6e7 + _cells(clips), name="toy-huge", weights="3" * 64, width=12, picture=PICTURE, clip=ClipSpec()
    )


def dying() -> FunctionBackbone:
    """Ends a worker process as the system does for want of memory."""

    def die(clips: Tensor) -> Tensor:
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)
        return _cells(clips)

    return FunctionBackbone(die, name="toy-dying", weights="4" * 64, width=12, picture=PICTURE, clip=ClipSpec())


def stuck() -> FunctionBackbone:
    """Leaves a file named by its process in the folder TOY_MARKS, and is at it for ten minutes."""

    def wait(clips: Tensor) -> Tensor:
        (Path(os.environ["TOY_MARKS"]) / str(os.getpid())).touch()
        time.sleep(600)
        return _cells(clips)

    return FunctionBackbone(wait, name="toy-stuck", weights="5" * 64, width=12, picture=PICTURE, clip=ClipSpec())


def slow() -> FunctionBackbone:
    """The colours of one picture, a second a call of at most 16 pictures."""

    def wait(clips: Tensor) -> Tensor:
        time.sleep(1)
        return _cells(clips)

    return FunctionBackbone(wait, name="toy-slow", weights="6" * 64, width=12, picture=PICTURE, clip=ClipSpec())


def dying_of_long() -> FunctionBackbone:
    """Ends the process at a video of more than twelve slots, as the system does for want of memory."""

    def die(clips: Tensor) -> Tensor:
        if len(clips) > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return _cells(clips)

    return FunctionBackbone(die, name="toy-long", weights="7" * 64, width=12, picture=PICTURE, clip=ClipSpec())
