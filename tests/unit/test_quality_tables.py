"""The study's tables from hand-made pieces: what is paired with what, against a reference of its own."""

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

STUDY = Path(__file__).parents[2] / "benchmarks" / "quality"
Right = dict[str, int]


@pytest.fixture(autouse=True)
def study_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDY), *sys.path])


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def piece(
    row: str,
    fold: str,
    seed: int | None,
    rows: list[dict],
    frames: Right,
    *,
    part: str = "main",
    groups: dict[str, str] | None = None,
) -> dict:
    """What a finished piece holds, as far as tables read it; videos stand in the order of ``frames``."""
    settings = {"data": {"split": fold}, "train": {"seed": seed}} if seed is not None else None
    return {
        **{"row": row, "fold": fold, "seed": seed, "part": part, "settings": settings, "screen": False},
        "code": {"training": "a", "judging": "b"},
        "data": {"name": "made up", "fingerprint": "c"},
        "cpu_seconds": {"training": 3600.0, "judging": 1800.0},
        "test": {
            "videos": list(frames),
            "frames": list(frames.values()),
            "groups": None if groups is None else [groups[video] for video in frames],
        },
        "chosen_by": [],
        "rows": rows,
    }


def line(name: str, family: str, right: list[int], beside: str = "", mode: str = "offline", **more: object) -> dict:
    scores = {"accuracy": float(np.mean(right)), "edit": 50.0, "f1@50": 25.0}
    shared = {"name": name, "family": family, "mode": mode, "beside": beside, "delay": None}
    return {**shared, "scores": scores, "correct": right, **more}


def reference(
    ours: list[dict[str, float]], theirs: list[dict[str, float]], frames: dict[str, float]
) -> tuple[float, float, float]:
    """(mean, low, high) of the difference in pooled accuracy; one dictionary a seed; drawn name by name."""
    draw, videos, found = random.Random(5), sorted(frames), []
    for _ in range(40000):
        names = [draw.choice(videos) for _ in videos]
        total = sum(frames[name] for name in names)
        sides = []
        for seeds in (ours, theirs):
            chosen = [draw.choice(seeds) for _ in seeds]
            sides.append(sum(sum(seed[name] for name in names) / total for seed in chosen) / len(chosen))
        found.append(100 * (sides[0] - sides[1]))
    found.sort()

    def pooled(seeds: list[dict[str, float]]) -> float:
        return sum(sum(seed.values()) for seed in seeds) / len(seeds) / sum(frames.values())

    return 100 * (pooled(ours) - pooled(theirs)), found[1000], found[39000]


@pytest.fixture
def study() -> list[dict]:
    """Two folds of four videos, three seeds of ours, one of a rival, two kinds of control; videos in any order."""
    rng = np.random.default_rng(0)
    frames = {"1": {f"a{i}": 100 + 10 * i for i in range(4)}, "2": {f"b{i}": 150 - 10 * i for i in range(4)}}
    pieces = []
    for fold, here in frames.items():
        other_order = dict(reversed(here.items()))
        right = {name: [int(x) for x in rng.integers(30, 70, 4)] for name in ("average", "offsets", "better offsets")}
        rows = [line(name, "control", counts) for name, counts in right.items() if name != "better offsets"]
        if fold == "2":
            best = [count + 25 for count in right["offsets"]]
            rows.append(line("offsets, best on test", "control", best))
        pieces.append(piece("controls", fold, None, rows, other_order))
        for seed in range(3):
            counts = [int(x) for x in rng.integers(50, 99, 4)]
            rows = [line("keystep (default)", "learned", counts)]
            rows.append(line("keystep (default) ++ best control", "learned", [c + 1 for c in counts], "control"))
            pieces.append(piece("default", fold, seed, rows, here))
        pieces.append(piece("ema-random", fold, 0, [line("ema-random", "learned", [40] * 4)], here))
    return pieces


def by_video(pieces: list[dict], row: str, seed: int | None, name: dict[str, str] | str) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in pieces:
        wanted = name if isinstance(name, str) else name[one["fold"]]
        if (one["row"], one["seed"]) == (row, seed):
            (counts,) = (r["correct"] for r in one["rows"] if r["name"] == wanted)
            found |= dict(zip(one["test"]["videos"], counts, strict=True))
    return found


