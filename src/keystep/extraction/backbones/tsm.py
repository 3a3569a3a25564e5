"""TSM: a ResNet-50 with temporal shift.

Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding", 2019. Before the first convolution of
each residual branch, an eighth of the channels is taken from the next frame and an eighth from the previous one. The
causal online variant takes an eighth from the previous frame only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.backbones.colours import IMAGENET
from keystep.extraction.backbones.custom import FunctionBackbone
from keystep.extraction.backbones.layers import Layer, ready
from keystep.extraction.backbones.weights import file_hash, read_tensors
from keystep.persistence import load_strict

WIDTH = 2048
FRAMES = 8
FRAME_RATE = Fraction(30, 8)
"""Dense sampling uses every eighth frame of Kinetics videos, most of which are at 30 Hz."""
PICTURE = Picture(height=224, width=224, short=256, interpolation="bilinear")
PART = 8
"""One of this number of channels is shifted in each direction."""
BLOCKS = (3, 4, 6, 3)

Shift = Callable[[Tensor], Tensor]
"""Maps the input of a residual branch, (n, C, H, W), to that of its first convolution. Called once per block."""


def shifted(x: Tensor, frames: int) -> Tensor:
    """Shift the first C / 8 channels from the next frame and the next C / 8 from the previous one; zeros at the ends.

    Args:
        x: (n * frames, C, H, W), with the frames of each clip adjacent.
        frames: per clip.

    Returns:
        the same shape.
    """
    part = x.shape[1] // PART
    source = x.view(-1, frames, *x.shape[1:])
    out = x.clone().view_as(source)
    out[:, :-1, :part] = source[:, 1:, :part]
    out[:, -1, :part] = 0
    out[:, 1:, part : 2 * part] = source[:, :-1, part : 2 * part]
    out[:, 0, part : 2 * part] = 0
    return out.flatten(0, 1)


def shifted_online(x: Tensor, frames: int) -> Tensor:
    """Shift the first C / 8 channels from the previous frame; zeros in the first one. Shapes as in `shifted`."""
    part = x.shape[1] // PART
    source = x.view(-1, frames, *x.shape[1:])
    out = x.clone().view_as(source)
    out[:, 1:, :part] = source[:, :-1, :part]
    out[:, 0, :part] = 0
    return out.flatten(0, 1)


class Bottleneck(nn.Module):
    """Residual block of three layers, with the stride in the second one."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.layers = nn.ModuleList(
            [
                Layer(inputs, inner, activation=functional.relu),
                Layer(inner, inner, kernel=3, stride=stride, activation=functional.relu),
                Layer(inner, outputs),
            ]
        )
        self.shortcut = Layer(inputs, outputs, stride=stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, shift: Shift | None) -> Tensor:
        """(n, C, H, W) -> (n, C', H', W')"""
        branch = x if shift is None else shift(x)
        for layer in self.layers:
            branch = layer(branch)
        return functional.relu(branch + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 without its classifier: global average pooling of the last stage.

    He et al., "Deep Residual Learning for Image Recognition", 2015, with the stride in the 3 x 3 convolutions, as in
    torchvision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Layer(3, 64, kernel=7, stride=2, activation=functional.relu)
        widths = (64, 256, 512, 1024, 2048)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Bottleneck(outputs if block else inputs, outputs // 4, stride=2 if stage and not block else 1)
                for block in range(blocks)
            )
            for stage, (blocks, (inputs, outputs)) in enumerate(zip(BLOCKS, pairwise(widths), strict=True))
        )

    def forward(self, pictures: Tensor, shift: Shift | None = None) -> Tensor:
        """Pictures (n, 3, H, W) with normalised colours to features (n, 2048), independently without shift."""
        x = functional.max_pool2d(self.stem(pictures), kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, shift)
        return x.mean((-2, -1))


@dataclass(frozen=True, kw_only=True)
class OnlineState:
    """State between frames: the shifted channels of each block's input, less than 3 MB per stream at 224 x 224.

    Attributes:
        kept: (n, C / 8, H, W) for each block; empty before the first frame.
    """

    kept: tuple[Tensor, ...] = ()


class OnlineTSM:
    """A network with the online shift, applied to one frame at a time with an explicit state.

    Args:
        network: the network.
        weights: SHA-256 of its file.
        device: to compute on.
    """

    name, width, picture = "tsm-online", WIDTH, PICTURE

    def __init__(self, network: ResNet50, weights: str, device: torch.device | str = "cpu") -> None:
        self.network, self.weights, self.device = network, weights, torch.device(device)

    def begin(self) -> OnlineState:
        """Return the state before the first frame."""
        return OnlineState()

    @torch.no_grad()
    def step(self, frame: Tensor, state: OnlineState) -> tuple[Tensor, OnlineState]:
        """Process the next frame of n streams, with the same result as `sequence` over all frames so far.

        Args:
            frame: (n, H, W, 3) uint8 RGB.
            state: after the previous frame; not modified.

        Returns:
            features (n, 2048), and the new state.

        Raises:
            InputError: a state for another number of streams, or pictures of another size.
        """
        kept: list[Tensor] = []
        earlier = iter(state.kept)

        def shift(x: Tensor) -> Tensor:
            part = x.shape[1] // PART
            now = x[:, :part]
            before = next(earlier) if state.kept else torch.zeros_like(now)
            if before.shape != now.shape:
                raise InputError(
                    f"the state is for {len(before)} streams with feature maps of {tuple(before.shape[2:])}, the "
                    f"frames are {len(now)} with {tuple(now.shape[2:])}; start with OnlineState()"
                )
            kept.append(now.clone())  # a view would keep all channels
            out = x.clone()
            out[:, :part] = before
            return out

        features = self.network(IMAGENET(frame[:, None].to(self.device))[:, 0], shift)
        return features, OnlineState(kept=tuple(kept))

    @torch.no_grad()
    def sequence(self, frames: Tensor) -> Tensor:
        """Reference: all frames of a short video at once, (T, H, W, 3) uint8 RGB -> (T, 2048)."""
        pictures = IMAGENET(frames[None].to(self.device))[0]
        features: Tensor = self.network(pictures, lambda x: shifted_online(x, len(frames)))
        return features


