"""The linear head: class scores of each frame from its own features. `keystep eval` fits it as the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from keystep.errors import InputError
from keystep.heads.config import LinearConfig
from keystep.heads.head import Head
from keystep.nn.context import SequenceContext


class LinearHead(Head):
    """One affine map to all classes; with a background, one map to the steps and one for background or step.

    Attributes:
        steps: scores of all classes; with a background, of all other classes in the order of their ids.
        activity: scores of (background, step). None without a background.

    Raises:
        InputError: the background is not a class.
    """

    def __init__(self, config: LinearConfig, width: int, classes: int) -> None:
        super().__init__(config, width, classes)
        self.background = config.background
        if self.background is not None and self.background >= classes:
            raise InputError(f"background {self.background} is not one of the {classes} classes")
        self.steps = nn.Linear(width, classes - (self.background is not None))
        self.activity = None if self.background is None else nn.Linear(width, 2)

    def run(self, x: Tensor, context: SequenceContext) -> Tensor:
        """See `Head`. With a background, scores are log p(step) + log p(class | step), and log p(background)."""
        scores: Tensor = self.steps(x)
        if self.activity is None or self.background is None:
            return scores[None]
        nothing, something = self.activity(x).unbind(-1)
        steps = scores.log_softmax(-1) + logsigmoid(something - nothing)[..., None]
        before, after = steps[..., : self.background], steps[..., self.background :]
        return torch.cat([before, logsigmoid(nothing - something)[..., None], after], dim=-1)[None]

    def choose(self, probabilities: Tensor) -> Tensor:
        """See `Head`. With a background, the best step if p(background) < 1/2.

        This need not be the most probable class: the background may exceed each single step, but not their sum.
        """
        if self.background is None:
            return super().choose(probabilities)
        background = torch.tensor([self.background], device=probabilities.device)
        steps = probabilities.index_fill(-1, background, -1.0)
        return torch.where(probabilities[..., self.background] < 0.5, steps.argmax(-1), self.background)


@dataclass(frozen=True, eq=False)
class Affine:
    """The map ``x @ weight.T + bias``, with weight (K, D) and bias (K,)."""

    weight: Tensor
    bias: Tensor


def linear_head(
    steps: Affine | nn.Linear,
    activity: Affine | nn.Linear | None = None,
    background: int | None = None,
    names: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
) -> LinearHead:
    """Create a linear head from maps that were fitted elsewhere.

    Args:
        steps: map to all classes, or to all but the background.
        activity: map to (background, step), given together with ``background``.
        background: class id of the background.
        names: class names by id.
        origin: as `Head.origin`.

    Returns:
        The head, in eval mode and without gradients.
    """
    assert (activity is None) == (background is None)
    classes, width = steps.weight.shape
    head = LinearHead(LinearConfig(background=background), width, classes + (activity is not None))
    head.requires_grad_(False)
    for layer, affine in ((head.steps, steps), (head.activity, activity)):
        if layer is not None and affine is not None:
            layer.load_state_dict({"weight": affine.weight, "bias": affine.bias})
    head.names, head.origin = tuple(names), dict(origin or {})
    return head.eval()