def test_videos_are_paired_by_name_over_folds_and_each_folds_strongest_control_is_the_rival(study: list[dict]) -> None:
    book = module("book").Book(study, "keystep (default)")
    found = {found.words: found for found in module("tables").gate_lines(book)}
    frames = {v: f for one in study for v, f in zip(one["test"]["videos"], one["test"]["frames"], strict=True)}
    ours = [by_video(study, "default", seed, "keystep (default)") for seed in range(3)]
    rival = by_video(study, "controls", None, {"1": "offsets", "2": "offsets, best on test"})
    mean, low, high = reference(ours, [rival], frames)
    made = found["alone, against offsets"].difference
    assert made.mean == pytest.approx(mean)
    assert (made.low, made.high) == pytest.approx((low, high), abs=0.04 * (high - low))
    assert (made.seeds, made.videos) == ((3, 1), 8)
    mean, *_ = reference(ours, [by_video(study, "ema-random", 0, "ema-random")], frames)
    assert found["alone, against ema-random"].difference.mean == pytest.approx(mean)
    beside = next(line for words, line in found.items() if words.startswith("++ best control, against the strongest"))
    alone = next(line for words, line in found.items() if words.startswith("alone, against the strongest control"))
    assert beside.difference.mean > alone.difference.mean and "offsets, best on test" in alone.words


def test_groups_are_drawn_as_one_and_a_video_of_two_folds_counts_once(study: list[dict]) -> None:
    tables, book = module("tables"), module("book")
    videos = [video for one in study if one["row"] == "controls" for video in one["test"]["videos"]]
    for one in study:
        one["test"]["groups"] = ["p" + video[1] for video in one["test"]["videos"]]  # a0 and b0 are of one person
    (grouped,) = (
        found
        for found in tables.gate_lines(book.Book(study, "keystep (default)"))
        if found.words == "alone, against average"
    )
    assert (grouped.difference.videos, len(videos)) == (4, 8)
    frames: dict[str, float] = {}
    for one in study:
        if one["row"] == "controls":
            for video, count in zip(one["test"]["videos"], one["test"]["frames"], strict=True):
                frames["p" + video[1]] = frames.get("p" + video[1], 0) + count

    def summed(right: dict[str, float]) -> dict[str, float]:
        return {p: sum(n for video, n in right.items() if "p" + video[1] == p) for p in frames}

    ours = [summed(by_video(study, "default", seed, "keystep (default)")) for seed in range(3)]
    mean, low, high = reference(ours, [summed(by_video(study, "controls", None, "average"))], frames)
    assert grouped.difference.mean == pytest.approx(mean)
    assert (grouped.difference.low, grouped.difference.high) == pytest.approx((low, high), abs=0.04 * (high - low))


def test_a_study_that_is_not_whole_compares_what_both_sides_have(study: list[dict]) -> None:
    tables, book = module("tables"), module("book")
    left = [one for one in study if (one["row"], one["fold"], one["seed"]) != ("default", "2", 2)]
    left_book = book.Book(left, "keystep (default)")
    (made,) = (found for found in tables.gate_lines(left_book) if found.words == "alone, against average")
    assert made.difference.seeds == (2, 1) and made.verdict == "not enough seeds"
    assert "default: 5 of 6 folds and seeds are there" in left_book.notes()
    one_fold = [one for one in study if one["fold"] == "1" or one["row"] == "controls"]
    (made,) = (
        found
        for found in tables.gate_lines(book.Book(one_fold, "keystep (default)"))
        if found.words == "alone, against average"
    )
    assert (made.difference.videos, made.difference.seeds) == (4, (3, 1))


def test_draws_of_the_labelled_videos_are_paired_with_the_same_draw(study: list[dict]) -> None:
    tables, book = module("tables"), module("book")
    drawn = [{**one, "part": f"labels15-draw{draw}"} for one in study for draw in range(2)]
    extra = [{**one, "part": "labels15-draw2"} for one in study if one["row"] == "default"]  # no control has it
    made = book.Book([*study, *drawn, *extra], "keystep (default)")
    assert made.shares == ["15"]
    few = {line.words: line.difference for line in tables.gate_lines(made, "labels15")}
    whole = {line.words: line.difference for line in tables.gate_lines(made)}
    assert few["alone, against average"] == whole["alone, against average"], "the same draw twice changes nothing"


def test_a_rival_that_answers_sooner_is_no_fair_win_and_one_seed_is_not_enough(study: list[dict]) -> None:
    tables, book = module("tables"), module("book")
    for one in study:
        for row in one["rows"]:
            row["delay"] = 2.0 if one["row"] == "default" else 0.0
    verdicts = {line.words: line.verdict for line in tables.gate_lines(book.Book(study, "keystep (default)"))}
    assert verdicts["alone, against ema-random"] == "does not hold: it answers later"
    (one_seed,) = (
        line
        for line in tables.gate_lines(book.Book([one for one in study if not one["seed"]], "keystep (default)"))
        if line.words == "alone, against ema-random"
    )
    one_seed = module("pooling").Line(one_seed.words, "offline", one_seed.difference)
    assert one_seed.difference.low > 0 and one_seed.verdict == "not enough seeds"


