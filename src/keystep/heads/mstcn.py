"""MS-TCN++: dual dilated convolutions make a first prediction, and further stages refine its class probabilities.

Li, AbuFarha, Liu, Cheng, Gall: "MS-TCN++: Multi-Stage Temporal Convolutional Network for Action Segmentation", 2020.
Written from the paper. Nothing is normalised over time, so the causal variant is strictly causal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keystep.heads.config import MstcnConfig
from keystep.heads.head import Head
from keystep.heads.layers import Dilated, gather_taps
from keystep.nn.context import SequenceContext


class DualDilated(nn.Module):
    """``x + dropout(relu(fuse([near(x), far(x)])))`` with two parallel dilated convolutions."""

    def __init__(self, maps: int, dilations: tuple[int, int], causal: bool, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Dilated(maps, dilation, causal) for dilation in dilations)
        self.fuse = nn.Linear(2 * maps, maps)
        self.dropout = nn.Dropout(dropout)
        own = [branch.distances for branch in self._dilated()]
        self.distances = sorted({distance for distances in own for distance in distances})
        self.reach = -self.distances[0], self.distances[-1]

    def forward(self, x: Tensor, context: SequenceContext, name: str) -> Tensor:
        """(B, n, maps) -> (B, n, maps)"""
        weight, bias = self._fold_branches()
        fused = nn.functional.linear(gather_taps(x, self.distances, context, name), weight, bias)
        out: Tensor = x + self.dropout(fused.relu())
        return out

    def _fold_branches(self) -> tuple[Tensor, Tensor]:
        """Fold both convolutions and the linear map after them into one matrix, a third of the cost."""
        maps = len(self.fuse.bias)
        parts = [self.fuse.weight.new_zeros(maps, maps) for _ in self.distances]
        bias: Tensor = self.fuse.bias
        for share, branch in zip(torch.split(self.fuse.weight, maps, dim=1), self._dilated(), strict=True):
            for distance, weight in zip(branch.distances, torch.split(branch.weight, maps, dim=1), strict=True):
                place = self.distances.index(distance)
                parts[place] = parts[place] + share @ weight
            bias = bias + share @ branch.bias
        return torch.cat(parts, dim=1), bias

    def _dilated(self) -> list[Dilated]:
        return [branch for branch in self.branches if isinstance(branch, Dilated)]


class Residual(nn.Module):
    """``x + dropout(mix(relu(dilated(x))))``"""

    def __init__(self, maps: int, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.dilated, self.mix = Dilated(maps, dilation, causal), nn.Linear(maps, maps)
        self.dropout = nn.Dropout(dropout)
        self.reach = self.dilated.reach

    def forward(self, x: Tensor, context: SequenceContext, name: str) -> Tensor:
        """(B, n, maps) -> (B, n, maps)"""
        out: Tensor = x + self.dropout(self.mix(self.dilated.convolve(x, context, name).relu()))
        return out


class Stage(nn.Module):
    """Projection, a stack of layers, and a classifier."""

    def __init__(self, width: int, maps: int, classes: int, layers: list[DualDilated] | list[Residual]) -> None:
        super().__init__()
        self.project, self.classify = nn.Linear(width, maps), nn.Linear(maps, classes)
        self.layers = nn.ModuleList(layers)
        self.reach = sum(layer.reach[0] for layer in layers), sum(layer.reach[1] for layer in layers)

    def forward(self, x: Tensor, context: SequenceContext, name: str) -> Tensor:
        """(B, n, width) -> (B, n, C)"""
        x = context.clean(self.project(x))
        for number, layer in enumerate(self.layers):
            x = context.clean(layer(x, context, f"{name}.{number}"))
        scores: Tensor = self.classify(x)
        return scores


class Mstcn(Head):
    """A stage of dual dilated layers on the features, then stages on the class probabilities of the previous stage."""

    def __init__(self, config: MstcnConfig, width: int, classes: int) -> None:
        super().__init__(config, width, classes)
        self.settings, self.stages = config, 1 + config.refinements
        maps, last, causal, dropout = config.maps, config.layers - 1, config.causal, config.dropout
        dual = [DualDilated(maps, (2**n, 2 ** (last - n)), causal, dropout) for n in range(config.layers)]
        stages = [Stage(width, maps, classes, dual)]
        for _ in range(config.refinements):
            plain = [Residual(maps, 2**n, causal, dropout) for n in range(config.refinement_layers)]
            stages.append(Stage(classes, maps, classes, plain))
        self.chain = nn.ModuleList(stages)
        self._reach = sum(stage.reach[0] for stage in stages), sum(stage.reach[1] for stage in stages)

    @property
    def delay(self) -> int | None:
        """See `Head`."""
        return 0 if self.settings.causal else None

    @property
    def reach(self) -> tuple[int, int]:
        """See `Head`."""
        return self._reach

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`."""
        scores: list[Tensor] = []
        for number, stage in enumerate(self.chain):
            if scores:
                x = context.clean(scores[-1].softmax(-1))
            scores.append(stage(x, context, str(number)))
        return torch.stack(scores)
