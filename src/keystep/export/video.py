"""A model and a head for whole videos as one graph, for those that use future frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.export.buffers import Rotations, WholeGraph
from keystep.export.step import check_width
from keystep.heads import Head
from keystep.pjepa import PJEPA


class ExportedVideo(nn.Module):
    """Offline encoder with an optional head, in float32 on the CPU. Attention needs T x T memory.

    Args:
        model: not copied.
        head: adds class probabilities as a second output.

    Raises:
        InputError: an ORACLE model, or a head of another width.
    """

    def __init__(self, model: PJEPA, head: Head | None = None) -> None:
        super().__init__()
        if model.config.oracle:
            raise InputError("this is an ORACLE model: it needs the true boundaries, which graphs do not support")
        if head is not None:
            check_width(model, head, model.config.attention)
        assert model.config.input_dim is not None
        self.config, self.width = model.config, model.config.input_dim
        self.encoder, self.head = model.encoder, head
        self.rotations = Rotations()
        with torch.no_grad():
            self(torch.zeros(1, 2, self.width))  # creates the rotations

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of `forward`."""
        return ["latents"] if self.head is None else ["latents", "probabilities"]

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(1, T, D_in) -> latents (1, T, D), and with a head class probabilities (1, T, C)."""
        context = WholeGraph(features.shape[1], self.rotations)
        latents = self.encoder.read(features, context, self.config.attention)
        if self.head is None:
            return (latents,)
        return latents, self.head.scores(latents, context)[-1].softmax(-1)
