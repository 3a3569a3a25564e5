"""Answers that take longer than a request may."""


class NotYet(Exception):
    """Something is being computed in the background; ``progress`` from 0 to 1."""

    def __init__(self, text: str, progress: float) -> None:
        super().__init__(text)
        self.progress = progress
