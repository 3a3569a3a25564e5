"""Layers of the convolutional backbones."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
Network = TypeVar("Network", bound=nn.Module)


class Layer(nn.Module):
    """Convolution without bias, batch norm and optional activation: (n, C, H, W) -> (n, C', H', W').

    Args:
        inputs: C.
        outputs: C'.
        kernel: size of the kernel.
        stride: of the convolution.
        groups: of the convolution.
        activation: after the norm; None: none.
        same: pad like TensorFlow's "SAME": no more than needed, with an odd remainder at the right and bottom, which
            shifts pictures by one position at stride 2. Otherwise, pad by half the kernel on all sides.
        epsilon: of the norm.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        same: bool = False,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        padding = 0 if same else kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=epsilon)
        self.activation, self.same, self.kernel, self.stride = activation, same, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C', H', W')"""
        if self.same:
            rows, columns = (self._needed(size) for size in x.shape[-2:])
            if rows or columns:
                x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        x = self.norm(self.convolution(x))
        return x if self.activation is None else self.activation(x)

    def _needed(self, size: int) -> int:
        return max(0, (ceil(size / self.stride) - 1) * self.stride + self.kernel - size)

    def fold(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution = torch.nn.utils.fusion.fuse_conv_bn_eval(self.convolution, self.norm)
            self.norm = nn.Identity()


def ready(network: Network, device: torch.device | str) -> Network:
    """Optimise a network for inference in place: equal outputs except for rounding, two to three times faster.

    Batch norms are folded into the convolutions, and the weights are stored channels-last.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Layer):
            module.fold()
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
