import json
import random
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.metrics import (
    PROTOCOLS,
    edit_score,
    score_tallies,
    segment_matches,
    segmentation_scores,
    segments,
    tally_video,
)

SHARED = Path(__file__).parents[4] / "shared"
GOLDEN = SHARED / "golden" / "metrics.json"
KEYS = ["accuracy", "accuracy_foreground", "edit", "f1@10", "f1@25", "f1@50"]
Video = Sequence[Hashable]
Run = tuple[Hashable, set[int]]


# --- an independent reference: sets of frames, Python loops, recursion; nothing shared with the package ---


def slow_runs(labels: Video, background: Sequence[Hashable]) -> list[Run]:
    """(label, its frames) of each run that is not background."""
    runs = [
        (label, {frame for frame, _ in group}) for label, group in groupby(enumerate(labels), key=lambda pair: pair[1])
    ]
    return [run for run in runs if run[0] not in background]


def slow_edit(prediction: Video, truth: Video, background: Sequence[Hashable]) -> float:
    a = [label for label, _ in slow_runs(prediction, background)]
    b = [label for label, _ in slow_runs(truth, background)]

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return 100 * (1 - distance(len(a), len(b)) / max(len(a), len(b))) if a or b else 100.0


def slow_counts(prediction: Video, truth: Video, background: Sequence[Hashable], least: float) -> list[int]:
    """[true positives, false positives, false negatives]"""
    true_runs, taken, false = slow_runs(truth, background), set[int](), 0
    for label, frames in slow_runs(prediction, background):
        best, best_overlap = -1, 0.0
        for index, (other, other_frames) in enumerate(true_runs):
            overlap = len(frames & other_frames) / len(frames | other_frames)
            if other == label and overlap > best_overlap:
                best, best_overlap = index, overlap
        if best_overlap >= least and best not in taken:
            taken.add(best)
        else:
            false += 1
    return [len(taken), false, len(true_runs) - len(taken)]


def slow_f1(hits: int, false: int, missed: int) -> float | None:
    return 200 * hits / (2 * hits + false + missed) if hits + false + missed else None


def slow_fact_f1(hits: int, false: int, missed: int) -> float:
    precision, recall = hits / (hits + false + 1e-5), hits / (hits + missed + 1e-5)
    return 100 * (2 * precision * recall) / (precision + recall + 1e-5)


def slow_accuracy(prediction: Video, truth: Video, background: Sequence[Hashable]) -> float | None:
    scored = [p == t for p, t in zip(prediction, truth, strict=True) if t not in background]
    return 100 * sum(scored) / len(scored) if scored else None


def joined(videos: Sequence[Video]) -> list[Hashable]:
    return [label for video in videos for label in video]


def slow_pooled(
    predictions: Sequence[Video],
    truths: Sequence[Video],
    background: Sequence[Hashable],
    f1: Callable[[int, int, int], float | None] = slow_f1,
) -> dict[str, float]:
    pairs = list(zip(predictions, truths, strict=True))
    scores = {
        "accuracy": slow_accuracy(joined(predictions), joined(truths), ()),
        "accuracy_foreground": slow_accuracy(joined(predictions), joined(truths), background),
        "edit": sum(slow_edit(p, t, background) for p, t in pairs) / len(pairs),
    }
    for percent in (10, 25, 50):
        counts = [slow_counts(p, t, background, percent / 100) for p, t in pairs]
        scores[f"f1@{percent}"] = f1(*(sum(column) for column in zip(*counts, strict=True)))
    return {name: 0.0 if score is None else score for name, score in scores.items()}


def slow_fact(
    predictions: Sequence[Video], truths: Sequence[Video], background: Sequence[Hashable]
) -> dict[str, float]:
    scores = slow_pooled(predictions, truths, background, slow_fact_f1)
    return scores | {"accuracy": scores["accuracy_foreground"]}


