"""The encoders of V-JEPA 2 and 2.1: pre-norm vision transformers over tubelets, with rotary positions.

Parameters have the published names (see `checkpoint`), so that the code can be compared line by line.

Read in public code (github.com/facebookresearch/vjepa2: `src/models/` for 2, `app/vjepa_2_1/models/` for 2.1):

- tokens are ordered by slot, row and column; norms have an epsilon of 1e-6, the MLP an exact GELU; queries, keys and
  values are one projection, in this order;
- a head of width d has three chunks of ``2 * (d // 3 // 2)`` channels, rotated by slot, row and column; the remaining
  channels are not rotated;
- 2 counts rows and columns in patches for any picture size, and has one final norm;
- 2.1 scales rows and columns to the 16 of a 256-pixel picture: ``row * 15 / (rows - 1)``; slots are not scaled. Clips
  of one frame are pictures, with a separate patch embedding; a learned vector marks tokens as picture or video. Four
  blocks (levels) have a norm each; the last of these is the final norm.

Inferred: a single row or column of patches (0 / 0 in the original) is at position 0. Angles are computed in double
precision, but in the precision of the activations in the original, so in bfloat16 the two differ by more than rounding.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keystep.extraction.backbones.vjepa.config import PATCH, ROTARY_ROWS, TUBELET, VJEPAConfig
from keystep.nn.rope import RotaryTables, Variant, make_tables, pair_angles, rotate

EPSILON = 1e-6


@lru_cache(maxsize=2)
def rotary_tables(
    grid: tuple[int, int, int], head_dim: int, variant: Variant, spread: int | None, device: torch.device
) -> RotaryTables:
    """Rotary tables of all tokens.

    Args:
        grid: (slots, rows, columns).
        head_dim: d, width of a head.
        variant: of the rotation.
        spread: number of rows and columns to which spatial positions are scaled; None: not scaled.
        device: of the tables.
    """
    places = [torch.arange(count, dtype=torch.float64) for count in grid]
    if spread is not None:
        places[1:] = [place * (spread - 1) / max(len(place) - 1, 1) for place in places[1:]]
    positions = [axis.reshape(1, -1) for axis in torch.meshgrid(places, indexing="ij")]  # three of (1, N)
    width = 2 * (head_dim // 3 // 2)
    unturned = positions[0].new_zeros(1, positions[0].shape[1], (head_dim - 3 * width) // 2)
    tables = make_tables([*(pair_angles(axis, width) for axis in positions), unturned], variant)
    return RotaryTables(tables.turn.to(device), None if tables.mirror is None else tables.mirror.to(device))


class PatchEmbedding(nn.Module):
    """Project tubelets of ``frames`` x 16 x 16 pixels to tokens: a convolution without overlap, as a matrix product."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        shape = (frames, PATCH, PATCH)
        self.proj = nn.Conv3d(3, width, shape, stride=shape)
        self.frames = frames

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, F, H, W, 3) -> (B, F / frames, H / 16, W / 16, D)"""
        batch, frames, height, width, _ = pictures.shape
        tubes = pictures.reshape(
            batch, frames // self.frames, self.frames, height // PATCH, PATCH, width // PATCH, PATCH, 3
        )
        tubes = tubes.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(4)  # the order of the weights
        return F.linear(tubes, self.proj.weight.flatten(1), self.proj.bias)


class VJEPAAttention(nn.Module):
    """Multi-head attention over all tokens, without storing the attention matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: RotaryTables) -> Tensor:
        """(B, N, D) -> (B, N, D)"""
        heads = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1)  # (B, N, 3, H, d)
        query, key, value = (part.contiguous() for part in heads.permute(2, 0, 3, 1, 4))  # (B, H, N, d)
        del heads  # saves a quarter of the peak memory
        mixed = F.scaled_dot_product_attention(rotate(query, rotary), rotate(key, rotary), value)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class VJEPAMLP(nn.Module):
    """Two linear layers with a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)"""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class VJEPABlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=EPSILON)
        self.attn = VJEPAAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = VJEPAMLP(config.width, config.hidden)

    def forward(self, x: Tensor, rotary: RotaryTables) -> Tensor:
        """(B, N, D) -> (B, N, D)"""
        x = x + self.attn(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class VJEPAEncoder(nn.Module):
    """Encoder from clips to a vector for each slot and patch."""

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.width, TUBELET)
        self.blocks = nn.ModuleList(VJEPABlock(config) for _ in range(config.depth))
        if config.release == "2":
            self.norm = nn.LayerNorm(config.width, eps=EPSILON)
            return
        self.patch_embed_img = PatchEmbedding(config.width, 1)
        self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, config.width))
        self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, config.width))
        self.norms_block = nn.ModuleList(nn.LayerNorm(config.width, eps=EPSILON) for _ in config.levels)

    def forward(self, pictures: Tensor, every_level: bool = False) -> Tensor:
        """Encode clips.

        Args:
            pictures: (B, F, H, W, 3) with normalised colours. One frame (2.1 only) is a picture.
            every_level: concatenate the outputs of all L levels, the last one at the end.

        Returns:
            normalised outputs (B, T, h, w, D) of the last block, or (B, T, h, w, L * D), with T = F / 2 (1 for a
            picture), h = H / 16 and w = W / 16.
        """
        config = self.config
        tokens = self._embedded(pictures)  # (B, T, h, w, D)
        grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        spread = None if config.release == "2" else ROTARY_ROWS
        rotary = rotary_tables(grid, config.head_dim, config.rotary, spread, tokens.device)
        x = tokens.flatten(1, 3)
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x, rotary)
            if number in config.levels and (every_level or number == config.depth - 1):
                outputs.append(self._norm(config.levels.index(number))(x))
        return torch.cat(outputs, dim=-1).reshape(len(x), *grid, -1)

    def _embedded(self, pictures: Tensor) -> Tensor:
        if self.config.release == "2":
            return self.patch_embed(pictures)  # type: ignore[no-any-return]
        if pictures.shape[1] == 1:
            return self.patch_embed_img(pictures) + self.img_mod_embed[:, :, None, None]  # type: ignore[no-any-return]
        return self.patch_embed(pictures) + self.video_mod_embed[:, :, None, None]  # type: ignore[no-any-return]

    def _norm(self, level: int) -> nn.Module:
        return self.norm if self.config.release == "2" else self.norms_block[level]
