"""Colour normalisation of clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RGB = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Mean and standard deviation of red, green and blue, on the scale 0..255."""

    mean: RGB
    deviation: RGB

    def __call__(self, clips: Tensor) -> Tensor:
        """Normalise clips: (n, F, H, W, 3) uint8 -> (n, F, 3, H, W) float32."""
        mean = torch.tensor(self.mean, device=clips.device)
        deviation = torch.tensor(self.deviation, device=clips.device)
        return ((clips.float() - mean) / deviation).movedim(-1, 2)


IMAGENET = Colours(mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), deviation=(0.229 * 255, 0.224 * 255, 0.225 * 255))
"""Statistics of ImageNet, as used by most networks trained on it."""