def adapted(tensors: dict[str, Tensor], path: Path | str, *, shifts: bool = True) -> dict[str, Tensor]:
    """Rename the authors' weights to keystep's names, without the classifier.

    Args:
        tensors: by the authors' names.
        path: of the file, for messages.
        shifts: whether they have to be from a network with shift.

    Raises:
        InputError: another network of the authors, with non-local blocks, without shift, or with another kind of shift.
    """
    plain = {name.removeprefix("module.").removeprefix("base_model."): value for name, value in tensors.items()}
    if any(".nl." in name for name in plain):
        raise InputError(f"{path}: a TSM with non-local blocks, which are not supported")
    unshifted = [name for name in plain if re.fullmatch(r"layer\d\.\d+(\.net)?\.conv1\.weight", name)]
    if unshifted and shifts:
        raise InputError(
            f"{path}: {unshifted[0]} has no temporal shift before it (its name would end in conv1.net.weight); only "
            "TSM with the shift in each residual branch ('blockres') is supported"
        )
    found = {_rename(name): value for name, value in plain.items() if not re.match(r"(new_)?fc\.", name)}
    counts = {name.replace("running_mean", "num_batches_tracked") for name in found if name.endswith("running_mean")}
    return found | {name: torch.tensor(0) for name in counts}  # early versions of torch did not save them


def _rename(name: str) -> str:
    for pattern, own in (
        (r"conv1\.(weight)", r"stem.convolution.\1"),
        (r"bn1\.(\w+)", r"stem.norm.\1"),
        (r"(layer\d\.\d+)\.conv(\d)(?:\.net)?\.(weight)", r"\1.layers.\2.convolution.\3"),
        (r"(layer\d\.\d+)\.bn(\d)\.(\w+)", r"\1.layers.\2.norm.\3"),
        (r"(layer\d\.\d+)\.downsample\.0\.(weight)", r"\1.shortcut.convolution.\2"),
        (r"(layer\d\.\d+)\.downsample\.1\.(\w+)", r"\1.shortcut.norm.\2"),
    ):
        found = re.fullmatch(pattern, name)
        if found:
            counted_from_0 = re.sub(r"layers\.(\d)", lambda n: f"layers.{int(n[1]) - 1}", found.expand(own))
            return re.sub(r"layer(\d)\.", lambda n: f"stages.{int(n[1]) - 1}.", counted_from_0)
    return name


def network(weights: Path, *, shifts: bool = True) -> ResNet50:
    """Load the network from a checkpoint of the authors (``TSM_kinetics_RGB_resnet50_...pth``).

    Args:
        weights: the file.
        shifts: whether it has to be from a network with shift.

    Raises:
        InputError: an unreadable file, or one with other weights.
    """
    tensors = adapted(read_tensors(weights), weights, shifts=shifts)
    model = ResNet50()
    load_strict(model, tensors, str(weights))
    return model.eval().requires_grad_(False)


def load(
    weights: Path,
    device: torch.device | str = "cpu",
    *,
    frames: int = FRAMES,
    frame_rate: Fraction = FRAME_RATE,
) -> FunctionBackbone:
    """Load the backbone: a vector of width 2048 per clip, the mean over its frames.

    Args:
        weights: a checkpoint of the authors, trained with the offline shift, which the file does not state.
        device: to compute on.
        frames: pictures per clip, as in training (8 or 16 segments).
        frame_rate: pictures per second within a clip. For weights trained on segments of whole videos
            (Something-Something), use ``frames`` divided by the duration of a typical action.

    Raises:
        InputError: an unreadable file, or one with other weights.
    """
    model = ready(network(weights), device)

    def features(clips: Tensor) -> Tensor:
        pictures = IMAGENET(clips).flatten(0, 1)
        each: Tensor = model(pictures, lambda x: shifted(x, frames))
        return each.view(-1, frames, WIDTH).mean(1)

    return FunctionBackbone(
        features,
        name="tsm",
        weights=file_hash(weights),
        width=WIDTH,
        picture=PICTURE,
        clip=ClipSpec(frames=frames, frame_rate=frame_rate),
        device=device,
    )


def load_unshifted(weights: Path, device: torch.device | str = "cpu") -> FunctionBackbone:
    """Load the network without shift: a vector per picture, independent of other pictures.

    The published features of Assembly101 were computed in this way, with a TSM trained with shift
    (github.com/assembly-101/assembly101-action-recognition, issues 1 and 11).

    Raises:
        InputError: an unreadable file, or one with other weights.
    """
    model = ready(network(weights, shifts=False), device)

    def features(clips: Tensor) -> Tensor:
        each: Tensor = model(IMAGENET(clips).flatten(0, 1))
        return each

    return FunctionBackbone(
        features, name="tsm", weights=file_hash(weights), width=WIDTH, picture=PICTURE, clip=ClipSpec(), device=device
    )


def load_online(weights: Path, device: torch.device | str = "cpu") -> OnlineTSM:
    """Load the network for streams, one frame at a time, from weights trained with the online shift.

    Raises:
        InputError: an unreadable file, or one with other weights.
    """
    return OnlineTSM(ready(network(weights), device), file_hash(weights), device)
