"""Which pictures each slot sees, against a slow definition that looks every moment up in the whole video."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.sampling import Sampling, sample
from keystep.extraction.video.arrays import array_frames
from keystep.extraction.video.frames import Frame

PICTURE = Picture(height=1, width=1)


def numbered(times: list[Fraction]) -> list[Frame]:
    """Frames whose pixel is their index."""
    return list(array_frames((np.full((1, 1, 3), index, np.uint8) for index in range(len(times))), times))


def shown_at(times: list[Fraction], moment: Fraction) -> int:
    """The latest frame at or before a moment; the first one before it."""
    return max([index for index, time in enumerate(times) if time <= moment], default=0)


def expected(times: list[Fraction], sampling: Sampling) -> dict[int, tuple[int, list[int]]]:
    """Slot -> (frame shown at its moment, frames that its clip saw), by definition."""
    clip, timeline, rate = sampling.clip, sampling.timeline, sampling.frame_rate
    found = {}
    for slot in range(floor((times[-1] - timeline.start) * timeline.rate) + 1):
        moment = timeline.seconds(slot)
        if moment < times[0]:
            continue
        if clip.slots == 1:
            last = floor((moment + timeline.look_ahead) * rate)
        elif sampling.window == "right":
            last = slot * sampling.per_slot
        else:
            place = slot % sampling.kept + sampling.first_kept  # of the slot in its clip
            last = (slot - place + clip.slots) * sampling.per_slot - 1
        saw = [shown_at(times, Fraction(point) / rate) for point in range(last - clip.frames + 1, last + 1)]
        found[slot] = shown_at(times, moment), saw
    return found


def moments() -> st.SearchStrategy[list[Fraction]]:
    steps = st.lists(st.sampled_from([Fraction(1, 30), Fraction(1, 7), Fraction(1, 2), Fraction(3, 100)]), max_size=40)

    def summed(drawn: tuple[Fraction, list[Fraction]]) -> list[Fraction]:
        times = [drawn[0]]
        for step in drawn[1]:
            times.append(times[-1] + step)
        return times

    return st.tuples(st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(29, 30)]), steps).map(summed)


CLIPS = st.sampled_from(
    [
        ClipSpec(),
        ClipSpec(frames=5, frame_rate=Fraction(10)),
        ClipSpec(frames=16, frame_rate=Fraction(25)),
        ClipSpec(frames=8, frame_rate=Fraction(15, 4)),
        ClipSpec(frames=8, slots=4),
        ClipSpec(frames=6, slots=6),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    times=moments(),
    clip=CLIPS,
    window=st.sampled_from(["center", "right"]),
    rate=st.sampled_from([Fraction(4), Fraction(30000, 1001), Fraction(3)]),
    hop=st.sampled_from([None, 1, 3]),
)
def test_each_slot_sees_what_the_definition_says(times, clip, window, rate, hop):
    if hop is not None and (clip.slots < hop or window == "right"):
        hop = None
    sampling = Sampling(rate=rate, clip=clip, window=window, hop=hop)
    made = {}
    for clip_of in sample(numbered(times), sampling, PICTURE):
        for slot, seen in zip(clip_of.slots, clip_of.seen.tolist(), strict=True):
            saw = clip_of.pictures[:, 0, 0, 0].tolist()
            made[slot] = seen[1], saw
            assert seen[0] == saw[0] and seen[2] == saw[-1]
    assert made == expected(times, sampling)


@settings(max_examples=60, deadline=None)
@given(times=moments(), clip=CLIPS, more=st.integers(1, 20))
def test_with_window_right_later_frames_never_change_earlier_slots(times, clip, more):
    sampling = Sampling(rate=Fraction(4), clip=clip, window="right")
    longer = times + [times[-1] + Fraction(step, 30) for step in range(1, more)]
    short = list(sample(numbered(times), sampling, PICTURE))
    long = list(sample(numbered(longer), sampling, PICTURE))
    for before, after in zip(short, long, strict=False):
        assert before.slots == after.slots
        np.testing.assert_array_equal(before.pictures, after.pictures)
        assert before.seen[0, 2] <= before.seen[0, 1]


@pytest.mark.parametrize("window", ["center", "right"])
@pytest.mark.parametrize("clip", [ClipSpec(frames=5, frame_rate=Fraction(10)), ClipSpec(frames=8, slots=4)])
def test_no_slot_sees_a_frame_later_than_its_stated_look_ahead(clip, window):
    sampling = Sampling(rate=Fraction(4), clip=clip, window=window)
    times = [Fraction(index, 30) for index in range(200)]
    for made in sample(numbered(times), sampling, PICTURE):
        for slot, seen in zip(made.slots, made.seen, strict=True):
            latest = sampling.timeline.seconds(slot) + sampling.timeline.look_ahead
            assert times[seen[2]] <= latest


def test_a_slot_comes_with_the_frame_of_its_moment_and_not_a_frame_later():
    sampling = Sampling(rate=Fraction(4), clip=ClipSpec(frames=4, frame_rate=Fraction(8)), window="right")
    came = []

    def frames():
        for index in range(9):
            came.append(index)
            yield from numbered([Fraction(index, 4)])

    for made in sample(frames(), sampling, PICTURE):
        assert made.slots == (came[-1],)


def test_times_rounded_to_the_ticks_of_a_file_show_the_frames_that_they_mean():
    exact = [Fraction(index, 30) for index in range(90)]
    tick = Fraction(1, 1000)
    rounded = [
        replace(frame, time=round(frame.time / tick) * tick, slack=tick / 2) for frame in numbered(exact)
    ]  # as Matroska stores them: the frame of 1/15 s at 0.067 s
    for window in ("center", "right"):
        sampling = Sampling(rate=Fraction(15), clip=ClipSpec(frames=3, frame_rate=Fraction(30)), window=window)
        meant = list(sample(numbered(exact), sampling, PICTURE))
        found = list(sample(rounded, sampling, PICTURE))
        assert [made.seen.tolist() for made in found] == [made.seen.tolist() for made in meant]


def test_frames_a_tick_apart_are_each_shown_once():
    tick = Fraction(1, 1000)
    frames = [replace(frame, slack=tick / 2) for frame in numbered([index * tick for index in range(20)])]
    sampling = Sampling(rate=Fraction(2000), clip=ClipSpec(), window="right")
    slots = [made.slots[0] for made in sample(frames, sampling, PICTURE)]
    assert slots == list(range(40))  # half a tick behind the last one


def test_a_live_source_that_stalls_leaves_slots_out_instead_of_repeating_a_frame_for_minutes():
    sampling = Sampling(rate=Fraction(4), clip=ClipSpec(), window="right")
    times = [Fraction(0), Fraction(1, 4), Fraction(10), Fraction(41, 4)]
    slots = [made.slots[0] for made in sample(numbered(times), sampling, PICTURE, longest_hold=Fraction(1, 2))]
    assert slots == [0, 1, 2, 40, 41]
    assert len(list(sample(numbered(times), sampling, PICTURE))) == 42


def test_a_stream_that_goes_on_gives_the_slots_that_are_left():
    sampling = Sampling(rate=Fraction(4), clip=ClipSpec(frames=8, slots=4))
    frames = numbered([Fraction(index, 10) for index in range(60)])
    whole = {slot: made for made in sample(frames, sampling, PICTURE) for slot in made.slots}
    rest = {slot: made for made in sample(frames, sampling, PICTURE, first_slot=7) for slot in made.slots}
    assert sorted(rest) == [slot for slot in sorted(whole) if slot >= 7]
    for slot, made in rest.items():
        np.testing.assert_array_equal(made.pictures, whole[slot].pictures)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"window": "left"}, "expected one of center, right"),
        ({"hop": 9}, "hop 9: a clip has 4 slots"),
        ({"hop": 2, "window": "right"}, "only the last slot of a clip"),
    ],
)
def test_impossible_samplings_say_why(settings_, says):
    with pytest.raises(InputError, match=says):
        Sampling(rate=Fraction(4), clip=ClipSpec(frames=8, slots=4), **settings_)


def test_frames_in_memory_have_to_be_pictures_in_order():
    picture = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(InputError, match=r"frame 1 at 0\.5 s is not after"):
        list(array_frames([picture, picture], [1, 0.5]))
    with pytest.raises(InputError, match="frame 0 is float64"):
        list(array_frames([picture / 2], [0]))
