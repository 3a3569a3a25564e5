"""The end of a training that only gets worse: predictions on videos that are held out, look by look.

A small set is learned by heart: the loss falls, while predictions on other videos were best long ago, and latents are
read worse with every step from there. What is watched is the loss at hidden frames of held-out videos relative to that
of the best constant. Crops and masks are the same in every look, so nothing but the weights moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from keystep.diagnostics import Health

MARGIN = 0.01
"""A look is worse where it lies this share above the best. On sets that are large enough the loss falls to the end."""
IN_A_ROW = 3
"""So many worse looks in a row are no accident any more."""


@dataclass
class EarlyStop:
    """The looks so far, and the weights of the best one.

    active: whether this training may be stopped at all; otherwise nothing is noted.
    looks: (step, loss relative to the best constant) of each look, in order; that before training is none of them.
    best: tensors of the model at the best look, on the processor.
    """

    active: bool
    looks: list[tuple[int, float]] = field(default_factory=list)
    best: Mapping[str, Tensor] = field(default_factory=dict)

    def see(self, step: int, health: Health, model: nn.Module) -> None:
        """Take note of a look at the model after ``step`` steps."""
        if not self.active:
            return
        self.looks.append((step, health.hidden_loss / max(health.mean_loss, 1e-12)))
        if self.best_step == step:
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

    @property
    def best_step(self) -> int:
        """The step of the look with the lowest loss."""
        return min(self.looks, key=lambda look: look[1])[0]

    @property
    def stopped_at(self) -> int | None:
        """The step at which to stop; None: not yet."""
        place = first_too_late([loss for _, loss in self.looks])
        return None if place is None else self.looks[place][0]

    def record(self) -> dict[str, int]:
        """What metrics say of the end; nothing where training goes on."""
        return {} if self.stopped_at is None else {"stopped_at": self.stopped_at, "best_step": self.best_step}

    def advice(self, steps: int) -> str:
        """One line about the end of a training that was to have so many steps."""
        return (
            f"stopped at step {self.stopped_at} of {steps}: predictions on held-out videos were best at step "
            f"{self.best_step}, whose weights are kept; more videos, or fewer steps "
            f"(--set train.steps={self.best_step})"
        )


def first_too_late(losses: list[float]) -> int | None:
    """Place of the first look that ends a run of `IN_A_ROW` worse ones; None where there is none.

    Each look counts as the mean of itself and the one before, so that one that is good or bad by chance decides
    nothing.
    """
    smooth = [sum(pair) / 2 for pair in zip(losses[:1] + losses[:-1], losses, strict=True)]
    worse = 0
    for place, loss in enumerate(smooth):
        worse = worse + 1 if loss > (1 + MARGIN) * min(smooth[: place + 1]) else 0
        if worse == IN_A_ROW:
            return place
    return None
