"""Several live streams in one state, so that one pass through the networks advances all that have frames."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.errors import InputError
from keystep.heads import Head
from keystep.loading import check_head
from keystep.pjepa import PJEPA
from keystep.stream import saving, steps
from keystep.stream.session import Position

SEATS = 8
"""Streams of a batch: one pass over 8 costs about as much as two over one (preset ``tiny``, on a CPU)."""
MOST_STATE = 64 << 20
"""Bytes of keys and values of a stream."""


def check_live_head(head: Head, model: PJEPA | None, width: int) -> None:
    """Refuse a head that cannot answer live streams.

    Args:
        model: whose latents the head reads; None: it reads the features.
        width: of the features.

    Raises:
        InputError: the model has no causal attention, or the head is of another width or reads the whole video.
    """
    if model is not None:
        check_head(head, model, "the head")
        pattern = model.config.stream_attention
        if pattern is None or model.config.oracle:
            raise InputError(f"this model attends {model.config.attention}: it cannot run on a stream")
        width = model.latent_dim(pattern)
    if head.width != width:
        raise InputError(
            f"the head reads latents {head.width} wide, live ones are {width}; give a causal head of "
            "'keystep eval' with --head"
        )
    if not head.causal:
        raise InputError("the head reads the whole video; give a causal head of 'keystep eval' with --head")


class Batch:
    """Streams that are advanced together, each by as many frames as it has; a seat is a stream's row.

    Args:
        model: None: the head reads the features themselves.
        head: runs on streams.
    """

    def __init__(self, model: PJEPA | None, head: Head) -> None:
        self.model, self.head = model, head
        self.position = Position(steps.init(head if model is None else model, SEATS))
        if model is not None:
            self.position = Position(self.position.model, steps.init(head, SEATS))

    @property
    def width(self) -> int:
        """Numbers of a frame."""
        return int(self.position.model.waiting.shape[2])

    def advance(self, frames: Mapping[int, np.ndarray]) -> tuple[dict[int, np.ndarray], Position]:
        """Process the next frames of some seats; what it returns holds once it is the batch's ``position``.

        Args:
            frames: seat -> (n, D).

        Returns:
            Seat -> (m, C) probabilities of the frames that became final, and the position after them.

        Raises:
            InputError: a frame that makes a network overflow.
        """
        counts = [len(frames.get(seat, ())) for seat in range(SEATS)]
        chunk = torch.zeros(SEATS, max(counts), self.width)
        for seat, rows in frames.items():
            chunk[seat, : len(rows)] = torch.from_numpy(rows)
        first, second = self.position.model, self.position.head
        if self.model is None:
            scores, first = steps.step(self.head, chunk, first, counts)
            given = first.given
        else:
            assert second is not None
            latents, first = steps.step(self.model, chunk, first, counts)
            scores, second = steps.step(self.head, latents, second, first.given)
            given = second.given
        found = scores.softmax(-1).float().cpu().numpy()
        return {seat: found[seat, :count] for seat, count in enumerate(given) if count}, Position(first, second)

    def free(self, seat: int) -> None:
        """Let the seat's next frame be the first of another stream."""
        model, head = self.position.model, self.position.head
        self.position = Position(steps.reset(model, [seat]), None if head is None else steps.reset(head, [seat]))

    def take(self, head: Head) -> None:
        """Go on with another head, which must not need earlier frames."""
        self.head, width = head, self.width
        if self.model is not None:
            self.position = Position(self.position.model, steps.init(head, SEATS))
        elif head.width == width:
            self.position = Position(steps.init(head, SEATS))

    def save(self, path: Path, position: Position, extra: Mapping[str, Any]) -> None:
        """Write a position of the batch, atomically.

        Raises:
            InputError: it cannot be written.
        """
        states = {saving.HEAD if self.model is None else saving.MODEL: position.model}
        if position.head is not None:
            states[saving.HEAD] = position.head
        saving.save_all(path, {name: (network, states[name]) for name, network in self._kept.items()}, extra)

    @classmethod
    def load(cls, path: Path, model: PJEPA | None, head: Head) -> tuple[Batch, dict[str, Any]]:
        """A batch that `save` wrote, and what else was written.

        Raises:
            InputError: a damaged file, or one of another model or head.
        """
        batch = cls(model, head)
        states, extra = saving.load_all(path, batch._kept)
        if any(state.streams != SEATS for state in states.values()):
            raise InputError(f"{path}: not the state of {SEATS} streams")
        begun = batch.position
        if model is None:
            batch.position = Position(states.get(saving.HEAD, begun.model))
        else:
            batch.position = Position(states[saving.MODEL], states.get(saving.HEAD, begun.head))
        return batch, extra

    @property
    def _kept(self) -> dict[str, PJEPA | Head]:
        """Networks whose state is written: a head that reads single frames has none, and may be another next time."""
        networks: dict[str, PJEPA | Head] = {} if self.model is None else {saving.MODEL: self.model}
        return networks if reads_single_frames(self.head) else {**networks, saving.HEAD: self.head}


def reads_single_frames(head: Head) -> bool:
    """Whether a head's scores of a frame depend on no other frame."""
    return head.reach == (0, 0) and head.delay == 0


def live_model(model: PJEPA, window: int | None) -> PJEPA:
    """The model as live streams run it: the same weights, with attention that keeps a stream's state bounded.

    Args:
        model: one that cannot run on streams is returned as it is.
        window: frames that a stream attends to. None: those of the model, or as many as `MOST_STATE` holds.

    Raises:
        InputError: the model has a window of its own, or the state would be larger than `MOST_STATE`.
    """
    config = model.config
    pattern = config.stream_attention
    if pattern is None or config.oracle:
        return model
    most = max(1, MOST_STATE // (2 * config.depth * config.dim * 4))
    if pattern.window is not None:
        if window is not None:
            raise InputError(f"--live-window {window}: this model has a window already ({pattern}); leave it out")
        return model
    if window is not None and window > most:
        raise InputError(f"--live-window {window}: at most {most} frames, or a stream holds {MOST_STATE >> 20} MiB")
    limited = copy.copy(model)
    limited.config = config.limited(window or most)
    return limited
