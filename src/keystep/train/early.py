"""Early stopping on the prediction loss of held-out videos.

On a small data set the model overfits: the training loss falls while predictions on other videos get worse, and probes
on the latents with them. The monitored value is the loss at hidden frames of held-out videos, divided by the loss of
the best constant prediction. Every evaluation uses the same crops and masks, so only the weights change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from keystep.diagnostics import Health

MARGIN = 0.01
"""Relative increase over the best loss that counts as worse. On large data sets the loss falls until the end."""
IN_A_ROW = 3
"""Number of consecutive worse evaluations after which training stops."""


@dataclass
class EarlyStop:
    """Held-out losses so far, and the weights of the best evaluation.

    Attributes:
        active: whether this training may stop early; if not, nothing is recorded.
        looks: (step, loss relative to the best constant) of each evaluation, in order, without that before training.
        best: the model's state dict at the best evaluation, on the CPU.
    """

    active: bool
    looks: list[tuple[int, float]] = field(default_factory=list)
    best: Mapping[str, Tensor] = field(default_factory=dict)

    def see(self, step: int, health: Health, model: nn.Module) -> None:
        """Record an evaluation of the model after ``step`` steps, and keep its weights if it is the best one."""
        if not self.active:
            return
        self.looks.append((step, health.hidden_loss / max(health.mean_loss, 1e-12)))
        if self.best_step == step:
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

    @property
    def best_step(self) -> int:
        """The step with the lowest loss."""
        return min(self.looks, key=lambda look: look[1])[0]

    @property
    def stopped_at(self) -> int | None:
        """The step at which to stop. None: not yet."""
        place = find_stop([loss for _, loss in self.looks])
        return None if place is None else self.looks[place][0]

    def record(self) -> dict[str, int]:
        """Entries for ``metrics.jsonl``; empty while training continues."""
        return {} if self.stopped_at is None else {"stopped_at": self.stopped_at, "best_step": self.best_step}

    def advice(self, steps: int) -> str:
        """One line for the user about a training of ``steps`` steps that stopped early."""
        return (
            f"stopped at step {self.stopped_at} of {steps}: predictions on held-out videos were best at step "
            f"{self.best_step}, whose weights are kept; more videos, or fewer steps "
            f"(--set train.steps={self.best_step})"
        )


def find_stop(losses: list[float]) -> int | None:
    """Index of the evaluation that completes the first run of `IN_A_ROW` worse ones. None: there is no such run.

    Each loss is averaged with the one before it, so that a single outlier decides nothing.
    """
    smooth = [sum(pair) / 2 for pair in zip(losses[:1] + losses[:-1], losses, strict=True)]
    worse = 0
    for place, loss in enumerate(smooth):
        worse = worse + 1 if loss > (1 + MARGIN) * min(smooth[: place + 1]) else 0
        if worse == IN_A_ROW:
            return place
    return None
