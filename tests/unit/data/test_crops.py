import pickle
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from keystep.config import MaskingConfig, TrainConfig
from keystep.data.annotation import segment_lengths
from keystep.data.crops import Crops, collate, length_buckets
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError
from keystep.masking import hidden_count

MakeFolder = Callable[..., Path]
LENGTHS = {"a": 40, "b": 13, "c": 25, "d": 60, "e": 1, "f": 33}


@pytest.fixture
def folder(make_folder: MakeFolder) -> FeatureFolder:
    """Videos whose first channel counts the frames and whose second names the video."""
    root = make_folder(lengths=LENGTHS)
    for number, name in enumerate(LENGTHS):
        path = root / "features" / f"{name}.npy"
        array = np.load(path)
        array[0], array[1] = np.arange(LENGTHS[name]), number
        np.save(path, array)
    return open_dataset(root, source_rate=Fraction(30))


def crops(folder: FeatureFolder, process: int = 0, processes: int = 1, segments: bool = False, **train: Any) -> Crops:
    config = TrainConfig(**{"steps": 12, "batch_size": 4, "crop": 16, **train})
    masking = MaskingConfig(shortest=4, longest=8)
    return Crops(
        folder,
        sorted(LENGTHS),
        config,
        masking,
        process=process,
        processes=processes,
        segments=segments,
    )


def contents(batch: tuple[Any, torch.Tensor]) -> list[tuple[bytes, bytes]]:
    """(features, hidden) of each crop, without padding."""
    sequences, hidden = batch
    return [
        (sequences.features[row, : int(length)].numpy().tobytes(), hidden[row, : int(length)].numpy().tobytes())
        for row, length in enumerate(sequences.lengths)
    ]


def test_a_batch_depends_on_the_seed_and_its_number_alone(folder: FeatureFolder) -> None:
    forwards, backwards = crops(folder), crops(folder)
    first = [contents(forwards[number]) for number in range(12)]
    second = [contents(backwards[number]) for number in reversed(range(12))][::-1]
    assert first == second
    assert [contents(crops(folder, seed=1)[number]) for number in range(12)] != first


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_together_read_what_one_reads(folder: FeatureFolder, accumulate: int) -> None:
    whole = crops(folder, accumulate=accumulate)
    halves = [crops(folder, process, 2, accumulate=accumulate) for process in (0, 1)]
    assert len(whole) == len(halves[0]) == 12 * accumulate
    for number in range(len(whole)):
        assert contents(whole[number]) == contents(halves[0][number]) + contents(halves[1][number])


def test_accumulated_parts_make_up_the_same_batch(folder: FeatureFolder) -> None:
    whole, parts = crops(folder), crops(folder, accumulate=4)
    for number in range(12):
        assert contents(whole[number]) == [crop for part in range(4) for crop in contents(parts[4 * number + part])]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_reads_on_where_it_stopped(folder: FeatureFolder, workers: int) -> None:
    rest = DataLoader(crops(folder), batch_size=None, sampler=range(7, 12), num_workers=workers)
    expected = crops(folder)
    assert [contents(batch) for batch in rest] == [contents(expected[number]) for number in range(7, 12)]


def test_crops_can_be_sent_to_reading_processes_however_these_are_started(folder: FeatureFolder) -> None:
    sent = pickle.loads(pickle.dumps(crops(folder)))
    assert contents(sent[3]) == contents(crops(folder)[3])


def test_every_video_is_seen_once_an_epoch_in_a_new_order(folder: FeatureFolder) -> None:
    data = crops(folder)
    epochs = []
    for epoch in range(5):
        seen = [int(data.sample(index)[0][0, 1]) for index in range(6 * epoch, 6 * epoch + 6)]
        assert sorted(seen) == list(range(6))
        epochs.append(tuple(seen))
    assert len(set(epochs)) > 1


def test_every_frame_is_reached_the_last_ones_too(folder: FeatureFolder) -> None:
    data, reached = crops(folder), Counter[tuple[int, int]]()
    for index in range(6 * 400):
        features = data.sample(index)[0]
        reached.update((int(video), int(frame)) for frame, video in features[:, :2])
        assert np.array_equal(np.diff(features[:, 0]), np.ones(len(features) - 1)), "frames are consecutive"
    assert reached.keys() == {(number, frame) for number, n in enumerate(LENGTHS.values()) for frame in range(n)}


def test_short_videos_are_used_whole_and_long_ones_fill_the_crop(folder: FeatureFolder) -> None:
    data = crops(folder)
    for index in range(30):
        features, hidden, _ = data.sample(index)
        length = list(LENGTHS.values())[int(features[0, 1])]
        assert len(features) == len(hidden) == min(16, length)
        assert hidden.sum() == hidden_count(len(features), 0.6)


def test_hidden_frames_never_lie_in_the_padding(folder: FeatureFolder) -> None:
    data = crops(folder)
    for number in range(12):
        batch, hidden = data[number]
        assert hidden.shape == batch.valid.shape and not bool((hidden & ~batch.valid).any())
        assert hidden.sum(1).tolist() == [hidden_count(int(length), 0.6) for length in batch.lengths]


