"""Claims about the synthetic videos. The full difficulty table is ``benchmarks/synthetic_difficulty.py``."""

import hashlib
import importlib.util
import json
from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from keystep.data import procedures, synthetic
from keystep.data.synthetic import (
    BACKGROUND,
    SyntheticConfig,
    all_steps,
    class_names,
    generate,
    make_video,
    make_world,
    video_name,
)
from keystep.errors import InputError
from keystep.evals.controls import Control

SMALL = SyntheticConfig(train_videos=3, valid_videos=1, test_videos=2, feature_dim=8, max_frames=300)
LABELS_DIGEST = {2: "7a13dc02b3b32354"}
"""Generator version -> digest of the labels of the first demo videos. When it changes, raise GENERATOR_VERSION and
put the digest that the test prints under the new number."""
FIRST_FRAMES = [1.405962, 0.854668, 4.435854]
"""Dimension 0 of frames 0, 100 and 200 of the first demo video; goes with LABELS_DIGEST."""


def steps_of(labels: list[str]) -> list[str]:
    """Labels of the segments in order, background left out."""
    return [name for name, _ in groupby(labels) if name != BACKGROUND]


def videos_of(config: SyntheticConfig, count: int) -> list[tuple[np.ndarray, list[str]]]:
    world = make_world(config)
    return [make_video(config, index, world) for index in range(count)]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module("synthetic_difficulty")


def test_output_of_a_version_does_not_change() -> None:
    config = SyntheticConfig.demo()
    labels = [" ".join(steps_of(labels)) for _, labels in videos_of(config, 5)]
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]
    assert LABELS_DIGEST.get(synthetic.GENERATOR_VERSION) == digest


