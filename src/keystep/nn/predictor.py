"""The predictor: fills hidden frames from the encoded visible ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig
from keystep.nn.blocks import Trunk
from keystep.nn.context import Whole
from keystep.nn.places import Packing, lay_out


class Predictor(Trunk):
    """Blocks over the whole sequence: latents at visible frames, one learned token at hidden ones."""

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
        learned: Tensor,
    ) -> Tensor:
        """Predictions at every valid frame, (B, T, dim) or (B, T, output_dim); zeros at padding.

        Args:
            latents: (B, T, dim) from the encoder, zeros where it saw nothing.
            hidden: (B, T) bool, the frames that get ``mask_token`` (1, 1, dim).
            learned: (B, T, readout_dim or dim), what the read-out makes of the latents.
        """
        tokens = torch.where(hidden[..., None], mask_token.to(latents.dtype), latents)
        packing = Packing(batch.valid)
        context = Whole(packing.places(lay_out(batch.valid, batch.segment_lengths, batch.starts)))
        predictions: Tensor = self.output(self.run_blocks(packing.pack(tokens), context, self.pattern))
        if self.visible_output is not None:
            said = self.visible_output(packing.pack(learned))
            predictions = torch.where(packing.pack(hidden[..., None]), predictions, said)
        return packing.unpack(predictions)