def slow_video_mean(
    predictions: Sequence[Video], truths: Sequence[Video], background: Sequence[Hashable]
) -> dict[str, float]:
    columns: dict[str, list[float]] = {key: [] for key in KEYS}
    for p, t in zip(predictions, truths, strict=True):
        video = {
            "accuracy": slow_accuracy(p, t, ()),
            "accuracy_foreground": slow_accuracy(p, t, background),
            "edit": slow_edit(p, t, background),
        }
        for percent in (10, 25, 50):
            video[f"f1@{percent}"] = slow_f1(*slow_counts(p, t, background, percent / 100))
        for key, score in video.items():
            columns[key] += [] if score is None else [score]
    return {key: sum(column) / len(column) if column else 0.0 for key, column in columns.items()}


REFERENCES = {"pooled": slow_pooled, "video-mean": slow_video_mean, "fact": slow_fact, "official": slow_pooled}


def random_video(generator: random.Random, classes: Sequence[Hashable]) -> tuple[list[Any], list[Any]]:
    """A truth of runs, and a prediction that is it with errors: shifted, relabelled and flickering frames."""
    truth = [
        label for _ in range(generator.randint(0, 7)) for label in [generator.choice(classes)] * generator.randint(1, 9)
    ]
    shift, noise = generator.randint(0, 3), generator.choice([0.0, 0.05, 0.4, 1.0])
    prediction = (truth[:1] * shift + truth)[: len(truth)]
    return [generator.choice(classes) if generator.random() < noise else label for label in prediction], truth


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("classes", [(0, 1, 2), ("SIL", "pour", "pour milk")], ids=["ids", "names"])
def test_every_protocol_agrees_with_a_slow_reference(protocol: str, classes: Sequence[Any]) -> None:
    generator = random.Random(0)
    for _ in range(150):
        videos = [random_video(generator, classes) for _ in range(generator.randint(1, 5))]
        predictions, truths = [list(column) for column in zip(*videos, strict=True)]
        background = list(classes[: generator.randint(0, 2)])
        scores = segmentation_scores(predictions, truths, background, protocol)
        assert scores == pytest.approx(REFERENCES[protocol](predictions, truths, background), abs=1e-9)


# --- the authors' values ---


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """The authors' code run on 222 videos and 36 groups of them; ../shared/golden/README.md says how it was made."""
    if not GOLDEN.is_file():
        pytest.skip(f"no golden file {GOLDEN}: the authors' values are not part of this repository")
    content: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return content


def percent(expected: dict[str, Any]) -> dict[str, float]:
    """Golden scores under our names; there accuracy is 0-1."""
    numbers = [100 * expected["acc"], 100 * expected["acc_no_bg"], expected["edit"], *expected["f1"]]
    return dict(zip(KEYS, numbers, strict=True))


def test_official_scores_of_single_videos_equal_the_authors(golden: dict[str, Any]) -> None:
    for pair in golden["pairs"]:
        prediction, truth = pair["prediction"], pair["ground_truth"]
        for background, expected in pair["scores"].items():
            scores = segmentation_scores([prediction], [truth], [int(background)], "official")
            assert scores == pytest.approx(percent(expected), abs=1e-9), (pair["name"], background)
            matches = segment_matches(prediction, truth, [int(background)])
            assert matches.tolist() == list(expected["tp_fp_fn"].values()), (pair["name"], background)


def test_official_scores_of_several_videos_equal_the_authors(golden: dict[str, Any]) -> None:
    videos = {pair["name"]: (pair["prediction"], pair["ground_truth"]) for pair in golden["pairs"]}
    for group in golden["groups"]:
        names = videos if group["videos"] == "all" else group["videos"]
        predictions, truths = zip(*(videos[name] for name in names), strict=True)
        scores = segmentation_scores(predictions, truths, [group["background"]], "official")
        assert scores == pytest.approx(percent(group), abs=1e-9), (group["videos"], group["background"])