def test_oracle_models_get_the_segments_of_their_crop(folder: FeatureFolder) -> None:
    data = crops(folder, segments=True)
    batch, _ = data[2]
    assert batch.segment_lengths is not None
    for row, index in enumerate(range(8, 12)):
        features, _, lengths = data.sample(index)
        name, start = list(LENGTHS)[int(features[0, 1])], int(features[0, 0])
        labels = folder.labels(name)[start : start + len(features)]
        changes = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
        assert lengths == [b - a for a, b in pairwise(changes)]
        assert [length for length in batch.segment_lengths[row].tolist() if length] == lengths


@pytest.mark.parametrize(("accumulate", "sizes"), [(1, [[4], [2]]), (2, [[2, 2], [2]]), (4, [[1, 1, 1, 1], [1, 1]])])
def test_counted_in_epochs_each_ends_with_what_is_left(
    folder: FeatureFolder, accumulate: int, sizes: list[list[int]]
) -> None:
    """Six videos in batches of four: the second step of an epoch has two, in fewer or smaller parts."""
    data = crops(folder, steps=6, epochs=3, accumulate=accumulate)
    assert len(data) == 3 * sum(map(len, sizes))
    numbers = [data.parts(step) for step in range(6)]
    assert [number for part in numbers for number in part] == list(range(len(data))), "no batch is left out or repeated"
    for epoch in range(3):
        steps = [[contents(data[number]) for number in numbers[2 * epoch + step]] for step in range(2)]
        assert [[len(batch) for batch in step] for step in steps] == sizes
        flat = [crop for step in steps for batch in step for crop in batch]
        assert len({features for features, _ in flat}) == 6, "every video once"


def test_without_epochs_a_step_is_the_same_number_of_parts_each_time(folder: FeatureFolder) -> None:
    data = crops(folder, accumulate=2)
    assert [list(data.parts(step)) for step in (0, 1, 11)] == [[0, 1], [2, 3], [22, 23]]


def test_buckets_put_videos_of_similar_length_into_one_batch(folder: FeatureFolder) -> None:
    data = crops(folder, batch_size=2, bucket=3, epochs=1, crop=100)
    batches = [[len(features) for features, *_ in map(data.sample, range(n, n + 2))] for n in (0, 2, 4)]
    assert sorted(map(sorted, batches)) == [[1, 13], [25, 33], [40, 60]]
    orders = {tuple(map(tuple, [data._order(epoch).tolist()])) for epoch in range(10)}
    assert len(orders) > 1, "the batches are shuffled"


def test_a_crop_of_segments_is_so_many_whole_ones_from_anywhere(folder: FeatureFolder) -> None:
    data = crops(folder, segments=True, crop_segments=2, crop=3)
    reached: dict[str, set[int]] = {}
    for index in range(6 * 60):
        features, hidden, lengths = data.sample(index)
        name, start = list(LENGTHS)[int(features[0, 1])], int(features[0, 0])
        runs = segment_lengths(folder.labels(name))
        first = [0, *np.cumsum(runs)].index(start)
        assert lengths == runs[first : first + 2] and sum(lengths) == len(features) == len(hidden)
        assert len(lengths) == min(2, len(runs)), "never fewer than there are"
        reached.setdefault(name, set()).add(first)
    assert all(reached[name] == set(range(max(1, len(segment_lengths(folder.labels(name))) - 1))) for name in LENGTHS)


def test_batches_that_cannot_be_shared_are_refused(folder: FeatureFolder) -> None:
    with pytest.raises(InputError, match="6 videos in batches of 4 cannot be shared by 3 processes x 1"):
        crops(folder, processes=3)
    with pytest.raises(InputError, match="0 videos"):
        Crops(folder, [], TrainConfig(), MaskingConfig())


def test_segment_lengths_are_the_runs_of_one_label() -> None:
    assert segment_lengths(np.array([2, 2, 0, 0, 0, 2])) == [2, 3, 1]
    assert segment_lengths(np.array([1])) == [1]
    assert segment_lengths(np.array([], dtype=int)) == []


def test_collated_crops_stand_side_by_side() -> None:
    samples = [(np.ones((n, 2), np.float32), np.arange(n) % 2 == 0, None) for n in (3, 5)]
    batch, hidden = collate(samples)
    assert batch.lengths.tolist() == [3, 5] and batch.segment_lengths is None
    assert hidden.tolist() == [[True, False, True, False, False], [True, False, True, False, True]]


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 3000), min_size=1, max_size=40),
    st.integers(1, 8000),
)
def test_buckets_hold_each_video_once_within_the_bound(lengths: dict[str, int], frames: int) -> None:
    groups = length_buckets(lengths, frames)
    assert Counter(name for group in groups for name in group) == Counter(list(lengths))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[name] for name in group) <= frames
    flat = [lengths[name] for group in groups for name in group]
    assert flat == sorted(flat, reverse=True), "similar lengths share a group"
