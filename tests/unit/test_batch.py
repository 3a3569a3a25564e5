import numpy as np
import pytest
import torch

from keystep.batch import SequenceBatch, check_segment_lengths
from keystep.errors import InputError


def test_padding_stands_behind_the_shorter_ones() -> None:
    batch = SequenceBatch.pad([np.ones((2, 3), np.float32), 2 * torch.ones(4, 3)])
    assert batch.features.shape == (2, 4, 3) and batch.lengths.tolist() == [2, 4]
    assert batch.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert bool((batch.features[0, 2:] == 0).all()) and batch.segment_lengths is None
    assert batch.to("cpu") is batch


def test_segments_come_along_also_those_of_an_empty_sequence() -> None:
    batch = SequenceBatch.pad([torch.ones(3, 2), torch.ones(5, 2), torch.ones(0, 2)], [[3], (1, 4), []])
    assert batch.segment_lengths is not None
    assert batch.segment_lengths.tolist() == [[3, 0], [1, 4], [0, 0]]
    assert batch.segment_lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one sequence"),
        ([torch.ones(4, 3), torch.ones(4, 2)], r"different widths: \[2, 3\]"),
        ([torch.ones(4, 3), torch.ones(4)], r"shape \(4,\); expected \(T, D_in\)"),
        ([torch.ones(1, 4, 3)], r"shape \(1, 4, 3\); expected"),
        ([torch.ones(4, 3, dtype=torch.int64)], r"features are torch\.int64"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(sequences: list[torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceBatch.pad(sequences)


@pytest.mark.parametrize(
    ("features", "valid", "message"),
    [
        (torch.ones(4, 3), torch.ones(4, dtype=torch.bool), r"shape \(4, 3\); expected \(B, T, D_in\)"),
        (torch.ones(2, 4, 3), torch.ones(2, 3, dtype=torch.bool), r"valid has shape \(2, 3\).*need \(2, 4\) bool"),
        (torch.ones(2, 4, 3), torch.ones(2, 4), r"type torch\.float32"),
        (torch.ones(2, 4, 3).long(), torch.ones(2, 4, dtype=torch.bool), r"features are torch\.int64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(features: torch.Tensor, valid: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceBatch(features, valid)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([[3, 1], [4, 1]], "row 1 sums to 5, but 4 frames are valid"),
        ([[2, 0, 2], [4, 0, 0]], "row 0 has a zero or negative length inside"),
        ([[5, -1], [4, 0]], "row 0 has a zero or negative"),
        ([[4, 0]], r"shape \(1, 2\).*expected \(2, S\) integers"),
        ([4, 4], r"shape \(2,\)"),
        ([[4.0], [4.0]], r"type torch\.float32"),
        ([[True], [True]], r"type torch\.bool"),
    ],
)
def test_segments_that_would_mislead_are_refused(lengths: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_segment_lengths(torch.tensor(lengths), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("starts", [[0], [0, -1], [0.0, 1.0], [[0, 1]]])
def test_starts_that_are_no_frames_are_refused(starts: list[object]) -> None:
    with pytest.raises(InputError, match=r"starts are .*expected a frame index of 0 or more for each of 2"):
        SequenceBatch(torch.ones(2, 4, 3), torch.ones(2, 4, dtype=torch.bool), starts=torch.tensor(starts))


def test_starts_go_along_to_another_precision() -> None:
    batch = SequenceBatch(torch.ones(2, 4, 3), torch.ones(2, 4, dtype=torch.bool), starts=torch.tensor([0, 8]))
    other = batch.with_features(batch.features.double())
    assert other.starts is batch.starts and other.features.dtype == torch.float64


def test_segments_count_valid_frames_wherever_padding_stands() -> None:
    valid = torch.tensor([[False, True, True, False, True]])
    check_segment_lengths(torch.tensor([[1, 2, 0]], dtype=torch.int32), valid)
    with pytest.raises(InputError, match="sums to 5, but 3"):
        check_segment_lengths(torch.tensor([[5]]), valid)