COPIED = {
    "two pieces of one truth": (
        ("111111211111", "111111111111", -100),
        [91.66666666666666, 91.66666666666666, 33.333333333333336, 50, 50, 50],
    ),
    "one piece over two truths": (
        ("1111111111111", "1111112211111", -100),
        [84.61538461538461, 84.61538461538461, 33.333333333333336, 50, 50, 0],
    ),
    "neighbours of background stay apart": (
        ("11110001111", "11111111111", 0),
        [72.72727272727273, 72.72727272727273, 50, 66.66666666666666, 66.66666666666666, 0],
    ),
    "equal overlaps": (
        ("221111111122", "111122221111", -100),
        [33.33333333333333, 33.33333333333333, 33.333333333333336, 33.33333333333333, 0, 0],
    ),
    "one prediction too many": (
        ("1111211221111", "1111211001111", 0),
        [84.61538461538461, 100, 80, 88.8888888888889, 88.8888888888889, 88.8888888888889],
    ),
    "an overlap of exactly a half": (("1" * 10 + "0" * 10, "1" * 20, 0), [50, 50, 100, 100, 100, 100]),
    "an overlap just below a half": (("1" * 9 + "0" * 11, "1" * 20, 0), [45, 45, 100, 100, 100, 0]),
    "an overlap of exactly a quarter": (
        ("1" * 5 + "2" * 15, "1" * 20, -100),
        [25, 25, 50, 66.66666666666666, 66.66666666666666, 0],
    ),
    "an overlap of exactly a tenth": (
        ("1" * 2 + "2" * 18, "1" * 20, -100),
        [10, 10, 50, 66.66666666666666, 0, 0],
    ),
    "truth is all background": (("000011100", "000000000", 0), [66.66666666666666, 0, 0, 0, 0, 0]),
    "prediction is all background": (("0000000000", "0011111111", 0), [20, 0, 0, 0, 0, 0]),
    "both are all background": (("000000", "000000", 0), [100, 0, 100, 0, 0, 0]),
    "no frames": (("", "", -100), [0, 0, 100, 0, 0, 0]),
}
"""(prediction, truth, background), one digit a frame, and their scores in golden/metrics.json (accuracies times 100),
so that a check remains without the file."""


@pytest.mark.parametrize(("video", "expected"), COPIED.values(), ids=COPIED)
@pytest.mark.parametrize("protocol", ["pooled", "official"])
def test_copied_values_of_the_authors_are_reproduced(
    video: tuple[str, str, int], expected: list[float], protocol: str
) -> None:
    prediction, truth, background = video
    scores = segmentation_scores([[int(c) for c in prediction]], [[int(c) for c in truth]], [background], protocol)
    assert list(scores) == KEYS
    assert list(scores.values()) == pytest.approx(expected, abs=1e-9)


# --- protocols, by hand ---

# Video 1: 2 of 4 frames right, video 2: 16 of 16. Background 0 is a frame of video 1, and right.
PREDICTIONS = [[0, 1, 2, 2], [1] * 8 + [2] * 8]
TRUTHS = [[0, 1, 1, 1], [1] * 8 + [2] * 8]


def test_pooled_adds_up_frames_and_segments() -> None:
    # Video 1 without background: predicted 1 and 2, true 1. Overlap 1/3, so tp fp fn are 1 1 0, at 50 % 0 2 1.
    # Video 2 is all right: 2 0 0. Together F1 is 2 * 3 / (2 * 3 + 1), at 50 % 2 * 2 / (2 * 2 + 2 + 1).
    expected = [100 * 18 / 20, 100 * 17 / 19, 75, 600 / 7, 600 / 7, 400 / 7]
    assert list(segmentation_scores(PREDICTIONS, TRUTHS, [0]).values()) == pytest.approx(expected)


def test_video_mean_gives_a_short_video_the_weight_of_a_long_one() -> None:
    expected = [(50 + 100) / 2, (100 / 3 + 100) / 2, 75, (200 / 3 + 100) / 2, (200 / 3 + 100) / 2, 50]
    scores = segmentation_scores(PREDICTIONS, TRUTHS, [0], "video-mean")
    assert list(scores.values()) == pytest.approx(expected)


def test_fact_leaves_background_out_of_accuracy_and_never_quite_reaches_an_f1_of_100() -> None:
    scores = segmentation_scores(PREDICTIONS, TRUTHS, [0], "fact")
    pooled = segmentation_scores(PREDICTIONS, TRUTHS, [0])
    assert scores["accuracy"] == scores["accuracy_foreground"] == pooled["accuracy_foreground"]
    assert scores["f1@50"] == pytest.approx(pooled["f1@50"], abs=2e-3) and scores["f1@50"] < pooled["f1@50"]
    perfect = segmentation_scores(TRUTHS, TRUTHS, [0], "fact")
    assert 99.99 < perfect["f1@50"] < 100


