"""Clusters as key-steps: every convention against a slow definition of it, and what the choices change."""

from itertools import permutations

import numpy as np
import pytest

from keystep.config.base import build
from keystep.data.annotation import IGNORED
from keystep.errors import InputError
from keystep.evals.discovery import (
    UNMATCHED,
    Discovery,
    DiscoveryConfig,
    cluster_frames,
    random_frames,
    score_clusters,
    uniform_segments,
)


def config(**settings: object) -> DiscoveryConfig:
    return build(DiscoveryConfig, {"clusters": 3}, settings)


def slow_scores(clusters: list[int], truth: list[int], convention: str, unmatched: tuple[int, ...]) -> set[tuple]:
    """Rounded (precision, recall, IoU) of every best one-to-one matching, by trying all of them frame by frame."""
    frames = [(c, t) for c, t in zip(clusters, truth, strict=True) if t != IGNORED]
    steps = sorted({t for _, t in frames} - set(unmatched))
    names = list(range(max(c for c, _ in frames) + 1))
    size = min(len(steps), len(names))
    options = {
        tuple(sorted(zip(some, others, strict=True)))
        for some in permutations(steps, size)
        for others in permutations(names, size)
    }

    def common(pairs: tuple) -> int:
        return sum((t, c) in pairs for c, t in frames)

    best = max(map(common, options))
    found = set()
    for pairs in (pairs for pairs in options if common(pairs) == best):
        rows = []
        for step, name in pairs:
            both = sum(c == name and t == step for c, t in frames)
            predicted, true = sum(c == name for c, _ in frames), sum(t == step for _, t in frames)
            rows.append((both, predicted, true, predicted + true - both))
        sums = np.sum(rows, axis=0)
        if convention == "frames":
            scores = [sums[0] / sums[index] for index in (1, 2, 3)]
        else:
            ratios = np.array([[row[0] / row[index] if row[index] else 0.0 for index in (1, 2, 3)] for row in rows])
            scores = ratios.sum(0) / (len(steps) if convention == "all-steps" else len(rows))
        found.add(tuple(np.round(100 * np.array(scores), 6).tolist()))
    return found


@pytest.mark.parametrize("convention", ["cnc", "frames", "all-steps"])
@pytest.mark.parametrize("background", ["step", "unmatched"])
@pytest.mark.parametrize(("classes", "clusters"), [(4, 3), (3, 4), (4, 4)])
def test_every_convention_equals_its_slow_definition(
    convention: str, background: str, classes: int, clusters: int
) -> None:
    random = np.random.default_rng(classes * 10 + clusters)
    for _ in range(6):
        truth = random.integers(classes, size=40)
        truth[random.random(40) < 0.1] = IGNORED
        ids = np.where(random.random(40) < 0.5, np.maximum(truth, 0) % clusters, random.integers(clusters, size=40))
        chosen = config(clusters=clusters, convention=convention, background=background)
        scores = score_clusters({"v": ids}, {"v": truth}, {"v": ""}, chosen, background=(0,)).tasks[0].scores
        slow = slow_scores(ids.tolist(), truth.tolist(), convention, (0,) if background == "unmatched" else ())
        assert tuple(np.round([scores.precision, scores.recall, scores.iou], 6).tolist()) in slow


def test_a_step_that_no_cluster_was_left_for_costs_nothing_in_cnc_and_counts_as_zero_in_all_steps() -> None:
    truth, ids = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    scores = {
        name: score_clusters({"v": ids}, {"v": truth}, {"v": ""}, config(clusters=2, convention=name))
        for name in ("cnc", "frames", "all-steps")
    }
    assert scores["cnc"].recall == 100 and scores["cnc"].precision == 75 and scores["cnc"].iou == 75
    assert scores["frames"].recall == 100 and scores["frames"].precision == pytest.approx(400 / 6)
    assert scores["all-steps"].recall == pytest.approx(200 / 3) and scores["all-steps"].iou == pytest.approx(50)
    assert scores["cnc"].f1 == pytest.approx(2 * 100 * 75 / 175)
    renamed = scores["cnc"].tasks[0].labels["v"]
    assert renamed[:2].tolist() == [0, 0] and set(renamed[2:].tolist()) in ({1}, {2})


def test_the_published_example_of_the_authors_file() -> None:
    """Labels of ten frames that their evaluate/metrics.py ends with; the numbers follow from its text by hand."""
    truth, ids = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5, 5]), np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    found = score_clusters({"v": ids}, {"v": truth}, {"v": ""}, config(clusters=2))
    # cluster 0 with step 0: 4 of 9 and 4 of 4; cluster 1 with step 5: 1 of 1 and 1 of 2
    assert found.precision == pytest.approx(100 * (4 / 9 + 1) / 2) and found.recall == pytest.approx(75)
    assert found.iou == pytest.approx(100 * (4 / 9 + 1 / 2) / 2)