def test_the_answer_needs_raw_features_and_the_strongest_control_beaten_with_enough_seeds(study: list[dict]) -> None:
    tables, book = module("tables"), module("book")
    controls = [one for one in study if one["row"] == "controls"]
    for one in controls:
        one["rows"] = [line("raw features", "raw", [20] * 4), line("average", "control", [30] * 4)]

    def answer(pieces: list[dict]) -> str:
        question, offline = tables.answer(book.Book(pieces, "keystep (default)"))
        assert question == "Does keystep (default) beat raw features and the strongest control?"
        return offline

    assert answer(study).startswith("offline: yes: against raw features +")
    assert "; against the strongest control (average) +" in answer(study)
    assert answer([one for one in study if not one["seed"]]).startswith("offline: no claim, not enough seeds: ")
    for one in controls:
        one["rows"].append(line("offsets", "control", [99] * 4))
    assert answer(study).startswith("offline: no claim, does not hold: against raw features +")


def test_means_are_over_folds_and_seeds_and_deviations_over_whole_seeds() -> None:
    mean_score = module("pooling").mean_score
    found = mean_score([("1", 0, 60.0), ("1", 1, 70.0), ("2", 0, 80.0), ("2", 1, 94.0), ("1", 2, 80.0)])
    assert found.mean == pytest.approx((70 + 87) / 2)
    assert found.spread == pytest.approx(np.std([70, 82], ddof=1)), "the third seed lacks a fold"
    assert str(mean_score([("1", 0, 60.0)])) == "60.0" and mean_score([]) is None


def test_the_text_shows_what_was_judged_what_it_cost_and_what_differs(study: list[dict]) -> None:
    study[-1]["code"] = {"training": "another", "judging": "b"}
    four, two = dict.fromkeys("abcd", 100), {"a": 9, "b": 9}
    robust = [
        piece("controls", "1", None, [line("best control", "control", [50] * 4, damage="none")], four),
        piece("default", "1", 0, [line("keystep (default)", "learned", [60] * 4, damage="none")], four),
    ]
    raw = [head_line("raw features", "raw", [4, 1, 1], seed) for seed in range(3)]
    ours = [head_line("keystep (default)", "learned", [8, 1, 1], seed) for seed in range(3)]
    heads = [piece("controls", "1", None, raw, two), *(piece("default", "1", s, [ours[s]], two) for s in range(3))]
    for one in robust:
        one["part"] = "robustness"
    for one in heads:
        one["part"] = "heads"
    text, lines = module("tables").tables(module("book").Book([*study, *robust, *heads], "keystep (default)"))
    assert "folds 1, 2; 8 test videos, 8 trainings" in text and "CPU time: 8.0 h training" in text
    assert "pieces of ema-random were made with 2 different training code" in text
    assert "| offline | none | 60.0 | 50.0 | +10.0 (+10.0 to +10.0) |" in text
    f1 = 100 * (16 / 18 - 8 / 10)
    assert f"| offline | mstcn-small: F1@50, against raw features | {f1:+.1f} |" in text
    assert all(line.words.startswith(("alone", "++ best control")) for line in lines)


def head_line(name: str, family: str, matches: list[int], seed: int) -> dict:
    return line(name, family, [5, 5], head="mstcn-small", seed=seed, edit=[80.0, 40.0], **{"f1@50": [matches] * 2})


def test_damage_is_the_same_for_every_representation_and_as_large_as_it_says() -> None:
    damage = module("damage")
    features = np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)
    deviation = features.std(axis=0)
    for kind in damage.KINDS:
        first, again = (damage.damaged(kind, "video", features, deviation) for _ in range(2))
        assert np.array_equal(first, again) and first.dtype == np.float32 and first.shape == features.shape
    noisy = damage.damaged("noise, half a deviation", "video", features, deviation) - features
    assert np.std(noisy / deviation) == pytest.approx(0.5, rel=0.05)
    lost = damage.damaged("a fifth of the frames lost", "video", features, deviation)
    held = (lost != features).any(axis=1)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    assert all(np.array_equal(lost[t], lost[t - 1]) for t in np.flatnonzero(held))
    stopped = damage.damaged("a third of the channels frozen", "video", features, deviation) != features
    assert stopped.any(axis=0).sum() == 4
    (start,) = {int(column.argmax()) for column in stopped.T if column.any()}
    assert stopped[start:, stopped.any(axis=0)].all()
