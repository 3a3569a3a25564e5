"""The predictor, which predicts hidden frames from the latents of visible ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig
from keystep.nn.blocks import Trunk
from keystep.nn.context import Whole
from keystep.nn.places import Packing, lay_out


class Predictor(Trunk):
    """Transformer over the whole sequence, with latents at visible frames and a learned mask token at hidden ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.predictor_depth, config.predictor_heads or config.heads)
        self.pattern = config.predictor_attention
        self.output = nn.Identity() if config.output_dim is None else nn.Linear(config.dim, config.output_dim)
        from_encoder = config.visible_predictions == "encoder"
        width = config.output_dim or config.dim
        self.visible_output = nn.Linear(config.context_dim, width) if from_encoder else None

    def forward(
        self,
        latents: Tensor,
        batch: SequenceBatch,
        hidden: Tensor,
        mask_token: Tensor,
        readout: nn.Module,
    ) -> Tensor:
        """Predictions at every valid frame, (B, T, dim) or (B, T, output_dim); zeros at padding.

        Args:
            latents: (B, T, dim) output of the encoder, zeros at hidden frames.
            batch: of these frames.
            hidden: (B, T) bool.
            mask_token: (1, 1, dim), the input at hidden frames.
            readout: the encoder's map from latents (N, dim) to the learned band, (N, readout_dim or dim).
        """
        tokens = torch.where(hidden[..., None], mask_token.to(latents.dtype), latents)
        packing = Packing(batch.valid)
        context = Whole(packing.places(lay_out(batch.valid, batch.segment_lengths, batch.starts)))
        filled = self.run_blocks(packing.pack(tokens), context, self.pattern)
        if self.visible_output is None:
            return packing.unpack(self.output(filled))
        empty = packing.pack(hidden[..., None])[..., 0]  # no frame needs both maps
        unseen, seen = self.output(filled[empty]), self.visible_output(readout(packing.pack(latents)[~empty]))
        predictions = seen.new_zeros(*empty.shape, seen.shape[-1])
        predictions[empty], predictions[~empty] = unseen.to(seen.dtype), seen
        return packing.unpack(predictions)
