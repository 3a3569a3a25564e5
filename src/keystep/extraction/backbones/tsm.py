"""TSM: a ResNet-50 that sees other frames because a part of its channels comes from them.

Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding", 2019. Before the first convolution of
each residual branch, an eighth of the channels is taken from the next frame and an eighth from the previous one; the
online variant takes an eighth from the previous frame only, so that no frame needs the future.
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
"""Its dense sampling takes every eighth frame of Kinetics' videos, most of which have 30 frames a second."""
PICTURE = Picture(height=224, width=224, short=256, interpolation="bilinear")
PART = 8
"""One in so many channels is shifted, each way."""
BLOCKS = (3, 4, 6, 3)

Shift = Callable[[Tensor], Tensor]
"""From what enters a residual branch, (n, C, H, W), to what it convolves; called once a block, in order."""


def shifted(x: Tensor, frames: int) -> Tensor:
    """Each clip's first C / 8 channels from its next frame, the next C / 8 from its previous one; zeros at its ends.

    ``x`` is (n * frames, C, H, W), the frames of a clip beside each other.
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
    """Each clip's first C / 8 channels from its previous frame, zeros in its first one; shapes as in `shifted`."""
    part = x.shape[1] // PART
    source = x.view(-1, frames, *x.shape[1:])
    out = x.clone().view_as(source)
    out[:, 1:, :part] = source[:, :-1, :part]
    out[:, 0, :part] = 0
    return out.flatten(0, 1)


class Bottleneck(nn.Module):
    """A residual branch of three layers, its stride in the middle one, beside the input or a projection of it."""

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
        branch = x if shift is None else shift(x)
        for layer in self.layers:
            branch = layer(branch)
        return functional.relu(branch + self.shortcut(x))