def two_videos(matching: str) -> Discovery:
    truths = {"a": np.repeat([0, 1], 5), "b": np.repeat([0, 1], 5)}
    clusters = {"a": np.repeat([0, 1], 5), "b": np.repeat([1, 0], 5)}
    return score_clusters(clusters, truths, dict.fromkeys(truths, "t"), config(clusters=2, matching=matching))


def test_matching_by_video_forgives_clusters_that_change_their_meaning() -> None:
    assert two_videos("video").f1 == 100 and two_videos("task").f1 == 50


def test_tasks_are_scored_alone_and_averaged() -> None:
    truths = {"a": np.repeat([0, 1], 5), "b": np.repeat([2, 3], 5)}
    clusters = {"a": np.repeat([0, 1], 5), "b": np.zeros(10, dtype=np.int64)}
    found = score_clusters(clusters, truths, {"a": "tea", "b": "cake"}, config(clusters=2, matching="task"))
    assert [task.task for task in found.tasks] == ["tea", "cake"] and [task.steps for task in found.tasks] == [2, 2]
    assert found.f1 == pytest.approx((100 + found.tasks[1].scores.f1) / 2)
    record = found.to_json()
    assert record["tasks"]["cake"]["recall"] == 100 and record["matching"] == "task" and record["clusters"] == 2


def test_background_that_matches_nothing_counts_against_precision_only() -> None:
    truth, ids = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = score_clusters({"v": ids}, {"v": truth}, {"v": ""}, config(background="unmatched"), background=(0,))
    assert found.recall == 100 and found.precision == pytest.approx(200 / 3)
    assert found.tasks[0].labels["v"].tolist() == [UNMATCHED, 1, 1, 1]
    nothing = np.zeros(4, dtype=np.int64)
    with pytest.raises(InputError, match="none of the 1 videos has a key-step"):
        score_clusters({"v": ids}, {"v": nothing}, {"v": "tea"}, config(background="unmatched"), background=(0,))


def test_frames_without_a_label_are_left_out() -> None:
    truth, ids = np.array([0, 0, IGNORED, 1]), np.array([0, 0, 2, 1])
    found = score_clusters({"v": ids}, {"v": truth}, {"v": ""}, config())
    assert found.f1 == 100 and found.tasks[0].labels["v"].tolist() == [0, 0, UNMATCHED, 1]


def test_clear_clusters_are_found_in_all_videos_of_a_task_at_once() -> None:
    random = np.random.default_rng(0)
    truths = {f"v{index}": np.repeat(random.permutation(3), 20) for index in range(3)}
    looks = 5 * random.normal(size=(3, 6))
    frames = {video: (looks[ids] + 0.1 * random.normal(size=(60, 6))) for video, ids in truths.items()}
    tasks = dict.fromkeys(truths, "t")
    chosen = config(matching="task")
    clusters = cluster_frames(frames, tasks, chosen, seed=1)
    again = cluster_frames(frames, tasks, chosen, seed=1)
    assert all(np.array_equal(clusters[video], again[video]) for video in truths)
    assert score_clusters(clusters, truths, tasks, chosen).f1 == 100
    lengths = {video: len(ids) for video, ids in truths.items()}
    for control in (uniform_segments(lengths, 3), random_frames(lengths, 3)):
        assert score_clusters(control, truths, tasks, chosen).f1 < 80
    own = cluster_frames(frames, tasks, config(clustering="video"), seed=1)
    assert score_clusters(own, truths, tasks, config(clustering="video")).f1 == 100
    with pytest.raises(InputError, match="t: 180 frames are too few for 200 clusters"):
        cluster_frames(frames, tasks, config(clusters=200))


def test_uniform_segments_are_equal_and_all_there() -> None:
    cut = uniform_segments({"v": 10}, 3)["v"]
    assert cut.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert uniform_segments({"v": 2}, 3)["v"].tolist() == [0, 1]


def test_the_choices_are_said_in_a_line_and_lengths_must_agree() -> None:
    line = config(matching="task", background="unmatched").describe()
    assert "K = 3" in line and "matched by task" in line and "background unmatched" in line and "cnc" in line
    with pytest.raises(InputError, match="v: 3 clustered frames, but 2 true labels"):
        score_clusters({"v": np.zeros(3, int)}, {"v": np.zeros(2, int)}, {"v": ""}, config())
