"""Metrics of a run: ``metrics.jsonl``, and TensorBoard files if ``train.tensorboard`` is set."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Strict

from keystep.errors import InputError, quoted
from keystep.files import replacing
from keystep.reading import checked, parse_json, read_text


class Metrics:
    """Writes one JSON object per line and flushes it, so that a killed run loses nothing that it printed.

    A resumed run first drops the lines after its checkpoint, so that each step occurs once.

    Args:
        folder: the run's folder.
        resume_at: the last step of which lines are kept; 0: none, since a run that begins again also writes step 0.
        tensorboard: also write TensorBoard files.

    Raises:
        InputError: TensorBoard is requested and not installed, or the existing file is damaged.
    """

    def __init__(self, folder: Path, resume_at: int = 0, tensorboard: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        lines = read_metrics(self.path) if resume_at and self.path.exists() else []
        kept = [line for line in lines if line["step"] <= resume_at]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._tensorboard = _tensorboard(folder, resume_at) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step; NaN and infinity become null, which JSON lacks otherwise.

        Raises:
            OSError: the file cannot be written, or was removed or replaced.
        """
        self._check_there()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def _check_there(self) -> None:
        """Raise OSError if the file was removed or replaced, because its lines would be lost."""
        if not (self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))):
            raise FileNotFoundError(errno.ENOENT, "something removed or replaced it", str(self.path))

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``: one dict per line, with ``step``. An incomplete last line is ignored.

    Raises:
        InputError: no such file, or a damaged line.
    """
    lines = read_text(path).split("\n")
    records = list[dict[str, Any]]()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                records.append(_checked(parse_json(line, nan=None)))
        except ValueError as error:
            if number < len(lines):  # the last line may be incomplete
                raise InputError(f"{path}, line {number}: not a line of metrics: {quoted(line)}: {error}") from error
    return records


def _checked(line: Any) -> dict[str, Any]:
    checked(dict[str, Annotated[float, Strict()] | None], line, "it")
    if type(line.get("step")) is not int or line["step"] < 0:
        raise ValueError("no step")
    return line  # type: ignore[no-any-return]  # just checked


def _tensorboard(folder: Path, resume_at: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("train.tensorboard needs the extra 'track': pip install 'keystep[track]'") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at)
