"""Skip and count optimiser steps whose gradient is not finite, and stop training after several in a row."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from keystep.errors import InputError

MOST_IN_A_ROW = 5
"""Number of consecutive steps without a finite gradient after which training stops."""


@dataclass
class Skips:
    """Counts of steps that were skipped because their loss or gradient was NaN or infinite.

    Attributes:
        total: over the whole training.
        in_a_row: since the last step that was taken.
    """

    total: int = 0
    in_a_row: int = 0

    def step(self, optimizer: Optimizer, finite: bool) -> bool:
        """Step the optimiser and clear the gradients. If they are not finite, weights and moments stay unchanged.

        Args:
            optimizer: the optimiser of the training.
            finite: whether loss and gradient are finite; the same in all processes.

        Returns:
            Whether the step was taken.
        """
        if finite:
            self.in_a_row = 0
        else:
            self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
            optimizer.zero_grad()  # the step below then changes nothing, but a gradient scaler sees the overflow
        optimizer.step()
        optimizer.zero_grad()
        return finite

    def check(self, where: str, remedy: str) -> None:
        """Stop the training if too many consecutive steps were skipped.

        Args:
            where: the last of them, for the message.
            remedy: what the user can do, such as "lower the learning rate".

        Raises:
            InputError: `MOST_IN_A_ROW` steps in a row were skipped.
        """
        if self.in_a_row >= MOST_IN_A_ROW:
            raise InputError(
                f"{where}: the loss or its gradient was not finite in {self.in_a_row} steps in a row, which were "
                f"skipped; {remedy}, or look for extreme values in the features"
            )

    def summary(self) -> str:
        """One line for the end of a training."""
        return f"{self.total} steps were skipped in total, because their loss or gradient was not finite"
