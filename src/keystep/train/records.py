"""What a run writes down: ``metrics.jsonl``, and TensorBoard files for those who ask."""

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
    """One JSON object a line, flushed at once, so that a killed run has lost nothing that it printed.

    A resumed run first drops the lines after its checkpoint: every step stands in the file once.
    """

    def __init__(self, folder: Path, resume_at: int = 0, tensorboard: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= resume_at] if self.path.exists() else []
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._tensorboard = _tensorboard(folder, resume_at) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step; what is not finite is null, for JSON has no NaN."""
        self._check_there()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def _check_there(self) -> None:
        """Raises:
        OSError: the file was removed or replaced, so that what is written would be lost.
        """
        if not (self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))):
            raise FileNotFoundError(errno.ENOENT, "something removed or replaced it", str(self.path))

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; a last line that was cut off by a kill is left out."""
    lines = read_text(path).split("\n")
    records = list[dict[str, Any]]()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                records.append(_checked(parse_json(line, nan=None)))
        except ValueError as error:
            if number < len(lines):  # the last one has no end
                raise InputError(f"{path}, line {number}: no line of metrics: {quoted(line)}: {error}") from error
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
