"""V-JEPA as a backbone: one vector for every two frames of a clip, pooled over its patches.

The tokens of a slot see the whole clip, 64 frames as a rule, past and future. In training these came at four frames a
second; at a rate of r features a second the network gets 2 r frames a second.
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
"""Of red, green and blue on ImageNet, for colours from 0 to 1."""


class VJEPA:
    """A `Backbone`: clips (n, F, H, W, 3) to features (n, F / 2, grid * grid * D), or * 4 D with all levels."""

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
    """A published model from its checkpoint.

    Args:
        name: one of `MODELS`.
        weights: the ``.pt`` file, or a folder of `transformers` (V-JEPA 2).
        frames: pictures a clip, an even number; 1 takes single pictures (V-JEPA 2.1).
        levels: the last norm's outputs, or all four levels' side by side (V-JEPA 2.1). In the distilled B and L only
            the last level was trained against a teacher.
        grid: the patches of a slot are averaged in so many rows and columns of cells, whose vectors stand side by side.
        dtype: of the weights and the network; bfloat16 on CUDA. Features are float32.

    Raises:
        InputError: an unknown name, a setting that the model has not, or weights of another model.
    """
    if name not in MODELS:
        raise InputError(f"no V-JEPA model {quoted(name)}; choose one of {', '.join(MODELS)}")
    config = MODELS[name]
    _check(name, config, frames, levels, grid)
    tensors = read_encoder(weights, config)
    with torch.device("meta"):  # random numbers for billions of weights would only be overwritten
        encoder = VJEPAEncoder(config)
    encoder = encoder.to(dtype).to_empty(device=device)
    load_strict(encoder, tensors, str(weights))
    return VJEPA(name, weights_hash(weights), encoder, frames=frames, levels=levels, grid=grid)


def pooled(dense: Tensor, grid: int) -> Tensor:
    """(B, T, h, w, D) -> (B, T, grid * grid * D) float32: the mean of each cell, cells row by row."""
    batch, slots, rows, columns, width = dense.shape
    cells = dense.reshape(batch, slots, grid, rows // grid, grid, columns // grid, width)
    return cells.mean(dim=(3, 5), dtype=torch.float32).flatten(2)


def _check(name: str, config: VJEPAConfig, frames: int, levels: str, grid: int) -> None:
    side = config.size // PATCH
    if frames == 1 and config.release == "2":
        raise InputError(f"{name} takes no single pictures; give an even number of frames from 4 on")
    if frames != 1 and (frames < 2 * TUBELET or frames % TUBELET):
        raise InputError(f"{name} takes clips of an even number of frames from 4 on, not {frames}")
    if levels not in get_args(Levels):
        raise InputError(f"levels {quoted(levels)}: choose 'last' or 'all'")
    if levels == "all" and len(config.levels) == 1:
        raise InputError(f"{name} has no norms for several levels; take levels 'last', or V-JEPA 2.1")
    if grid < 1 or side % grid:
        whole = [number for number in range(1, side + 1) if side % number == 0]
        raise InputError(f"{side} x {side} patches cannot be averaged in a grid of {grid}; choose one of {whole}")
