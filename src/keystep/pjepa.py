"""P-JEPA: encode the visible frames of a procedure, predict the hidden ones in latent space.

"P-JEPA: Procedural Video Representation Learning via Joint Embedding Predictive Architecture", arXiv 2606.23256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from keystep import persistence
from keystep.batch import SequenceBatch
from keystep.config import ModelConfig, RunConfig
from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.bands import attention_scope
from keystep.nn.encoder import Encoder
from keystep.nn.predictor import Predictor


class Output(NamedTuple):
    """What one training pass gives.

    latents: (B, T, dim) of the context encoder, zeros at hidden frames and padding.
    predictions: (B, T, dim or output_dim) at every frame, zeros at padding; `ModelConfig.visible_predictions` says what
        those of visible frames are read from.
    """

    latents: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class Origin:
    """Where a loaded model comes from, as far as that is known.

    Attributes:
        source: the folder or hub id that was loaded.
        run: the folder of the pretraining run, which has ``config.yaml``.
        config: all settings of that run.
        videos: names of the videos that it was pretrained on.
    """

    source: str = "a model"
    run: Path | None = None
    config: RunConfig | None = None
    videos: tuple[str, ...] = ()

    @property
    def rate(self) -> str | None:
        """Frames a second that the model was trained at."""
        data = self.config.data if self.config else None
        rate = None if data is None else data.rate or data.source_rate
        return None if rate is None else str(rate)


class PJEPA(nn.Module):
    """Context encoder, predictor and mask token. The target encoder lives beside it, in training (`keystep.target`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.input_dim is None:
            raise InputError("model.input_dim is not set; it is the width of the features")
        self.config = config
        self.origin = Origin()
        self.encoder = Encoder(config)
        self.predictor = Predictor(config)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))

    def forward(
        self,
        batch: SequenceBatch,
        hidden: Tensor,
        pattern: AttentionPattern | None = None,
        visible: Tensor | None = None,
    ) -> Output:
        """Hide the frames marked in ``hidden`` (B, T) bool, encode the others, predict all.

        Args:
            pattern: the encoder's attention for this pass; None takes the model's own.
            visible: (B, T) bool, the frames to encode, when those are not all others. A frame that is neither hidden
                nor visible tells the predictor nothing: a zero vector stands for it.
        """
        self._check(batch, pattern)
        seen = ~hidden if visible is None else visible & ~hidden
        pattern = pattern or self.config.attention
        latents = self.encoder(batch, seen, pattern)
        predictions = self.predictor(latents, batch, hidden, self.mask_token, self.encoder.readout)
        return Output(latents, predictions)

    @torch.no_grad()
    def encode(
        self,
        features: Tensor | np.ndarray,
        valid: Tensor | None = None,
        segment_lengths: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Latents of whole videos, (B, T, D_in) -> (B, T, D), exact zeros at padding.

        D is the sum of the widths of their `bands`, which stand side by side.

        Args:
            features: float of any precision, a tensor or an array; NaN is allowed at padding only. One video alone may
                be (T, D_in), with ``valid`` (T,) and ``segment_lengths`` (S,); its latents are (T, D).
            valid: (B, T) bool, True at real frames; None when all are.
            segment_lengths: (B, S) lengths of the true segments, required by ORACLE models; others do not read them.
            pattern: another attention than the model's own, for models trained with a mix.
            starts: (B,) integers, the frame of its video that each sequence begins at, where that is not the first.

        Raises:
            InputError: shape, type or width do not fit, a valid frame is not finite, segment lengths are missing.
        """
        features = torch.as_tensor(features)
        if features.dim() == 2:
            valid = None if valid is None else valid[None]
            segment_lengths = None if segment_lengths is None else segment_lengths[None]
            return self.encode(features[None], valid, segment_lengths, pattern, starts)[0]
        batch = self.batch(features, valid, segment_lengths, starts)
        self._check(batch, pattern)
        return self.encoder.latents(batch, pattern or self.config.attention)

    def bands(self, pattern: AttentionPattern | None = None) -> dict[str, int]:
        """Names and widths of the bands that latents have, side by side; None takes the model's own attention."""
        return self.config.widths(pattern or self.config.attention)

    def latent_dim(self, pattern: AttentionPattern | None = None) -> int:
        """Width D of the latents: that of all bands together."""
        return sum(self.bands(pattern).values())

    def batch(
        self,
        features: Tensor,
        valid: Tensor | None = None,
        segment_lengths: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> SequenceBatch:
        """A checked batch on the model's device and in its precision."""
        weight = self.mask_token
        if valid is None:
            valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        batch = SequenceBatch(features, valid, segment_lengths, starts).to(weight.device)
        finite = batch.features.isfinite().all(-1) | ~batch.valid
        if not bool(finite.all()):
            row, frame = (~finite).nonzero()[0].tolist()
            raise InputError(f"features hold NaN or infinity at sequence {row}, frame {frame}")
        return batch.with_features(batch.features.to(weight.dtype))

    def _check(self, batch: SequenceBatch, pattern: AttentionPattern | None) -> None:
        width = batch.features.shape[-1]
        if width != self.config.input_dim:
            raise InputError(f"features are {width} wide; this model reads {self.config.input_dim}")
        if self.encoder.around and attention_scope(pattern or self.config.attention) not in self.encoder.around:
            raise InputError(
                f"this model attends {self.config.attention}; what it reads around a frame was never learned for "
                f"{pattern}"
            )
        if batch.segment_lengths is not None:
            return
        if self.config.oracle or (pattern is not None and pattern.oracle):
            raise InputError("this is an ORACLE model: it needs segment_lengths, the true segment boundaries")

    def __repr__(self) -> str:
        config = self.config
        widths = f"{config.input_dim} -> {self.latent_dim()}, {config.depth} blocks of {config.dim}"
        return f"PJEPA({widths}, {config.attention}, from {self.origin.source!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: which model this is, wherever it lies."""
        return persistence.weights_fingerprint(self)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``, whole or not at all."""
        persistence.save_model(Path(folder), self)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> PJEPA:
        """Load a folder written by `save_pretrained`, or the same files from the Hugging Face hub, in eval mode."""
        return persistence.load_model(cls, folder_or_hub_id)

    def push_to_hub(self, repository: str, *, private: bool = True) -> str:
        """Upload config and weights to the Hugging Face hub; returns the page's address."""
        return persistence.push_model(self, repository, private=private)