def test_frames_of_a_version_do_not_change() -> None:
    features, _ = make_video(SyntheticConfig.demo(), 0)
    np.testing.assert_allclose(features[[0, 100, 200], 0], FIRST_FRAMES, atol=1e-3)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, config in {"a": SMALL, "b": SMALL, "c": SMALL.model_copy(update={"seed": 1})}.items():
        generate(tmp_path / name, config)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    same = {str(file): (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files}
    assert all(same.values()) and len(files) == 2 * 6 + 3 + 2
    assert (tmp_path / "a/features/video0000.npy").read_bytes() != (tmp_path / "c/features/video0000.npy").read_bytes()


def test_a_video_does_not_depend_on_the_others() -> None:
    alone, _ = make_video(SMALL, 4)
    fewer, _ = make_video(SMALL.model_copy(update={"train_videos": 1}), 4, make_world(SMALL))
    np.testing.assert_array_equal(alone, fewer)


def test_folder_is_in_the_ms_tcn_layout(tmp_path: Path) -> None:
    root = tmp_path / "new" / "set"
    generate(root, SMALL)
    lines = (root / "mapping.txt").read_text().splitlines()
    assert [line.split(" ") for line in lines] == [[str(i), name] for i, name in enumerate(class_names(SMALL))]
    bundles = {split: (root / f"splits/{split}.split1.bundle").read_text() for split in SMALL.splits}
    assert bundles["valid"] == "video0003.txt\n" and bundles["test"] == "video0004.txt\nvideo0005.txt\n"
    for index in range(6):
        features = np.load(root / f"features/{video_name(index)}.npy")
        text = (root / f"groundTruth/{video_name(index)}.txt").read_text()
        assert features.dtype == np.float32 and features.shape == (8, 300) and np.isfinite(features).all()
        assert text.endswith("\n") and len(text.splitlines()) == 300
        assert set(text.splitlines()) <= set(class_names(SMALL))
    store = json.loads((root / "store.json").read_text())
    about = store["provenance"]
    assert (about["version"], about["seed"], store["timeline"]["rate"]) == (synthetic.GENERATOR_VERSION, 0, "4")
    assert SyntheticConfig.model_validate(about["config"]) == SMALL


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        generate(tmp_path, SMALL)
    with pytest.raises(InputError, match=r"mine\.txt"):
        generate(tmp_path / "mine.txt", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_write_lines", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0}, "rate"),
        ({"skip_probability": 1.5}, "1.5"),
        ({"min_frames": 900, "max_frames": 400}, "900"),
        ({"sed": 1}, "sed"),
    ],
)
def test_nonsense_in_the_config_is_refused_with_its_value(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SyntheticConfig.model_validate(change)


@pytest.mark.parametrize(
    "config",
    [SyntheticConfig.demo(), SyntheticConfig.moment(), SyntheticConfig.standard()],
    ids=["demo", "moment", "standard"],
)
def test_videos_keep_to_the_configured_length_and_classes(config: SyntheticConfig) -> None:
    for features, labels in videos_of(config, 5):
        assert config.min_frames <= len(labels) <= config.max_frames
        assert features.shape == (len(labels), config.feature_dim)
        assert set(labels) <= set(class_names(config))


def test_every_class_occurs() -> None:
    for config in (SyntheticConfig.demo(), SyntheticConfig.moment()):
        seen = Counter(name for _, labels in videos_of(config, config.train_videos) for name in steps_of(labels))
        assert set(seen) | {BACKGROUND} == set(class_names(config))


def test_how_often_a_workpiece_was_fastened_names_all_work_on_it() -> None:
    for _, labels in videos_of(SyntheticConfig.demo(), 98):
        count = 0
        for step in steps_of(labels):
            if step == "bring":
                count = 0
            elif step.startswith("fasten"):
                count += 1
                assert step == f"fasten_{count}"
            elif step.startswith("work"):
                assert step.endswith(f"after_{count}") and 1 <= count <= procedures.MOST


def test_order_is_partial_and_steps_are_skipped_repeated_and_broken_off() -> None:
    config = SyntheticConfig.demo()
    task = make_world(config).tasks[0]
    rounds = attempts_of_rounds(config, 400)
    orders = {tuple(dict.fromkeys(step.look for step, _ in each if step.look.startswith("work"))) for each in rounds}
    whole = {order for order in orders if len(order) == sum(map(len, task))}
    assert 1 < len(whole) <= 6  # two chains of two can be interleaved in six ways
    for order in whole:
        for chain in task:
            places = [order.index(f"work_{k}") for k in chain]
            assert places == sorted(places)
    done = [[step.look for step, reaches in each if step.length == "work" and reaches == 1] for each in rounds]
    assert any(len(each) < 4 for each in done) and any(a == b for each in done for a, b in pairwise(each))
    assert any(reaches < 1 for each in rounds for _, reaches in each)


def attempts_of_rounds(config: SyntheticConfig, count: int) -> list[list[procedures.Attempt]]:
    """So many whole rounds of the first task."""
    plan = procedures.rounds(make_world(config).tasks[0], 2, config.chances, np.random.default_rng(0))
    found: list[list[procedures.Attempt]] = [[]]
    while len(found) < count + 2:
        attempt = next(plan)
        if attempt[0].name == "bring":
            found.append([])
        found[-1].append(attempt)
    return found[1:-1]


def test_frames_of_look_alikes_have_the_same_distribution() -> None:
    """Means of two sides, each against its standard error over videos; a distinct pair shows what fails."""
    config = SyntheticConfig.demo()
    videos = videos_of(config, 98)

    def distance(first: str, second: str) -> float:
        """Mean squared z-score of the difference of means: about 1 when the two have one mean."""
        means: dict[str, list[np.ndarray]] = {first: [], second: []}
        for features, labels in videos:
            names = np.array(labels)
            for name in means:
                if (names == name).any():
                    means[name].append((features - features.mean(axis=0))[names == name].mean(axis=0))
        one, two = np.array(means[first]), np.array(means[second])
        error = one.var(axis=0, ddof=1) / len(one) + two.var(axis=0, ddof=1) / len(two)
        return float((((one.mean(axis=0) - two.mean(axis=0)) ** 2) / error).mean())

    by_look: dict[str, list[str]] = {}
    for step in all_steps(config):
        by_look.setdefault(step.look, []).append(step.name)
    alike = {look: distance(*names[:2]) for look, names in by_look.items() if look.startswith("work")}
    print("look-alikes", alike, "distinct", distance("bring", "reach"))
    assert len(alike) == config.work_steps and max(alike.values()) < 4
    assert distance("bring", "reach") > 20


def test_checks_show_how_often_the_workpiece_was_fastened_and_plain_steps_show_anything() -> None:
    others = Counter[bool]()
    for attempts in attempts_of_rounds(SyntheticConfig.demo(), 200):
        count = sum(step.name.startswith("fasten") for step, _ in attempts)
        shown = [(step.name, step.shows) for step, _ in attempts if step.shows is not None]
        assert {each for name, each in shown if name == "check"} <= {f"fastened_{count}"}
        others.update(each == f"fastened_{count}" for name, each in shown if name != "check")
    assert others[False] > others[True] > 0


def test_of_the_moment_nothing_but_the_look_tells_the_name() -> None:
    config = SyntheticConfig.moment()
    looks = [step.look for step in all_steps(config)]
    assert len(set(looks)) == len(looks) == len(class_names(config)) - 1
    lengths = [len(list(run)) for _, labels in videos_of(config, 30) for _, run in groupby(labels)]
    assert np.median(lengths) <= 4  # frames: it switches about every second


def test_history_is_needed_and_can_be_learned(benchmark: ModuleType) -> None:
    """A cheap form of the benchmark: four controls and fewer epochs; a few seconds."""
    data = benchmark.load(SyntheticConfig.demo())
    found = {
        name: benchmark.best_of(data, [each])[1].accuracy for name, each in controls_of(benchmark, data, True).items()
    }
    learned = benchmark.supervised(data, causal=True, epochs=12).accuracy
    print(found, learned)
    assert learned > max(found.values()) + 8
    assert found["clock"] < 20


def test_smoothing_and_history_hurt_where_labels_are_of_the_moment(benchmark: ModuleType) -> None:
    data = benchmark.load(SyntheticConfig.moment())
    for causal in (True, False):
        rows = controls_of(benchmark, data, causal)
        found = {name: benchmark.best_of(data, [each])[1].accuracy for name, each in rows.items()}
        raw = found.pop("raw")
        print(raw, found)
        assert 65 < raw < 85
        assert max(found.values()) < raw - 3


def controls_of(benchmark: ModuleType, data: Any, causal: bool) -> dict[str, Control]:
    """Raw features, the shortest average, offsets within 24 tau, and the clock."""
    train, rate = data.features("train"), data.config.rate
    candidates = benchmark.Candidates(train, rate, benchmark.decorrelation_time(train, rate).tau)
    return {
        "raw": benchmark.RAW,
        "average": candidates.smoothing(causal=causal)[1],
        "offsets": candidates.offsets(causal=causal)[2],
        "clock": candidates.histories(causal=causal)["clock"],
    }
