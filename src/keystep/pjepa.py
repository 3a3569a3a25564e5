"""P-JEPA: encode the visible frames of a procedure and predict the hidden ones in latent space.

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
from keystep.card import model_card
from keystep.config import ModelConfig, RunConfig
from keystep.config.attention import AttentionPattern
from keystep.errors import InputError
from keystep.nn.bands import attention_scope
from keystep.nn.encoder import Encoder
from keystep.nn.predictor import Predictor


class TrainingOutput(NamedTuple):
    """Output of a training pass.

    Attributes:
        latents: (B, T, dim) of the context encoder, zeros at hidden frames and padding.
        predictions: (B, T, dim or output_dim) at every frame, zeros at padding. `ModelConfig.visible_predictions`
            determines how those of visible frames are computed.
    """

    latents: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class Origin:
    """Provenance of a loaded model, as far as known.

    Attributes:
        source: the folder or hub id that was loaded.
        run: the folder of the pretraining run, which has ``config.yaml``.
        config: all settings of that run.
        videos: names of the videos that it was pretrained on.
        data: `FeatureFolder.fingerprint` of the features that it was pretrained on.
    """

    source: str = "a model"
    run: Path | None = None
    config: RunConfig | None = None
    videos: tuple[str, ...] = ()
    data: str = ""

    @property
    def rate(self) -> str | None:
        """Frames per second that the model was trained at, in Hz."""
        data = self.config.data if self.config else None
        rate = None if data is None else data.rate or data.source_rate
        return None if rate is None else str(rate)


class PJEPA(nn.Module):
    """Context encoder, predictor and mask token. The target encoder is only part of training (`keystep.target`).

    Args:
        config: architecture.

    Raises:
        InputError: no ``input_dim``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.input_dim is None:
            raise InputError("model.input_dim is not set; set it to the width of the features")
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
    ) -> TrainingOutput:
        """Encode the visible frames and predict all frames.

        Args:
            batch: the features.
            hidden: (B, T) bool, the frames to predict.
            pattern: attention of the encoder. None: the model's own.
            visible: (B, T) bool, the frames to encode. None: all that are not hidden. The predictor gets a zero vector
                at frames that are neither hidden nor visible.

        Raises:
            InputError: features of another width, or segment lengths are missing.
        """
        self._check(batch, pattern)
        seen = ~hidden if visible is None else visible & ~hidden
        pattern = pattern or self.config.attention
        latents = self.encoder(batch, seen, pattern)
        predictions = self.predictor(latents, batch, hidden, self.mask_token, self.encoder.readout)
        return TrainingOutput(latents, predictions)

    @torch.no_grad()
    def encode(
        self,
        features: Tensor | np.ndarray,
        valid: Tensor | None = None,
        segment_lengths: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Compute the latents of whole videos, (B, T, D_in) -> (B, T, D).

        D is the total width of the `bands`, which are concatenated. Latents at padding are exactly zero.

        Args:
            features: tensor or array of any floating-point type; NaN is allowed at padding only. A single video may be
                (T, D_in), with ``valid`` (T,) and ``segment_lengths`` (S,); its latents are (T, D).
            valid: (B, T) bool, False at padding. None: no padding.
            segment_lengths: (B, S) lengths of the true segments, required by ORACLE models and ignored by others.
            pattern: attention pattern, for models trained with several. None: the model's own.
            starts: (B,) integers, the index of each sequence's first frame in its video. None: 0.

        Raises:
            InputError: unexpected shape, type or width, a valid frame that is not finite, or missing segment lengths.
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
        """Names and widths of the bands of the latents, in column order. None: the model's own attention."""
        return self.config.widths(pattern or self.config.attention)

    def latent_dim(self, pattern: AttentionPattern | None = None) -> int:
        """Width D of the latents, the total of all bands."""
        return sum(self.bands(pattern).values())

    def batch(
        self,
        features: Tensor,
        valid: Tensor | None = None,
        segment_lengths: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> SequenceBatch:
        """Create a validated batch on the model's device and in its precision.

        Raises:
            InputError: unexpected shapes or types, or a valid frame that is not finite.
        """
        weight = self.mask_token
        if valid is None:
            valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        batch = SequenceBatch(features, valid, segment_lengths, starts).to(weight.device)
        finite = batch.features.isfinite().all(-1) | ~batch.valid
        if not bool(finite.all()):
            row, frame = (~finite).nonzero()[0].tolist()
            raise InputError(f"features are NaN or infinite at sequence {row}, frame {frame}")
        return batch.with_features(batch.features.to(weight.dtype))

    def _check(self, batch: SequenceBatch, pattern: AttentionPattern | None) -> None:
        width = batch.features.shape[-1]
        if width != self.config.input_dim:
            raise InputError(f"features have width {width}; this model expects {self.config.input_dim}")
        if self.encoder.around and attention_scope(pattern or self.config.attention) not in self.encoder.around:
            raise InputError(
                f"this model was trained with {self.config.attention}; its projection of the band 'around' does not "
                f"support {pattern}"
            )
        if batch.segment_lengths is not None:
            return
        if self.config.oracle or (pattern is not None and pattern.oracle):
            raise InputError("this is an ORACLE model: it needs segment_lengths, the true boundaries")

    def __repr__(self) -> str:
        config = self.config
        widths = f"{config.input_dim} -> {self.latent_dim()}, {config.depth} blocks of {config.dim}"
        return f"PJEPA({widths}, {config.attention}, from {self.origin.source!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, which identifies the model independently of its path."""
        return persistence.weights_fingerprint(self)

    def save_pretrained(
        self, folder: Path | str, *, features_licence: str | None = None, scores: str | None = None
    ) -> None:
        """Write ``config.json``, ``model.safetensors`` and the model card ``README.md`` atomically.

        Args:
            folder: to create or replace.
            features_licence: licence of the features that the model was trained on. None: unknown, as the card says.
            scores: for the card, from `keystep.evals.card.card_scores`.

        Raises:
            InputError: the folder is not writable, or has content that keystep did not write.
        """
        persistence.save_model(Path(folder), self, model_card(self, features_licence, scores))

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> PJEPA:
        """Load a folder written by `save_pretrained`, or the same files from the Hugging Face hub, in eval mode.

        Raises:
            InputError: missing or invalid files.
        """
        return persistence.load_model(cls, folder_or_hub_id)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = True,
        features_licence: str | None = None,
        scores: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, and return the URL of the page."""
        return persistence.push_model(
            self, repository, private=private, card=model_card(self, features_licence, scores)
        )