def test_only_named_classes_are_background() -> None:
    prediction, truth = ["background", "pour", "pour"], ["SIL", "SIL", "pour"]
    assert segment_matches(prediction, truth)[0].tolist() == [1, 1, 1]
    assert segment_matches(prediction, truth, ["SIL"])[0].tolist() == [1, 1, 0]
    assert segment_matches(prediction, truth, {"SIL", "background"})[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_prediction_scores_100_even_with_one_class_only(protocol: str) -> None:
    scores = segmentation_scores([[3] * 5], [[3] * 5], protocol=protocol)
    assert scores == pytest.approx(dict.fromkeys(KEYS, 100.0), abs=2e-3)


# --- nothing to score ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("frames", [0, 4], ids=["no frames", "all background"])
def test_without_anything_to_score_edit_is_100_and_the_rest_0(protocol: str, frames: int) -> None:
    scores = segmentation_scores([[0] * frames], [[0] * frames], [0], protocol)
    expected = dict.fromkeys(KEYS, 0.0) | {"edit": 100.0}
    if frames and not PROTOCOLS[protocol].foreground_only:
        expected["accuracy"] = 100.0
    assert scores == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_prediction_of_background_alone_scores_no_step(protocol: str) -> None:
    scores = segmentation_scores([[0, 0, 0, 0]], [[0, 1, 1, 2]], [0], protocol)
    expected = dict.fromkeys(KEYS, 0.0)
    if not PROTOCOLS[protocol].foreground_only:
        expected["accuracy"] = 25.0
    assert scores == expected


def test_video_mean_leaves_a_video_out_of_the_scores_that_it_has_nothing_for() -> None:
    step, background = [1, 1, 1, 1], [0, 0, 0]
    scores = segmentation_scores([step, background], [step, background], [0], "video-mean")
    assert scores == dict.fromkeys(KEYS, 100.0)


# --- the parts ---


def test_a_prediction_that_fits_two_truths_equally_looks_at_the_first_even_if_it_is_taken() -> None:
    # The second 1 of the prediction overlaps each 1 of the truth by 2 / 8; the first one has taken the earlier.
    prediction, truth = list("11211111222"), list("11111011111")
    assert segment_matches(prediction, truth).tolist() == [[1, 3, 2], [1, 3, 2], [0, 4, 3]]


def test_segments_are_maximal_runs_that_end_after_their_last_frame() -> None:
    labels, starts, ends = segments(["a", "a", "b", "a", "a", "a"])
    assert labels.tolist() == ["a", "b", "a"]
    assert starts.tolist() == [0, 2, 3]
    assert ends.tolist() == [2, 3, 6]


def test_no_frames_have_no_segments() -> None:
    assert [len(part) for part in segments([])] == [0, 0, 0]


def test_edit_counts_insertions_deletions_and_replacements() -> None:
    assert edit_score([1, 2, 3, 4], [2, 3, 4, 1]) == 50.0
    assert edit_score([0, 1, 2, 3, 4], [0, 2, 3, 4, 1]) == 60.0
    assert edit_score([1, 2, 1, 2], [1, 1, 1, 1]) == 25.0
    assert edit_score([1, 1, 1, 1], [1, 2, 1, 2]) == 25.0
    assert edit_score([1, 2, 2, 2], [3, 4, 4, 4]) == 0.0


def test_tallies_add_up_to_the_score_of_all_videos() -> None:
    tallies = [tally_video(p, t, [0]) for p, t in zip(PREDICTIONS, TRUTHS, strict=True)]
    assert (tallies[0] + tallies[1]).frames.tolist() == [[18, 20], [17, 19]]
    for protocol in PROTOCOLS:
        assert score_tallies(tallies, protocol) == segmentation_scores(PREDICTIONS, TRUTHS, [0], protocol)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda x: np.array(x, dtype=object)])
