"""Clips are read with what came before and never with what comes after, or alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.data.annotation import Split
from keystep.data.clips import TrimmedClip
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.evals.probe import ProbeConfig
from keystep.evals.trimmed import (
    classify_clips,
    clip_slots,
    fit_clip_probe,
    head_scores,
    judge_clips,
    model_frames,
    raw_frames,
    split_clips,
    submission,
)
from keystep.pjepa import PJEPA
from keystep.types import parse_rate

PROBE = ProbeConfig(penalties=(0.001,))
TAKES = [f"take{index}" for index in range(8)]
SPLIT = Split("1", tuple(TAKES[:4]), tuple(TAKES[4:6]), tuple(TAKES[6:]), "")


@pytest.fixture
def folder(tmp_path: Path) -> FeatureFolder:
    """Takes at 2 Hz: cue of the take's kind in the first ten slots, then clips that look alike in both kinds."""
    store = FeatureStore(tmp_path / "data", Timeline(rate=parse_rate(2))).create()
    random = np.random.default_rng(0)
    for index, take in enumerate(TAKES):
        features = 0.1 * random.normal(size=(40, 5)).astype(np.float32)
        features[:10, index % 2] += 3
        features[10:, 4] += 1
        store.add(take, features)
    (tmp_path / "data" / "mapping.txt").write_text("0 open\n1 close\n")
    return open_dataset(tmp_path / "data")


def clips_of(folder: FeatureFolder) -> list[TrimmedClip]:
    """Clips in the second half, whose label is the take's kind."""
    return [
        TrimmedClip(take, start, start + 2.5, index % 2, "train", f"test/{take}/start{start}.mp4", f"uid-{take}")
        for index, take in enumerate(TAKES)
        for start in (8.0, 12.5, 16.0)
    ]


def so_far(features: np.ndarray) -> np.ndarray:
    """A causal representation with a memory: the mean so far."""
    means: np.ndarray = np.cumsum(features, axis=0) / np.arange(1, len(features) + 1)[:, None]
    return means.astype(np.float32)


def test_context_is_what_came_before_and_its_control_has_none(folder: FeatureFolder) -> None:
    results = judge_clips(folder, clips_of(folder), SPLIT, so_far, config=PROBE)
    assert results["take"].top1 == 100 and results["clip"].top1 < 90
    assert "causal context of the same take" in results["take"].describe()
    raw = judge_clips(folder, clips_of(folder), SPLIT, raw_frames, config=PROBE)
    # single frames have no memory; but products over a take and over a clip round apart
    np.testing.assert_allclose(raw["take"].scores, raw["clip"].scores, atol=1e-6)


@pytest.mark.parametrize("context", ["take", "clip"])
def test_nothing_after_a_clips_end_is_read(folder: FeatureFolder, context: str) -> None:
    def looks_ahead(features: np.ndarray) -> np.ndarray:
        return np.repeat(features.sum(axis=0, keepdims=True), len(features), axis=0)

    clips = [clip for clip in clips_of(folder) if clip.take == "take0"]
    before = classify_clips(folder, clips, looks_ahead, context=context).scores  # type: ignore[arg-type]
    path = folder.root / "features" / "take0.npy"
    array = np.load(path)
    array[21:] += 100  # after the first clip's end at 10.5 s
    np.save(path, array)
    after = classify_clips(folder, clips, looks_ahead, context=context).scores  # type: ignore[arg-type]
    assert np.array_equal(before[0], after[0]) and not np.allclose(before[1], after[1])


def test_alone_nothing_before_a_clip_is_read(folder: FeatureFolder) -> None:
    clips = clips_of(folder)[1:2]
    before = classify_clips(folder, clips, so_far, context="clip").scores
    with_context = classify_clips(folder, clips, so_far, context="take").scores
    path = folder.root / "features" / "take0.npy"
    array = np.load(path)
    array[:25] += 1
    np.save(path, array)
    assert np.array_equal(before, classify_clips(folder, clips, so_far, context="clip").scores)
    assert not np.allclose(with_context, classify_clips(folder, clips, so_far, context="take").scores)


