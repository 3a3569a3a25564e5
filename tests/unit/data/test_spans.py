"""Spans and the labels of slots say the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.data.annotation import IGNORED
from keystep.data.spans import Span, labels_of_spans, spans_of
from keystep.errors import InputError

CLASSES = ("cut", "stir", "pour")


@given(st.lists(st.sampled_from([IGNORED, 0, 1, 2]), max_size=60))
def test_labels_survive_spans(labels: list[int]) -> None:
    ids = np.array(labels, np.int64)
    assert labels_of_spans(spans_of(ids, CLASSES), len(ids), CLASSES).tolist() == labels


def test_a_slot_without_a_label_belongs_to_no_span() -> None:
    ids = np.array([IGNORED, 1, 1, IGNORED, 0], np.int64)
    assert spans_of(ids, CLASSES) == [Span(1, 3, "stir"), Span(4, 5, "cut")]


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([Span(0, 3, "cut"), Span(2, 4, "stir")], "overlap"),
        ([Span(0, 6, "cut")], "of a video of 5"),
        ([Span(2, 2, "cut")], "slots 2 to 2"),
        ([Span(0, 1, "fry")], "no class 'fry'"),
    ],
)
def test_spans_that_cannot_be_labels_are_refused(spans: list[Span], words: str) -> None:
    with pytest.raises(InputError, match=words):
        labels_of_spans(spans, 5, CLASSES)