class ResNet50(nn.Module):
    """Pictures (n, 3, H, W), colours normalised, to features (n, 2048): the mean over places, before any classifier.

    He et al., "Deep Residual Learning for Image Recognition", 2015, with the stride in the 3 x 3 convolutions as in
    torch's own version. Without a shift the pictures have nothing to do with each other.
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
        x = functional.max_pool2d(self.stem(pictures), kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, shift)
        return x.mean((-2, -1))


@dataclass(frozen=True, kw_only=True)
class OnlineState:
    """What one frame leaves to the next: of each block's input the channels that are shifted, (n, C / 8, H, W).

    Empty before the first frame. For 224 x 224 pictures these are less than 3 MB a stream.
    """

    kept: tuple[Tensor, ...] = ()


class OnlineTSM:
    """One frame at a time through a network with the one-way shift; what it remembers is explicit.

    name, weights, width, picture: as a `Backbone` has them.
    """

    name, width, picture = "tsm-online", WIDTH, PICTURE

    def __init__(self, network: ResNet50, weights: str, device: torch.device | str = "cpu") -> None:
        self.network, self.weights, self.device = network, weights, torch.device(device)

    def begin(self) -> OnlineState:
        """Before the first frame."""
        return OnlineState()

    @torch.no_grad()
    def step(self, frame: Tensor, state: OnlineState) -> tuple[Tensor, OnlineState]:
        """The next frame of n streams, (n, H, W, 3) uint8 RGB, to features (n, 2048) and the state behind it.

        Equal to `sequence` over all frames so far. The state before is as good as it was.

        Raises:
            InputError: the state is that of another number of streams or of pictures of another size.
        """
        kept: list[Tensor] = []
        earlier = iter(state.kept)

        def shift(x: Tensor) -> Tensor:
            part = x.shape[1] // PART
            now = x[:, :part]
            before = next(earlier) if state.kept else torch.zeros_like(now)
            if before.shape != now.shape:
                raise InputError(
                    f"this state is of {len(before)} streams and {tuple(before.shape[2:])} places, the frames of "
                    f"{len(now)} and {tuple(now.shape[2:])}; begin with OnlineState()"
                )
            kept.append(now.clone())  # not a view that keeps all channels
            out = x.clone()
            out[:, :part] = before
            return out

        features = self.network(IMAGENET(frame[:, None].to(self.device))[:, 0], shift)
        return features, OnlineState(kept=tuple(kept))

    @torch.no_grad()
    def sequence(self, frames: Tensor) -> Tensor:
        """All frames of one video at once, (T, H, W, 3) uint8 RGB, to (T, 2048): the definition, for short videos."""
        pictures = IMAGENET(frames[None].to(self.device))[0]
        features: Tensor = self.network(pictures, lambda x: shifted_online(x, len(frames)))
        return features


def adapted(tensors: dict[str, Tensor], path: Path | str, *, shifts: bool = True) -> dict[str, Tensor]:
    """The authors' names to ours, without the classifier.

    shifts: whether they have to be those of a network with the shift.

    Raises:
        InputError: another of their networks: non-local blocks, no shift or one at another place.
    """
    plain = {name.removeprefix("module.").removeprefix("base_model."): value for name, value in tensors.items()}
    if any(".nl." in name for name in plain):
        raise InputError(f"{path}: a TSM with non-local blocks; only those without are supported")
    unshifted = [name for name in plain if re.fullmatch(r"layer\d\.\d+(\.net)?\.conv1\.weight", name)]
    if unshifted and shifts:
        raise InputError(
            f"{path}: {unshifted[0]} has no temporal shift before it (its name would end in conv1.net.weight); only "
            "TSM with the shift in each residual branch ('blockres') is supported"
        )
    found = {_ours(name): value for name, value in plain.items() if not re.match(r"(new_)?fc\.", name)}
    counts = {name.replace("running_mean", "num_batches_tracked") for name in found if name.endswith("running_mean")}
    return found | {name: torch.tensor(0) for name in counts}  # early versions of torch did not write them


def _ours(name: str) -> str:
    for pattern, ours in (
        (r"conv1\.(weight)", r"stem.convolution.\1"),
        (r"bn1\.(\w+)", r"stem.norm.\1"),
        (r"(layer\d\.\d+)\.conv(\d)(?:\.net)?\.(weight)", r"\1.layers.\2.convolution.\3"),
        (r"(layer\d\.\d+)\.bn(\d)\.(\w+)", r"\1.layers.\2.norm.\3"),
        (r"(layer\d\.\d+)\.downsample\.0\.(weight)", r"\1.shortcut.convolution.\2"),
        (r"(layer\d\.\d+)\.downsample\.1\.(\w+)", r"\1.shortcut.norm.\2"),
    ):
        found = re.fullmatch(pattern, name)
        if found:
            counted_from_0 = re.sub(r"layers\.(\d)", lambda n: f"layers.{int(n[1]) - 1}", found.expand(ours))
            return re.sub(r"layer(\d)\.", lambda n: f"stages.{int(n[1]) - 1}.", counted_from_0)
    return name


def network(weights: Path, *, shifts: bool = True) -> ResNet50:
    """The network with weights in the layout of the authors' repository (``TSM_kinetics_RGB_resnet50_...pth``).

    shifts: whether they have to be those of a network with the shift.

    Raises:
        InputError: unreadable, or the weights of another network.
    """
    tensors = adapted(read_tensors(weights), weights, shifts=shifts)
    model = ResNet50()
    load_strict(model, tensors, str(weights))
    return model.eval().requires_grad_(False)


def load(
    weights: Path,
    device: torch.device | str = "cpu",
    *,
    online: bool = False,
    frames: int = FRAMES,
    frame_rate: Fraction = FRAME_RATE,
) -> FunctionBackbone:
    """The backbone: one vector of 2,048 numbers a clip, the mean over its frames of what the classifier would see.

    Args:
        weights: a checkpoint of the authors' code; its file does not say which way it was shifted in training.
        online: the one-way shift, for weights that were trained with it.
        frames: pictures a clip, as in training (8 or 16 segments).
        frame_rate: pictures a second within a clip. Weights trained on segments of whole videos (Something-Something)
            want ``frames`` over the duration of a typical action instead.

    Raises:
        InputError: unreadable, or the weights of another network.
    """
    model = ready(network(weights), device)
    shift = shifted_online if online else shifted

    def features(clips: Tensor) -> Tensor:
        pictures = IMAGENET(clips).flatten(0, 1)
        each: Tensor = model(pictures, lambda x: shift(x, frames))
        return each.view(-1, frames, WIDTH).mean(1)

    return FunctionBackbone(
        features,
        name="tsm-online" if online else "tsm",
        weights=file_hash(weights),
        width=WIDTH,
        picture=PICTURE,
        clip=ClipSpec(frames=frames, frame_rate=frame_rate),
        device=device,
    )


def load_unshifted(weights: Path, device: torch.device | str = "cpu") -> FunctionBackbone:
    """The network of `load` without any shift: one vector a picture, which knows nothing of others.

    The features that Assembly101's authors publish are made so, from a TSM that was trained with its shift
    (github.com/assembly-101/assembly101-action-recognition, issues 1 and 11).

    Raises:
        InputError: unreadable, or the weights of another network.
    """
    model = ready(network(weights, shifts=False), device)

    def features(clips: Tensor) -> Tensor:
        each: Tensor = model(IMAGENET(clips).flatten(0, 1))
        return each

    return FunctionBackbone(
        features, name="tsm", weights=file_hash(weights), width=WIDTH, picture=PICTURE, clip=ClipSpec(), device=device
    )


def load_online(weights: Path, device: torch.device | str = "cpu") -> OnlineTSM:
    """The network for streams, one frame at a time; the weights as with ``load(..., online=True)``.

    Raises:
        InputError: unreadable, or the weights of another network.
    """
    return OnlineTSM(ready(network(weights), device), file_hash(weights), device)
