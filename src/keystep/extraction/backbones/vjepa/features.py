"""V-JEPA as a backbone: one vector for every two frames of a clip, averaged over patches.

The tokens of a slot attend to the whole clip, past and future, which is usually 64 frames. Training used 4 frames per
second; at r features per second, the network gets 2 r frames per second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from keystep.errors import InputError, quoted
from keystep.extraction.backbone import ClipSpec
from keystep.extraction.backbones.vjepa.checkpoint import read_encoder, weights_hash
from keystep.extraction.backbones.vjepa.config import MODELS, PATCH, TRAINED_FRAMES, TUBELET, VJEPAConfig
from keystep.extraction.backbones.vjepa.model import VJEPAEncoder
from keystep.persistence import load_strict

Levels = Literal["last", "all"]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet for red, green and blue in [0, 1]."""


class VJEPA:
    """V-JEPA as a `keystep.extraction.backbone.Backbone`, with features of width grid * grid * D (4 D for all levels).

    Args:
        name: of the model.
        weights: SHA-256 of its file.
        encoder: the network.
        frames: pictures per clip.
        levels: outputs to use, see `load`.
        grid: cells along each side that patches are averaged in.

    Raises:
        InputError: a setting that the model does not support.
    """

    def __init__(
        self, name: str, weights: str, encoder: VJEPAEncoder, *, frames: int, levels: Levels = "last", grid: int = 1
    ) -> None:
        config = encoder.config
        _check(name, config, frames, levels, grid)
        self.name = name
        self.weights = weights
        self.encoder = encoder.eval().requires_grad_(False)
        self.every_level = levels == "all"
        self.grid = grid
        self.width = grid * grid * config.width * (len(config.levels) if self.every_level else 1)
        self.picture = config.picture
        self.clip = ClipSpec(frames=frames, slots=max(1, frames // TUBELET))

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Compute features: (n, F, H, W, 3) uint8 -> (n, F / 2, width) float32."""
        size = self.encoder.config.size
        assert clips.shape[1:] == (self.clip.frames, size, size, 3), tuple(clips.shape)
        weight = self.encoder.patch_embed.proj.weight
        colours = clips.to(weight.device, torch.float32)
        mean, deviation = (colours.new_tensor(values) * 255 for values in (MEAN, DEVIATION))
        return pooled(self.encoder(((colours - mean) / deviation).to(weight.dtype), self.every_level), self.grid)


def load(
    name: str,
    weights: Path,
    *,
    frames: int = TRAINED_FRAMES,
    levels: Levels = "last",
    grid: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VJEPA:
    """Load a published model.

    Args:
        name: one of `MODELS`.
        weights: the ``.pt`` file, or a folder of `transformers` (V-JEPA 2).
        frames: pictures per clip, an even number; 1 for single pictures (V-JEPA 2.1).
        levels: the output of the last level, or of all four levels, concatenated (V-JEPA 2.1). In the distilled B and
            L, only the last level was trained.
        grid: average the patches of a slot to grid x grid cells, whose vectors are concatenated.
        device: to compute on.
        dtype: of the network, such as bfloat16 on CUDA. Features are float32.

    Raises:
        InputError: an unknown name, a setting that the model does not support, or weights of another model.
    """
    if name not in MODELS:
        raise InputError(f"unknown V-JEPA model {quoted(name)}; expected one of {', '.join(MODELS)}")
    config = MODELS[name]
    _check(name, config, frames, levels, grid)
    tensors = read_encoder(weights, config)
    with torch.device("meta"):  # skips the random initialisation of up to billions of weights
        encoder = VJEPAEncoder(config)
    encoder = encoder.to(dtype).to_empty(device=device)
    load_strict(encoder, tensors, str(weights))
    return VJEPA(name, weights_hash(weights), encoder, frames=frames, levels=levels, grid=grid)


def pooled(dense: Tensor, grid: int) -> Tensor:
    """Average the patches of each cell, row by row: (B, T, h, w, D) -> (B, T, grid * grid * D) float32."""
    batch, slots, rows, columns, width = dense.shape
    cells = dense.reshape(batch, slots, grid, rows // grid, grid, columns // grid, width)
    return cells.mean(dim=(3, 5), dtype=torch.float32).flatten(2)


def _check(name: str, config: VJEPAConfig, frames: int, levels: str, grid: int) -> None:
    side = config.size // PATCH
    if frames == 1 and config.release == "2":
        raise InputError(f"{name} does not support single pictures; use an even number of frames, at least 4")
    if frames != 1 and (frames < 2 * TUBELET or frames % TUBELET):
        raise InputError(f"{name} needs clips of an even number of frames, at least 4, not {frames}")
    if levels not in get_args(Levels):
        raise InputError(f"unknown levels {quoted(levels)}; expected 'last' or 'all'")
    if levels == "all" and len(config.levels) == 1:
        raise InputError(f"{name} has only one level; use levels 'last', or V-JEPA 2.1")
    if grid < 1 or side % grid:
        whole = [number for number in range(1, side + 1) if side % number == 0]
        raise InputError(f"{side} x {side} patches cannot be divided into a grid of {grid}; choose one of {whole}")