def test_a_causal_models_scores_are_those_of_one_run_over_the_take(
    folder: FeatureFolder, make_model: Callable[..., PJEPA]
) -> None:
    frames = model_frames(make_model({"kind": "causal"}))
    clips = clips_of(folder)
    probe = fit_clip_probe(folder, clips[:12], clips[12:18], frames, context="take", config=PROBE)
    score = head_scores(frames, probe.head(folder.classes))
    for aggregate in ("mean", "last"):
        result = classify_clips(folder, clips[18:], score, context="take", aggregate=aggregate)  # type: ignore[arg-type]
        for clip, found in zip(clips[18:], result.scores, strict=True):
            whole = torch.softmax(torch.from_numpy(probe.scores(frames(folder.features(clip.take)))), -1).numpy()
            times = folder.times(clip.take)
            inside = whole[(times >= clip.start) & (times < clip.end)]
            slow = inside.mean(0) if aggregate == "mean" else inside[-1]
            assert np.allclose(found, slow, atol=1e-5)
    with pytest.raises(InputError, match="clips have no segments"):
        model_frames(make_model({"kind": "segment_causal"}))


def test_a_clip_between_two_slots_takes_the_nearest() -> None:
    times = np.arange(10) / 2
    clip = TrimmedClip("a", 1.1, 1.3, 0, "train")
    assert clip_slots(times, clip) == (2, 3)
    assert clip_slots(times, replace(clip, start=1.0, end=2.0)) == (2, 4)
    assert clip_slots(times, replace(clip, start=1.0 + 1e-9, end=2.0 - 1e-9)) == (2, 4)
    assert clip_slots(times, replace(clip, start=40.0, end=41.0)) == (9, 10)


def test_top_1_counts_clips_and_leaves_out_those_without_a_label(folder: FeatureFolder) -> None:
    clips = clips_of(folder)[:4]
    clips = [replace(clips[0], label=0), replace(clips[1], label=1), replace(clips[2], label=None), clips[3]]

    def always_open(features: np.ndarray) -> np.ndarray:
        return np.repeat([[1.0, 0.0]], len(features), axis=0)

    result = classify_clips(folder, clips, always_open, context="clip")
    assert result.predictions.tolist() == [0, 0, 0, 0] and result.top1 == pytest.approx(100 / 3)
    with pytest.raises(InputError, match="none of the 1 clips has a label"):
        _ = classify_clips(folder, clips[2:3], always_open, context="clip").top1
    with pytest.raises(InputError, match="no clips in this part"):
        classify_clips(folder, [], always_open, context="clip")
    with pytest.raises(InputError, match="unknown context 'video'; expected one of take, clip"):
        classify_clips(folder, clips, always_open, context="video")  # type: ignore[arg-type]


def test_clips_follow_the_takes_of_the_split(folder: FeatureFolder) -> None:
    clips = [*clips_of(folder), TrimmedClip("take7", 1.0, 2.0, None, "hidden")]
    train, valid, test = split_clips(clips, SPLIT)
    assert (len(train), len(valid), len(test)) == (12, 6, 6)
    assert {clip.take for clip in valid} == {"take4", "take5"}


def test_the_submission_is_the_benchmarks_file_with_labels(folder: FeatureFolder, tmp_path: Path) -> None:
    clips = [replace(clip, label=None, part="hidden") for clip in clips_of(folder)[:2]]

    def always_close(features: np.ndarray) -> np.ndarray:
        return np.repeat([[0.0, 1.0]], len(features), axis=0)

    result = classify_clips(folder, clips, always_close, context="take")
    record = json.loads(json.dumps(submission(result)))
    assert record["segments"][0] == {
        "ego_segment_name": "test/take0/start8.0.mp4",
        "take_uid": "uid-take0",
        "take_name": "take0",
        "start_time": 8.0,
        "end_time": 10.5,
        "label_id": 1,
    }
    assert len(record["segments"]) == 2
    nameless = classify_clips(folder, [replace(clips[0], name="")], always_close, context="take")
    with pytest.raises(InputError, match="have no benchmark name"):
        submission(nameless)
