"""I3D, the inflated Inception v1 on RGB (Carreira & Zisserman, "Quo Vadis, Action Recognition?", arXiv:1705.07750).

For inference only: batch norms are folded into the convolutions (`backbones.i3d_layouts`), and there is no dropout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.backbones.i3d_layouts import own_tensors
from keystep.extraction.backbones.weights import file_hash, read_tensors
from keystep.persistence import load_strict

WIDTH = 1024
SIZE = 224
"""Height and width in pixels in the training of the published weights."""

CLASSES = 400
"""Classes of Kinetics-400."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding of an axis, for ceil(size / stride) outputs.

    It depends on the size, unlike fixed padding: a kernel of 7 with stride 2 needs (2, 3) for an even size and (3, 3)
    for an odd one.

    Returns:
        zeros before and after the axis.
    """
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class Unit(nn.Conv3d):
    """Convolution with "SAME" padding and ReLU, including a folded batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, T, H, W) -> (n, C_out, T', H', W'), with T, H, W divided by the stride and rounded up."""
        pads = [same_padding(*axis) for axis in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)]
        before = [pad[0] for pad in pads]
        if any(first != last for first, last in pads):
            x = F.pad(x, [number for pad in reversed(pads) for number in pad])  # F.pad starts at the last axis
            before = [0, 0, 0]
        y = F.conv3d(x, self.weight, self.bias, self.stride, before).relu_()
        # for small inputs, torch drops this layout, in which pooling is ten times faster (CPU)
        return y.contiguous(memory_format=torch.channels_last_3d)


class MaxPool(nn.Module):
    """Max pooling with "SAME" padding, which ignores the padded positions."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.kernel, self.stride = tuple(kernel), tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, T, H, W) -> (n, C, T', H', W'), with T, H, W divided by the stride and rounded up."""
        before = [same_padding(*axis)[0] for axis in zip(x.shape[2:], self.kernel, self.stride, strict=True)]
        # ceil_mode includes partial windows at the end, which is the padding after the axis without a copy
        return F.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class Mixed(nn.Module):
    """Inception block: four parallel branches with concatenated channels."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_from, three, five_from, five, pooled = widths
        self.branch_0 = Unit(inputs, one, 1)
        self.branch_1 = nn.Sequential(Unit(inputs, three_from, 1), Unit(three_from, three, 3))
        self.branch_2 = nn.Sequential(Unit(inputs, five_from, 1), Unit(five_from, five, 3))
        self.branch_3 = nn.Sequential(MaxPool((3, 3, 3), (1, 1, 1)), Unit(inputs, pooled, 1))
        self.outputs = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, T, H, W) -> (n, C_out, T, H, W)"""
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], dim=1)


MIXED_WIDTHS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of the branches: 1x1; 1x1, 3x3; 1x1, 3x3 (5x5 in the figure of the paper); pooling, 1x1."""


def _trunk() -> nn.Sequential:
    """Layers up to Mixed_5c, with their published names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["Conv3d_1a_7x7"] = Unit(3, 64, 7, stride=2)
    layers["MaxPool3d_2a_3x3"] = MaxPool((1, 3, 3), (1, 2, 2))
    layers["Conv3d_2b_1x1"] = Unit(64, 64, 1)
    layers["Conv3d_2c_3x3"] = Unit(64, 192, 3)
    layers["MaxPool3d_3a_3x3"] = MaxPool((1, 3, 3), (1, 2, 2))
    pools = {
        "Mixed_4b": ("MaxPool3d_4a_3x3", MaxPool((3, 3, 3), (2, 2, 2))),
        "Mixed_5b": ("MaxPool3d_5a_2x2", MaxPool((2, 2, 2), (2, 2, 2))),
    }
    channels = 192
    for name, widths in MIXED_WIDTHS.items():
        if name in pools:
            pool, layer = pools[name]
            layers[pool] = layer
        block = Mixed(channels, widths)
        layers[name], channels = block, block.outputs
    assert channels == WIDTH
    return nn.Sequential(layers)


class I3D(nn.Module):
    """The network up to features, and its classifier."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.trunk = _trunk()
        self.logits = nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """Features before the classifier: (n, 3, T, H, W) in [-1, 1] -> (n, 1024).

        Mixed_5c is averaged over space, and over time as in the original: the mean over pairs of adjacent time steps (8
        frames each). This is the plain mean for 16 frames; for more, the first and last step have half the weight.
        """
        x = self.trunk(x).mean(dim=(3, 4))  # (n, 1024, T / 8)
        if x.shape[2] > 1:
            x = (x[..., 1:] + x[..., :-1]) / 2
        return x.mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes: (n, 3, T, H, W) in [-1, 1] -> (n, 400)."""
        logits: Tensor = self.logits(self.features(x))
        return logits


class I3DBackbone:
    """`I3D` as a `keystep.extraction.backbone.Backbone`: a vector of width 1024 per clip.

    Preprocessing as in the original: shorter side 256, bilinear, central 224 x 224, [0, 255] to [-1, 1], 25 Hz.

    Args:
        model: the network.
        weights: SHA-256 of its file.
        clip: layout of clips.
        device: to compute on.
    """

    name = "i3d"
    width = WIDTH
    picture = Picture(height=SIZE, width=SIZE, short=256, interpolation="bilinear")

    def __init__(self, model: I3D, weights: str, clip: ClipSpec, device: torch.device | str = "cpu") -> None:
        self.weights, self.clip = weights, clip
        self.model = model.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Compute features: (n, F, 224, 224, 3) uint8 -> (n, 1, 1024) float32.

        Raises:
            InputError: clips of another shape or type.
        """
        expected = (self.clip.frames, SIZE, SIZE, 3)
        if clips.dtype != torch.uint8 or clips.shape[1:] != expected:
            raise InputError(
                f"clips are {clips.dtype} {tuple(clips.shape)}; i3d takes torch.uint8 (n, F, H, W, 3) with {expected}"
            )
        pixels = clips.to(self.model.logits.weight.device).permute(0, 4, 1, 2, 3)  # (n, 3, F, H, W)
        features: Tensor = self.model.features(pixels.float().div_(127.5).sub_(1))
        return features[:, None]


def load_model(path: Path) -> I3D:
    """Load the network from a file in any layout of `keystep.extraction.backbones.i3d_layouts`.

    The number of classes is that of the file, so fine-tuned weights (Charades) can be loaded too.

    Raises:
        InputError: an unreadable file, or one without weights of I3D for RGB.
    """
    tensors = own_tensors(read_tensors(path))
    bias = tensors.get("logits.bias")
    model = I3D(len(bias) if bias is not None and bias.ndim == 1 else CLASSES)
    load_strict(model, tensors, str(path))
    return model


def load(
    weights: Path, *, frames: int = 16, frame_rate: Fraction | int = 25, device: torch.device | str = "cpu"
) -> I3DBackbone:
    """Load the backbone.

    Args:
        weights: file of weights.
        frames: pictures per clip.
        frame_rate: pictures per second within a clip.
        device: to compute on.

    Raises:
        InputError: as in `load_model`, or no frames.
    """
    clip = ClipSpec(frames=frames, frame_rate=Fraction(frame_rate))
    return I3DBackbone(load_model(weights), file_hash(weights), clip, device)
