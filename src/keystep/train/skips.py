"""Steps whose gradient is not finite: left out, counted, and after a few in a row the end of the training."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from keystep.errors import InputError

MOST_IN_A_ROW = 5
"""So many steps without a finite gradient are no accident any more: the training stops."""


@dataclass
class Skips:
    """How many steps a training left out because their loss or gradient was NaN or infinite."""

    total: int = 0
    in_a_row: int = 0

    def step(self, optimizer: Optimizer, finite: bool) -> bool:
        """Step the optimiser and drop the gradients; without a finite gradient, change neither weights nor moments.

        Args:
            finite: whether loss and gradient are numbers; the same in all processes.

        Returns:
            Whether the step was taken.
        """
        if finite:
            self.in_a_row = 0
        else:
            self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
            optimizer.zero_grad()  # nothing is stepped then, but a gradient scaler still learns of the overflow
        optimizer.step()
        optimizer.zero_grad()
        return finite

    def check(self, where: str, remedy: str) -> None:
        """Raise an InputError if too many steps in a row were left out.

        Args:
            where: the last of them.
            remedy: what the user can do about it, such as "lower the learning rate".
        """
        if self.in_a_row >= MOST_IN_A_ROW:
            raise InputError(
                f"{where}: the loss or its gradient was not finite in {self.in_a_row} steps in a row, which were "
                f"skipped; {remedy}, or look for extreme values in the features"
            )

    def summary(self) -> str:
        """One line for the end of a training."""
        return f"{self.total} steps were skipped in all, because their loss or gradient was not finite"
