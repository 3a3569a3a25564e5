"""Published models of V-JEPA 2 and 2.1, by their names on the command line.

Read in public code (github.com/facebookresearch/vjepa2, `src/hub/backbones.py`, `src/models/vision_transformer.py`,
`app/vjepa_2_1/models/vision_transformer.py`): files, widths, depths, heads, ratios of the MLPs, picture sizes, patches
of 16 x 16 pixels and 2 frames, levels of 2.1, keys of the state dicts; and the preprocessing for evaluations
(`evals/video_classification_frozen/utils.py`): shorter side to ``int(size * 256 / 224)``, bilinear, centre crop.

Inferred: the same preprocessing for 2.1, whose evaluation code was not available (third-party code agrees).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keystep.extraction.backbone import Picture
from keystep.nn.rope import Variant

Release = Literal["2", "2.1"]

PATCH = 16
"""Side of a patch in pixels."""
TUBELET = 2
"""Frames per token, which are one slot of the features."""
TRAINED_FRAMES = 64
"""Longest clips in training: 16 seconds at 4 Hz."""
ROTARY_ROWS = 256 // PATCH
"""Rows and columns of patches to which 2.1 scales its spatial positions, for any picture size."""


@dataclass(frozen=True, kw_only=True)
class VJEPAConfig:
    """Architecture of a network, and the layout of its checkpoint.

    Attributes:
        release: of V-JEPA.
        width: D.
        depth: number of blocks.
        heads: number of attention heads.
        hidden: hidden width of the MLPs.
        size: height and width of pictures in pixels.
        levels: indices of blocks whose outputs have a norm, including the last one.
        file: name of the published checkpoint.
        keys: possible keys of the state dict in it; the first that exists is used.
    """

    release: Release
    width: int
    depth: int
    heads: int
    hidden: int
    size: int
    levels: tuple[int, ...]
    file: str
    keys: tuple[str, ...]

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.width // self.heads

    @property
    def rotary(self) -> Variant:
        """Rotary variant: 2 was trained with different angles for the two channels of a pair, 2.1 with the same."""
        return "tiled" if self.release == "2" else "relative"

    @property
    def picture(self) -> Picture:
        """Preprocessing: bilinear without anti-aliasing, as in the evaluations (`transformers` uses anti-aliasing)."""
        return Picture(height=self.size, width=self.size, short=self.size * 256 // 224, interpolation="bilinear")


def _second(width: int, depth: int, heads: int, hidden: int, size: int, file: str) -> VJEPAConfig:
    return VJEPAConfig(
        release="2",
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        size=size,
        levels=(depth - 1,),
        file=file,
        keys=("target_encoder", "encoder"),  # Meta's loader uses the first; inference exports have only the second
    )


def _dense(
    width: int, heads: int, hidden: int, levels: tuple[int, ...], file: str, key: str = "target_encoder"
) -> VJEPAConfig:
    return VJEPAConfig(
        release="2.1",
        width=width,
        depth=levels[-1] + 1,
        heads=heads,
        hidden=hidden,
        size=384,
        levels=levels,
        file=file,
        keys=(key,),  # "encoder" exists too, but is the trained network rather than its EMA
    )


MODELS: dict[str, VJEPAConfig] = {
    "vjepa2-l": _second(1024, 24, 16, 4096, 256, "vitl.pt"),
    "vjepa2-h": _second(1280, 32, 16, 5120, 256, "vith.pt"),
    "vjepa2-g": _second(1408, 40, 22, 6144, 256, "vitg.pt"),
    "vjepa2-g-384": _second(1408, 40, 22, 6144, 384, "vitg-384.pt"),
    "vjepa2.1-b": _dense(768, 12, 3072, (2, 5, 8, 11), "vjepa2_1_vitb_dist_vitG_384.pt", "ema_encoder"),
    "vjepa2.1-l": _dense(1024, 16, 4096, (5, 11, 17, 23), "vjepa2_1_vitl_dist_vitG_384.pt", "ema_encoder"),
    "vjepa2.1-g": _dense(1408, 22, 6144, (9, 19, 29, 39), "vjepa2_1_vitg_384.pt"),
    "vjepa2.1-G": _dense(1664, 26, 8192, (11, 23, 37, 47), "vjepa2_1_vitG_384.pt"),
}
"""``vjepa2-g`` and ``vjepa2-g-384`` have the same names and shapes, so their files cannot be told apart."""
