"""The published sizes of V-JEPA 2 and 2.1, by their names on the command line.

Read in public code (github.com/facebookresearch/vjepa2, `src/hub/backbones.py`, `src/models/vision_transformer.py`,
`app/vjepa_2_1/models/vision_transformer.py`): files, widths, depths, heads, ratios of the MLPs, picture sizes, patches
of 16 x 16 pixels and 2 frames, levels of 2.1, keys of the state dicts; and how pictures are prepared for evaluations
(`evals/video_classification_frozen/utils.py`): shorter side to ``int(size * 256 / 224)``, bilinear, middle cut out.

Inferred: that pictures are prepared so for 2.1, whose own evaluations were not at hand (others' code for it agrees).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keystep.extraction.backbone import Picture
from keystep.nn.rope import Variant

Release = Literal["2", "2.1"]

PATCH = 16
"""Pixels along each side of a patch."""
TUBELET = 2
"""Frames that a token covers: one slot of the features."""
TRAINED_FRAMES = 64
"""The longest clips in training, 16 seconds at four frames a second."""
ROTARY_ROWS = 256 // PATCH
"""Rows and columns of patches over which 2.1 spreads its spatial positions, whatever the size of the picture."""


@dataclass(frozen=True, kw_only=True)
class VJEPAConfig:
    """A network, and how its checkpoint is laid out.

    width, depth, heads, hidden: D, blocks, heads of attention, width inside the MLPs. size: pixels along each side.
    levels: blocks whose outputs have a norm of their own, the last one included. file: the published checkpoint.
    keys: where in it the state dict stands; the first that is there counts.
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
        return self.width // self.heads

    @property
    def rotary(self) -> Variant:
        """2 was trained with both numbers of a pair turned by different angles; 2.1 turns them as one."""
        return "tiled" if self.release == "2" else "relative"

    @property
    def picture(self) -> Picture:
        """Bilinear as in the evaluations, which do it without smoothing; `transformers` smooths."""
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
        keys=("target_encoder", "encoder"),  # Meta's loader takes the first; exports for inference hold the second only
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
        keys=(key,),  # "encoder" is there too: the network in training, not its average
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
"""``vjepa2-g`` and ``vjepa2-g-384`` have the same names and shapes: a file cannot tell which of the two it is."""
