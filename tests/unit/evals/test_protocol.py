"""The table is honest: what it lists, what it compares, and what it may look at."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_classes import write_data

import keystep.evals.judge
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.evals.bootstrap import Difference
from keystep.evals.candidates import HISTORIES
from keystep.evals.gate import compare
from keystep.evals.judge import Judge
from keystep.evals.judging import judge_all
from keystep.evals.model_rows import _untrained
from keystep.evals.probe import LinearProbe, ProbeConfig, fit_probe
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.protocol import ASKS, BEST_ON_TEST, PAIR, Comparison, Entrant, Evaluation
from keystep.evals.results import Results, load_result
from keystep.evals.simple_rows import judge_simple
from keystep.evals.study import Study
from keystep.pjepa import PJEPA
from keystep.types import parse_rate

PROBE = ProbeConfig(penalties=(0.1, 0.01))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """One that keeps its probes, so that the tests fit those of the controls once."""
    root = tmp_path_factory.mktemp("protocol")
    folder = open_dataset(write_data(root / "data"), source_rate=parse_rate(4), rate=parse_rate(2))
    return Judge(folder, folder.split("1"), PROBE, kept=ProbeCache(root / "probes"))


def model(seed: int, **changes: object) -> PJEPA:
    torch.manual_seed(100 + seed)
    settings = {"input_dim": 4, "dim": 16, "depth": 2, "heads": 2}
    return PJEPA(build(ModelConfig, settings, changes)).eval()


@pytest.fixture(scope="module")
def evaluation(judge: Judge) -> Evaluation:
    learned = [Entrant("pjepa", seed, model(seed)) for seed in (0, 1, 2)]
    return judge_all(judge, [*learned, Entrant("reconstruction", 0, model(9), reconstruction=True)])


def test_every_control_stands_beside_the_learned_rows(evaluation: Evaluation) -> None:
    for mode in ("offline", "causal"):
        names = {row.name for row in evaluation.rows if row.mode == mode}
        assert {"moving average", "moving average + elapsed", "offsets", "all controls", *HISTORIES} <= names
        assert {"pjepa", "pjepa ++ moving average", "reconstruction", "untrained encoder"} <= names
    assert evaluation.find("raw features", "causal") and evaluation.find("moving average + progress", "offline")
    assert evaluation.find("moving average + progress", "causal") is None, "a live system does not know the length"
    assert evaluation.find("true segments' means (ORACLE)", "offline")


def test_what_latents_hold_without_learning_is_a_control(judge: Judge) -> None:
    found = judge_all(judge, [Entrant("pjepa", seed, model(seed, tau=3.0)) for seed in (0, 1)])
    learned = model(0, tau=3.0).bands()
    for mode in ("offline", "causal"):
        held, whole = found.find("held bands", mode), found.find("pjepa", mode)
        assert held and whole and held.family == "control" and len(held.runs) == 1
        assert held.width == whole.width - learned["context"] - learned["steady"]


def test_seeds_of_one_name_share_a_row_and_controls_are_run_once(evaluation: Evaluation) -> None:
    learned = evaluation.find("pjepa", "offline")
    assert learned and [run.seed for run in learned.runs] == [0, 1, 2] and learned.spread("accuracy") is not None
    control = evaluation.find("moving average", "offline")
    assert control and len(control.runs) == 1 and control.spread("accuracy") is None
    untrained = evaluation.find("untrained encoder", "causal")
    assert untrained and [run.seed for run in untrained.runs] == [0, 1, 2]


def test_learned_rows_stand_beside_the_best_control_of_the_validation_videos(evaluation: Evaluation) -> None:
    for mode in ("offline", "causal"):
        simple = [row for row in evaluation.rows if row.family == "control" and row.mode == mode]
        simple = [row for row in simple if not row.name.endswith(BEST_ON_TEST)]
        simple += [row for row in evaluation.rows if row.family == "raw"]
        best = max(row.valid_accuracy for row in simple)
        assert evaluation.best_control[mode].row.valid_accuracy == best  # type: ignore[index]
        alone, beside = (evaluation.find(f"pjepa{more}", mode) for more in ("", " ++ best control"))  # type: ignore[arg-type]
        assert alone and beside and beside.beside == "control"
        widths = [row.width for row in simple if row.valid_accuracy == best]
        assert 0 < beside.width - alone.width <= max(widths), "bands that its probe dropped do not stand there"
        assert evaluation.find("reconstruction ++ best control", mode) is None  # type: ignore[arg-type]


def test_without_models_the_controls_stand_alone_in_both_modes(judge: Judge) -> None:
    found = judge_all(judge, [])
    assert set(found.best_control) == {"offline", "causal"} and not found.gate
    assert {row.family for row in found.rows} == {"raw", "control", "oracle"}


def test_every_line_asks_one_question_of_every_learned_row(evaluation: Evaluation) -> None:
    for mode in ("offline", "causal"):
        asked = [line.question for line in evaluation.gate if line.mode == mode and line.question != "pair"]
        assert sorted(asked) == sorted(set(ASKS) - {"pair", "head", "task"})
    assert all(line.asks.endswith("?") for line in evaluation.gate)


def test_encoders_that_differ_in_their_predictor_only_have_one_untrained_twin(judge: Judge) -> None:
    other = model(3, visible_predictions="predictor", predictor_depth=1, output_dim=8)
    found = judge_all(judge, [Entrant("a", 0, model(0)), Entrant("b", 0, other)])
    assert found.find("untrained encoder", "causal") and not found.find("untrained encoder 2", "causal")


def test_untrained_rows_are_the_same_in_threads(judge: Judge) -> None:
    def weights(seed: int) -> torch.Tensor:
        return _untrained(Entrant("pjepa", seed, model_0)).mask_token

    model_0 = model(0)
    alone = [weights(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(a, b) for a, b in zip(alone, pool.map(weights, range(12)), strict=True))


def test_what_needs_no_labels_reads_the_videos_without_labels_too(judge: Judge) -> None:
    cut = replace(judge, split=replace(judge.split, train=judge.split.train[:1]), unlabelled=judge.split.train[1:])
    assert set(cut.pretraining) == set(judge.pretraining) == set(judge.split.train)
    few, all_videos = (judge_all(each, [Entrant("pjepa", 0, model(0))]) for each in (cut, judge))
    assert not np.array_equal(few.rows[0].runs[0].probe.weight, all_videos.rows[0].runs[0].probe.weight)


def test_the_gate_asks_what_latents_are_worth_alone_beside_a_control_and_beside_smoothing(
    evaluation: Evaluation,
) -> None:
    for mode in ("offline", "causal"):
        lines = {line.question: line for line in evaluation.gate if line.mode == mode and line.question != "pair"}
        assert {line.first for line in lines.values()} == {
            "pjepa",
            "pjepa ++ best control",
            "pjepa ++ moving average",
        }
        assert (lines["raw"].first, lines["raw"].second) == ("pjepa", "raw features")
        assert lines["control"].second == lines["adds"].second, "one rival, the strongest of all that learns nothing"
        assert lines["adds to smoothing"].second.startswith(("moving average", "raw features"))
        for question, rival in (("untrained", "untrained encoder"), ("reconstruction", "reconstruction")):
            line = lines[question]  # type: ignore[index]
            assert (line.first, line.second) == ("pjepa", rival)
        assert {("reconstruction", "raw features"), ("pjepa", "reconstruction")} == {
            (line.first, line.second) for line in evaluation.gate if line.mode == mode and line.question == "pair"
        }, "what the gate itself does not ask: reconstruction against raw features, and every two given models"
    assert all(line.claim.startswith(PAIR) is (line.question == "pair") for line in evaluation.gate)
    proper = [line for line in evaluation.gate if line.question != "pair"]
    assert not any(line.first.startswith(("reconstruction", "untrained")) for line in proper)


def test_an_untrained_model_is_not_found_better_than_an_untrained_model(evaluation: Evaluation) -> None:
    untrained = [line for line in evaluation.gate if line.second == "untrained encoder"]
    assert untrained and not any(line.holds for line in untrained)


def test_a_line_with_fewer_than_three_seeds_neither_holds_nor_fails(judge: Judge) -> None:
    short = judge_all(judge, [Entrant("pjepa", seed, model(seed)) for seed in (0, 1)])
    assert {line.verdict for line in short.gate} == {"not enough seeds"} and not any(line.holds for line in short.gate)
    assert any("no masked reconstruction" in note for note in judge.folder.problems.notes), "and says what it lacks"
    grid = "rows selected a penalty at the edge of the grid (0.1 to 0.01): "
    assert any(grid in note for note in judge.folder.problems.notes), "two penalties have no middle"


@pytest.mark.parametrize(
    ("low", "seeds", "later", "quick", "verdict"),
    [
        (0.5, 3, False, False, "holds"),
        (0.0, 3, False, False, "fails"),
        (-2.0, 3, True, False, "fails"),
        (0.5, 3, True, False, "answers later"),
        (0.5, 2, True, False, "not enough seeds"),
        (-2.0, 1, False, False, "not enough seeds"),
        (0.5, 3, False, True, "quick look"),
    ],
)
def test_the_verdict_of_a_line(low: float, seeds: int, later: bool, quick: bool, verdict: str) -> None:
    difference = Difference(mean=low + 1, low=low, high=low + 2, seeds=(seeds, 1), videos=10)
    line = Comparison("raw", "alone", "offline", "a", "b", difference, later, quick)
    assert line.verdict == verdict and line.holds is (verdict == "holds")


def test_oracle_models_are_marked_and_a_causal_model_has_no_offline_row(judge: Judge) -> None:
    oracle = model(0, attention={"kind": "segment_causal"}, live_attention=None)
    causal = model(0, attention={"kind": "block_causal", "block": 4}, live_attention=None)
    result = judge_all(judge, [Entrant("clip", 0, oracle), Entrant("blocks", 0, causal)])
    assert result.find("clip (ORACLE)", "offline") and result.find("clip", "offline") is None
    row = result.find("blocks", "causal")
    assert row and row.delay == 3 / 2 + 1 / 4, "three more slots of a block of four at 2 Hz, and a slot of two frames"
    gate = [line for line in result.gate if line.first == "blocks" and line.question in ("raw", "control")]
    assert len(gate) == 2 and all(line.later and not line.holds for line in gate)
    assert result.find("blocks", "offline") is None


def test_causal_rows_say_that_pooling_waits_for_the_groups_last_frame(evaluation: Evaluation) -> None:
    delays = {row.delay for row in evaluation.rows if row.mode == "causal"}
    assert delays == {0.25}, "two frames at 4 Hz: the first waits a quarter of a second for the second"


class Counted:
    """Progress that remembers its last task."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.total: float | None = None
        self.done, self.stop_after = 0.0, stop_after
        self.notes: list[str] = []

    @contextmanager
    def task(self, description: str, total: float | None = None, **about: object) -> Iterator[Any]:
        self.total = total
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        self.notes.append(note)
        if self.done == self.stop_after:
            raise KeyboardInterrupt

    def message(self, text: str) -> None: ...


