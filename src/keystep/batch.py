"""A padded batch of feature sequences, which validates itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from keystep.errors import InputError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class SequenceBatch:
    """A batch of feature sequences of different lengths. Treat it as immutable.

    Args:
        features: (B, T, D_in) float. Values at padding are ignored.
        valid: (B, T) bool, False at padding, which may be anywhere (`pad` puts it at the end).
        segment_lengths: (B, S) int64 lengths of consecutive segments, or None. Each row sums to the number of valid
            frames of its sequence; zeros are allowed only at the end of a row. Used by models with segment attention or
            positions.
        starts: (B,) int64 index of each sequence's first frame in its video. None: 0.

    Raises:
        InputError: inconsistent shapes or types, or invalid segment lengths or starts.

    (Not a dataclass, because Fabric takes a frozen dataclass apart to cast its tensors, which fails.)
    """

    def __init__(
        self,
        features: Tensor,
        valid: Tensor,
        segment_lengths: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> None:
        if features.ndim != 3:
            raise InputError(f"features have shape {tuple(features.shape)}; expected (B, T, D_in), batch first")
        if not features.is_floating_point():
            raise InputError(f"features are {features.dtype}; expected a floating type")
        if valid.shape != features.shape[:2] or valid.dtype != torch.bool:
            raise InputError(
                f"valid has shape {tuple(valid.shape)} and type {valid.dtype}; features of shape "
                f"{tuple(features.shape)} need {tuple(features.shape[:2])} bool"
            )
        if segment_lengths is not None:
            check_segment_lengths(segment_lengths, valid)
        if starts is not None:
            _check_starts(starts, len(valid))
        self.features, self.valid = features, valid
        self.segment_lengths, self.starts = segment_lengths, starts

    @classmethod
    def pad(
        cls, sequences: Sequence[np.ndarray | Tensor], segments: Sequence[Sequence[int]] | None = None
    ) -> SequenceBatch:
        """Create a batch from sequences (T_i, D_in), padded with zeros.

        Args:
            sequences: arrays or tensors of the same width.
            segments: the segment lengths of each sequence, for models that use them.

        Raises:
            InputError: no sequences, or unexpected shapes.
        """
        if not sequences:
            raise InputError("a batch needs at least one sequence")
        tensors = [torch.as_tensor(sequence) for sequence in sequences]
        odd = next((tensor for tensor in tensors if tensor.ndim != 2), None)
        if odd is not None:
            raise InputError(f"a sequence has shape {tuple(odd.shape)}; expected (T, D_in)")
        widths = {tensor.shape[-1] for tensor in tensors}
        if len(widths) > 1:
            raise InputError(f"the sequences of a batch have different widths: {sorted(widths)}")
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        features = pad_sequence(tensors, batch_first=True)  # (B, T, D_in)
        valid = torch.arange(features.shape[1]) < lengths[:, None]
        if segments is None:
            return cls(features, valid)
        rows = [torch.as_tensor(row, dtype=torch.int64) for row in segments]
        return cls(features, valid, pad_sequence(rows, batch_first=True))

    @property
    def lengths(self) -> Tensor:
        """(B,) number of valid frames."""
        return self.valid.sum(dim=1)

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The batch on another device."""
        if self.features.device == torch.device(device):
            return self
        optional = (None if part is None else part.to(device) for part in (self.segment_lengths, self.starts))
        return SequenceBatch(self.features.to(device), self.valid.to(device), *optional)

    def with_features(self, features: Tensor) -> SequenceBatch:
        """The batch with other features (B, T, D_in), for example in another precision."""
        return SequenceBatch(features, self.valid, self.segment_lengths, self.starts)


def _check_starts(starts: Tensor, sequences: int) -> None:
    if starts.shape != (sequences,) or starts.dtype not in INTEGERS or bool((starts < 0).any()):
        raise InputError(
            f"starts are {starts.tolist()}, {starts.dtype}; expected a frame index of 0 or more for each of {sequences}"
        )


def check_segment_lengths(segment_lengths: Tensor, valid: Tensor) -> None:
    """Validate segment lengths.

    Args:
        segment_lengths: (B, S).
        valid: (B, T) bool.

    Raises:
        InputError: wrong shape or type, a negative length, a zero within a row, or a row that does not sum to its
            number of valid frames.
    """
    if segment_lengths.ndim != 2 or len(segment_lengths) != len(valid) or segment_lengths.dtype not in INTEGERS:
        raise InputError(
            f"segment_lengths have shape {tuple(segment_lengths.shape)} and type {segment_lengths.dtype}; "
            f"expected ({len(valid)}, S) integers"
        )
    for row, (lengths, total) in enumerate(zip(segment_lengths.tolist(), valid.sum(dim=1).tolist(), strict=True)):
        used = [length for length in lengths if length]
        if any(length < 0 for length in lengths) or lengths[: len(used)] != used:
            raise InputError(f"segment_lengths row {row} has a zero or negative length inside: {lengths}")
        if sum(used) != total:
            raise InputError(f"segment_lengths row {row} sums to {sum(used)}, but {total} frames are valid")
