import numpy as np
import pytest

from keystep.data.slots import lost_segments, note_lost_segments
from keystep.datasets.tree import TimedSegment, check_covered, label_slots
from keystep.errors import InputError

TIMES = np.arange(10) / 2  # seconds, the last slot at 4.5


def test_segments_without_a_slot_are_counted_and_told_from_those_behind_the_end() -> None:
    segments = [
        TimedSegment(0.0, 1.0, "a"),
        TimedSegment(1.1, 1.4, "between two slots"),
        TimedSegment(2.0, 3.0, "hidden"),
        TimedSegment(2.0, 3.5, "hides it"),
        TimedSegment(3.5, 9.0, "ends behind"),
        TimedSegment(5.0, 6.0, "behind"),
    ]
    found = label_slots(TIMES, segments)
    assert (found.lost, found.beyond, found.claimed) == (3, 1, 2)
    assert check_covered("v", found, len(segments), TIMES, "features_rate") == [
        "v: 3 of 6 segments get no slot, 1 of them start after the last one at 4.5 s"
    ]
    assert check_covered("v", label_slots(TIMES, segments[:1]), 1, TIMES, "features_rate") == []


def test_a_rate_at_which_much_lies_behind_the_end_is_refused() -> None:
    segments = [TimedSegment(start, start + 1, "a") for start in (0.0, 2.0, 5.0, 7.0)]
    with pytest.raises(InputError, match=r"2 of 4 segments get no slot, 2 of them .* 4\.5 s; check features_rate"):
        check_covered("v", label_slots(TIMES, segments), 4, TIMES, "features_rate")


def test_segments_that_thinning_leaves_out_are_counted() -> None:
    ids = np.array([0, 0, 0, 0, 1, 2, 2, 2, -100, 3])
    kept = np.array([0, 3, 6, 9])
    assert lost_segments(ids, kept, ids[kept]) == (1, 4)  # class 1; what has no label is no segment
    assert note_lost_segments("v", ids, kept, ids[kept]) == ["v: 1 of 4 segments are shorter than a slot and get none"]
    assert note_lost_segments("v", ids, np.arange(10), ids) == []