@pytest.mark.parametrize("quick", [False, True])
def test_the_number_of_probes_is_known_from_the_start(judge: Judge, quick: bool) -> None:
    oracle = model(0, attention={"kind": "segment_causal"}, live_attention=None)
    entrants = [Entrant("pjepa", seed, model(seed)) for seed in (0, 1)]
    entrants += [Entrant("clip", 0, oracle), Entrant("reconstruction", 0, model(9), reconstruction=True)]
    counted = Counted()
    found = judge_all(judge, entrants, counted, quick=quick)
    assert counted.total == counted.done
    assert any(note.startswith("encoding with pjepa (causal): v") for note in counted.notes), (
        "no silence while encoding"
    )
    if quick:
        assert not any(line.holds for line in found.gate) and not any(row.beside for row in found.rows)
        assert any("quick look" in note for note in judge.folder.problems.notes)


def test_a_stopped_evaluation_goes_on_and_finds_the_same_numbers(
    judge: Judge, evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrants = [Entrant("pjepa", seed, model(seed)) for seed in (0, 1, 2)]
    entrants.append(Entrant("reconstruction", 0, model(9), reconstruction=True))
    keeping = replace(judge, kept=ProbeCache(tmp_path / "probes"))
    with pytest.raises(KeyboardInterrupt):
        judge_all(keeping, entrants, Counted(stop_after=30))
    kept = set((tmp_path / "probes").iterdir())
    assert len(kept) >= 26
    fitted = []

    def counting(*arguments: Any, **options: Any) -> LinearProbe:
        fitted.append(1)
        return fit_probe(*arguments, **options)

    monkeypatch.setattr(keystep.evals.judge, "fit_probe", counting)
    again = judge_all(replace(keeping), entrants)
    assert len(fitted) + len(kept) == len(set((tmp_path / "probes").iterdir()))
    assert [row.to_json() for row in again.rows] == [row.to_json() for row in evaluation.rows]
    fitted.clear()
    broken = next(iter(kept))
    broken.write_bytes(broken.read_bytes()[:100])
    judge_all(replace(keeping), entrants)
    assert len(fitted) == 1, "only what was cut off is fitted again"
    judge_all(replace(keeping, probe=ProbeConfig(penalties=(0.5,))), [])
    assert len(fitted) > 1, "other settings find nothing"


def test_groups_are_drawn_as_one(judge: Judge) -> None:
    rest = judge.split.test[1:]
    grouped = replace(judge, groups=dict.fromkeys(rest, "one person"))
    plain, found = (judge_all(each, [Entrant("pjepa", 0, model(0))]) for each in (judge, grouped))
    videos = [{line.difference.videos for line in each.gate} for each in (plain, found)]
    assert videos == [{3}, {2}]
    assert [line.difference.mean for line in plain.gate] == [line.difference.mean for line in found.gate]


def test_one_test_video_gives_a_table_without_a_gate(judge: Judge) -> None:
    single = Judge(judge.folder, replace(judge.split, test=judge.split.test[:1]), PROBE)
    result = judge_all(single, [Entrant("pjepa", 0, model(0))])
    assert result.rows and not result.gate
    assert {pair.row.name for pair in result.pairs} >= {"pjepa", "pjepa ++ moving average"}, "folds may pool them"


def test_test_labels_change_no_choice(judge: Judge, evaluation: Evaluation) -> None:
    """The same evaluation with scrambled test labels picks the same widths and probe settings."""
    scrambled = Judge(judge.folder, judge.split, PROBE)
    rng = np.random.default_rng(1)
    scrambled.__dict__["truths"] = {name: rng.permutation(truth) for name, truth in judge.truths.items()}
    other = judge_all(scrambled, [Entrant("pjepa", 0, model(0))])
    for row in other.rows:
        if row.name.endswith(BEST_ON_TEST):  # a rival that the test videos name, against the learned rows
            continue
        known = evaluation.find(row.name, row.mode)
        assert known and known.detail == row.detail
        first, second = known.runs[0], row.runs[0]
        assert first.probe.penalty == second.probe.penalty
        assert first.valid_accuracy == second.valid_accuracy


def test_scores_are_computed_at_the_labels_own_rate(judge: Judge, evaluation: Evaluation) -> None:
    row = evaluation.find("raw features", "causal")
    assert row is not None
    run = row.runs[0]
    by_hand = right = 0
    for name in judge.split.test:
        truth = judge.folder.frame_labels(name)
        held = np.repeat(run.predictions[name], 2)[: len(truth)]
        right += int((held == truth).sum())
        by_hand += len(truth)
    assert run.scores["accuracy"] == pytest.approx(100 * right / by_hand)


def test_a_result_round_trips_and_says_where_it_comes_from(evaluation: Evaluation, tmp_path: Path) -> None:
    Results.of(evaluation).save(tmp_path / "result")
    record, pictures, curves = load_result(tmp_path / "result")
    assert record["data"]["fingerprint"] == evaluation.judge.folder.fingerprint()
    assert record["command"] and record["software"]["torch"] and record["data"]["rate_hz"] == 2.0
    clock = record["protocol"]["clock"]
    assert clock["tau"] == evaluation.judge.time_scale.tau and clock["low"] <= clock["tau"] <= clock["high"]
    assert clock["stated"] is False and record["data"]["leaks"] == []
    assert [line["verdict"] for line in record["gate"]] == [line.verdict for line in evaluation.gate]
    assert len(record["rows"]) == len(evaluation.rows) and curves == {}
    assert sorted(pictures["names"]) == sorted(evaluation.judge.split.test)[:3]
    with pytest.raises(InputError, match=r"no result\.json"):
        load_result(tmp_path)


def test_smoothing_that_validation_chose_badly_is_no_easy_rival(tmp_path: Path) -> None:
    """Raw features are right on fast test videos, where averages fail; validation is slow and chose an average."""
    rng = np.random.default_rng(0)
    root, lengths = tmp_path / "data", 240
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 early\n1 late\n")
    names = [f"v{index}" for index in range(9)]
    for index, name in enumerate(names):
        slow = index == 4
        labels = (np.arange(lengths) // (80 if slow else 1 + index % 2)) % 2
        noise = 2.5 if slow else 0.25  # the slow one needs an average, the others are lost by one
        features = rng.normal(size=(lengths, 4)) * noise + 2 * labels[:, None] - 1
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(("early", "late")[label] for label in labels))
    for part, chosen in (("train", names[:4]), ("valid", names[4:5]), ("test", names[5:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("\n".join(f"{name}.txt" for name in chosen))
    folder = open_dataset(root, source_rate=parse_rate(4), rate=parse_rate(4))
    study = Study(Judge(folder, folder.split("1"), PROBE, tau=1.0))
    study.add("raw features", "raw", "causal", study.raw, key="raw")
    for mode in ("offline", "causal"):
        judge_simple(study, mode)
        for seed in (0, 1, 2):
            study.add("pjepa", "learned", mode, study.raw, key="raw", seed=seed)
    found = study.evaluation
    compare(found, ("offline", "causal"))
    (raw,) = (row for row in found.rows if row.family == "raw")
    for mode in ("offline", "causal"):
        chosen = found.find("moving average", mode)
        assert chosen and chosen.mean("accuracy") < raw.mean("accuracy") - 10, "the easy rival that validation chose"
        (line,) = (line for line in found.gate if line.mode == mode and line.question == "control")
        assert line.second != "moving average" and line.difference.mean < 5 and not line.holds


def test_the_rival_of_the_gate_is_the_strongest_on_the_test_videos(evaluation: Evaluation) -> None:
    for line in evaluation.gate:
        if line.question not in ("control", "adds", "adds to smoothing"):
            continue
        kinds = ("raw", "control")
        rivals = [
            row for row in evaluation.rows if row.family in kinds and (row.mode == line.mode or row.family == "raw")
        ]
        if line.question == "adds to smoothing":
            rivals = [row for row in rivals if row.name.startswith("moving average") or row.family == "raw"]
        best = max(row.correct.sum(axis=1).mean() for row in rivals)
        assert best in [row.correct.sum(axis=1).mean() for row in rivals if row.name == line.second]