@pytest.mark.parametrize("classes", [(0, 1, 2), ("none", "a", "b")])
def test_sequences_and_arrays_of_any_label_type_score_alike(kind: Callable[[Any], Any], classes: Sequence[Any]) -> None:
    predictions, truths = ([kind([classes[label] for label in video]) for video in v] for v in (PREDICTIONS, TRUTHS))
    expected = segmentation_scores(PREDICTIONS, TRUTHS, [0])
    assert segmentation_scores(predictions, truths, kind([classes[0]])) == expected


def test_a_video_of_54_000_flickering_frames_needs_no_table_of_segment_pairs() -> None:
    flicker = np.arange(54_000) % 50
    truth = np.arange(54_000) // 1_000 % 50  # 54 segments
    assert segment_matches(flicker, truth).sum(axis=1).tolist() == [54_000 + 54] * 3  # a full table: 54,000 squared
    assert segment_matches(flicker, flicker).tolist() == [[54_000, 0, 0]] * 3
    assert segmentation_scores([flicker], [truth])["edit"] == pytest.approx(100 * 54 / 54_000)


# --- refusals ---


@pytest.mark.parametrize(
    ("predictions", "truths", "background", "message"),
    [
        ([[1]], [[1], [2]], (), "1 predictions for 2 truths"),
        ([], [], (), "no videos"),
        ([[1], [1, 2]], [[1], [1, 2, 3]], (), "video 1: the prediction has 2 frames and the truth 3"),
        ([[]], [[1, 2]], (), "video 0: the prediction has 0 frames and the truth 2"),
        ([[[1, 2]]], [[1, 2]], (), r"video 0: the prediction has shape \(1, 2\); expected \(T,\)"),
        ([1, 2], [1, 2], (), r"video 0: the prediction has shape \(\)"),
        ([[1]], [[[1], [1, 2]]], (), "video 0: the truth: not a 1-D sequence"),
        ([[0.5]], [[1]], (), "video 0: the prediction has type float64"),
        ([["1"]], [[1]], (), "video 0: prediction and truth must be both class ids or both class names"),
        ([[1]], [[1]], ["SIL"], "background and truth must be both class ids or both class names"),
        ([["SIL"]], [["SIL"]], "SIL", r"such as \['SIL'\]"),
        ([[0]], [[0]], 0, r"such as \[0\]"),
    ],
)
def test_unusable_input_is_refused_in_one_line_that_names_the_video(
    predictions: Any, truths: Any, background: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        segmentation_scores(predictions, truths, background)
    assert "\n" not in str(refusal.value)


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown protocol 'mof'; known: pooled, video-mean, fact, official"):
        segmentation_scores([[1]], [[1]], protocol="mof")


# --- frames without a label ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_with_unlabelled_frames_are_those_of_the_videos_without_them(protocol: str) -> None:
    generator = random.Random(1)
    for _ in range(60):
        videos = [random_video(generator, (0, 1, 2)) for _ in range(generator.randint(1, 4))]
        with_gaps, without = [], []
        for prediction, truth in videos:
            truth = [-100 if generator.random() < 0.3 else label for label in truth]
            if truth and set(truth) == {-100}:
                truth[0] = 1
            with_gaps.append((prediction, truth))
            without.append(
                ([p for p, t in zip(prediction, truth, strict=True) if t != -100], [t for t in truth if t != -100])
            )
        scores = [
            segmentation_scores(*[list(column) for column in zip(*pairs, strict=True)], [0], protocol)
            for pairs in (with_gaps, without)
        ]
        assert scores[0] == scores[1]


def test_a_video_without_any_label_counts_nowhere() -> None:
    known = ([1, 1, 2, 2], [1, 1, 1, 2])
    alone = segmentation_scores([known[0]], [known[1]])
    assert segmentation_scores([known[0], [1, 2]], [known[1], [-100, -100]]) == alone
    assert segmentation_scores([[1, 2]], [[-100, -100]]) == dict.fromkeys(KEYS, 0.0)


def test_a_gap_joins_what_stands_on_both_sides() -> None:
    truth = [1, 1, -100, -100, 1, 1]
    assert segment_matches([1, 1, 2, 2, 1, 1], truth).tolist() == [[1, 0, 0]] * 3
