"""What workers are told and what they report."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from keystep.errors import InputError

Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)

Report = Callable[[float, int], None]
"""Takes amounts done since the last call, such as seconds of video and frames."""


class Begin(Protocol[Made]):
    """Makes a worker ready, such as by loading a network."""

    def __call__(self, worker: int, report: Report) -> Callable[..., Made]:
        """The function that runs a job.

        Args:
            worker: number of the worker.
            report: takes amounts done while a job runs.

        Raises:
            InputError: no worker can begin.
        """


class CannotBegin(Exception):
    """A worker cannot begin, for a reason that no other job would escape."""


def device_of(worker: int, kind: str | None = None) -> str:
    """The device of a worker. kind: of device; ``cuda`` or None: one of the GPUs of its machine, if there are any."""
    if kind not in (None, "cuda"):
        return kind
    return f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def check_shared(folder: Path) -> None:
    """Refuse, in a worker, a folder that only the first process sees.

    Raises:
        InputError: this machine sees no such folder.
    """
    if not folder.exists():
        raise InputError(
            f"{folder}: not there on {socket.gethostname()}; it has to lie on a file system that all machines share"
        )
