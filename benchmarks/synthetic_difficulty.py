"""How hard are the made-up sets? Frame accuracy of all that learns nothing, read linearly, and of labels.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_difficulty.py --seeds 5 --out benchmarks/results/synthetic

Each seed is a new world with new videos. The controls are the product's (`keystep.evals.candidates`: spans in tau, the
decorrelation time of the features), and so is the linear probe. ``supervised`` is a dilated temporal convolution
(`keystep.heads`) trained with the same labels, its epoch chosen on the validation videos. Results are written after
each world; worlds that OUT.json has of the same generator and settings are not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from keystep.data.synthetic import GENERATOR_VERSION, SyntheticConfig, all_steps, class_names, make_video, make_world
from keystep.data.time_scale import decorrelation_time
from keystep.evals.candidates import ONE_FRAME, RAW, Candidates
from keystep.evals.controls import Control, side_by_side
from keystep.evals.probe import LinearProbe, fit_probe
from keystep.heads import TrainingConfig, head_config
from keystep.heads.training import train_head
from measure import parser

NET = {"refinements": 0, "layers": 9, "dropout": 0.1}
TRAINING = {"learning_rate": 3e-3, "crop": 256, "selection": "accuracy", "smoothing": 0.0}

EXPLANATION = """Frame accuracy (0-100) on test videos. All rows but the supervised ones are read by the linear probe of
`keystep eval`; the width of a moving average (of more than one frame) and the form of the offsets are chosen on the
validation videos. raw ++: beside the raw frame. state: of the frames that are taken for a class of the right look,
where several share it, how many for the right class. tau: seconds. alike: test frames whose look several classes share.
majority: the most frequent class. Last column: the smallest distance, over seeds, to the supervised model of that mode.
"""

Frames = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Split = Literal["train", "valid", "test"]
Mode = Literal["causal", "offline"]
MODES: tuple[Mode, ...] = ("causal", "offline")


@dataclass(frozen=True)
class Data:
    """The videos of one world: split -> list of (features (T, D), class ids (T,))."""

    config: SyntheticConfig
    videos: dict[Split, list[tuple[Frames, Labels]]]
    looks: npt.NDArray[np.int64]
    """Class id -> number of its look; -1 where no other class shares it."""

    @property
    def classes(self) -> int:
        return len(self.looks)

    def features(self, split: Split) -> list[Frames]:
        return [features for features, _ in self.videos[split]]

    def labels(self, split: Split) -> list[Labels]:
        return [labels for _, labels in self.videos[split]]


@dataclass(frozen=True)
class Score:
    """0-100: frame accuracy on the test videos, and the share of right states among frames of a shared look that are
    taken for that look; None where no looks are shared."""

    accuracy: float
    state: float | None
    detail: str = ""


def load(config: SyntheticConfig) -> Data:
    world, names = make_world(config), class_names(config)
    ids = {name: i for i, name in enumerate(names)}

    def video(index: int) -> tuple[Frames, Labels]:
        features, labels = make_video(config, index, world)
        return features, np.array([ids[name] for name in labels])

    look_of = {step.name: step.look for step in all_steps(config)}
    shared = [look for look in dict.fromkeys(look_of.values()) if list(look_of.values()).count(look) > 1]
    looks = [shared.index(look) if (look := look_of.get(name)) in shared else -1 for name in names]
    return Data(config, {split: [video(i) for i in at] for split, at in config.splits.items()}, np.array(looks))


def score(data: Data, predictions: Sequence[Labels], detail: str = "") -> Score:
    """Of the test videos."""
    truth, found = np.concatenate(data.labels("test")), np.concatenate(predictions)
    look, right = data.looks[truth], truth == found
    alike = (look >= 0) & (look == data.looks[found])
    return Score(100 * float(right.mean()), 100 * float(right[alike].mean()) if alike.any() else None, detail)


def probed(data: Data, control: Control, refine: bool = True) -> LinearProbe:
    parts = {split: [control.transform(features) for features in data.features(split)] for split in ("train", "valid")}
    labels = {split: data.labels(split) for split in ("train", "valid")}
    return fit_probe(
        *(parts["train"], labels["train"], parts["valid"], labels["valid"]), classes=data.classes, refine=refine
    )


def best_of(data: Data, candidates: Sequence[Control]) -> tuple[Control, Score]:
    """The candidate that is best on the validation videos, and its score on the test videos."""
    fits = [probed(data, each, refine=False).valid_accuracy for each in candidates] if len(candidates) > 1 else [0.0]
    control = candidates[int(np.argmax(fits))]
    probe = probed(data, control)
    found = [probe.predict(control.transform(features)) for features in data.features("test")]
    return control, score(data, found, control.name)


def controls_of(data: Data) -> dict[str, tuple[Mode, Score]]:
    """Row -> mode and score of everything that learns nothing."""
    train, rate = data.features("train"), data.config.rate
    candidates = Candidates(train, rate, decorrelation_time(train, rate).tau)
    rows: dict[str, tuple[Mode, Score]] = {"raw": ("causal", best_of(data, [RAW])[1])}
    for mode in MODES:
        causal = mode == "causal"
        averages = [each for each in candidates.smoothing(causal=causal) if not each.name.endswith(ONE_FRAME)]
        smoothing, rows[f"moving average, {mode}"] = _of(mode, best_of(data, averages))
        offsets, rows[f"averaged offsets, {mode}"] = _of(mode, best_of(data, candidates.offsets(causal=causal)))
        for name, control in candidates.histories(causal=causal).items():
            rows[f"{name}, {mode}"] = mode, best_of(data, [control])[1]
            if name != "clock":
                beside = side_by_side(f"raw ++ {name}", {"raw": RAW, name: control})
                rows[f"raw ++ {name}, {mode}"] = mode, best_of(data, [beside])[1]
        together = candidates.together(smoothing, offsets, causal=causal)
        rows[f"all side by side, {mode}"] = mode, best_of(data, [together])[1]
    return rows


def _of(mode: Mode, found: tuple[Control, Score]) -> tuple[Control, tuple[Mode, Score]]:
    return found[0], (mode, found[1])


def supervised(data: Data, *, causal: bool, epochs: int) -> Score:
    """With labels."""
    head = train_head(
        head_config("mstcn-small", {**NET, "causal": causal}),
        data.videos["train"],
        data.videos["valid"],
        classes=data.classes,
        training=TrainingConfig.model_validate({"epochs": epochs, **TRAINING}),
    )
    found = [head.head.predict(torch.from_numpy(features)[None])[0].numpy() for features in data.features("test")]
    return score(data, found, f"epoch {head.record['best_epoch']} of {epochs}")


def world(config: SyntheticConfig, epochs: int) -> dict[str, Any]:
    """All rows of one world, and numbers that describe it."""
    data, begun = load(config), time.process_time()
    train, test = np.concatenate(data.labels("train")), np.concatenate(data.labels("test"))
    rows = controls_of(data)
    for mode in MODES:
        rows[f"supervised, {mode}"] = mode, supervised(data, causal=mode == "causal", epochs=epochs)
    return {
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "epochs": epochs,
        "tau": decorrelation_time(data.features("train"), config.rate).tau,
        "training frames": len(train),
        "alike": 100 * float((data.looks[test] >= 0).mean()),
        "majority": 100 * float((test == np.bincount(train).argmax()).mean()),
        "cpu_seconds": time.process_time() - begun,
        "rows": {name: {"mode": mode, **asdict(each)} for name, (mode, each) in rows.items()},
    }


def markdown(name: str, worlds: Sequence[Mapping[str, Any]]) -> str:
    """One set's table: every seed, and the smallest distance to the supervised model of the same mode."""
    keys = ("tau", "training frames", "alike", "majority", "cpu_seconds")
    means = {key: np.mean([each[key] for each in worlds]) for key in keys}
    lines = [f"## {name}", "", "Means over seeds: " + ", ".join(f"{key} {value:.4g}" for key, value in means.items())]
    lines += ["", "| row | each seed | mean | state | supervised - row |", "|---|---|---|---|---|"]
    for row, first in worlds[0]["rows"].items():
        scores = [each["rows"][row] for each in worlds]
        ceilings = [each["rows"][f"supervised, {first['mode']}"]["accuracy"] for each in worlds]
        gap = min(ceiling - score["accuracy"] for ceiling, score in zip(ceilings, scores, strict=True))
        states = [score["state"] for score in scores if score["state"] is not None]
        state = f"{np.mean(states):.0f}" if len(states) == len(scores) else "-"
        shown = " ".join(f"{score['accuracy']:.1f}" for score in scores)
        mean = np.mean([score["accuracy"] for score in scores])
        lines.append(f"| {row} | {shown} | {mean:.1f} | {state} | {gap:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    found = parser(__doc__)
    found.add_argument("--sets", nargs="+", choices=("demo", "moment", "standard"), default=["demo", "moment"])
    found.add_argument("--seeds", type=int, default=5)
    found.add_argument("--epochs", type=int, default=50, help="of the supervised model")
    found.add_argument("--out", type=Path, required=True, help="write OUT.md and OUT.json")
    arguments = found.parse_args()
    torch.set_num_threads(1)
    command = f"python benchmarks/synthetic_difficulty.py --sets {' '.join(arguments.sets)} --seeds {arguments.seeds}"
    command += f" --epochs {arguments.epochs} --out {arguments.out}"
    path = arguments.out.with_suffix(".json")
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = kept["sets"] if kept.get("version") == GENERATOR_VERSION else {}
    sets: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.sets}
    for seed in range(arguments.seeds):
        for name, worlds in sets.items():
            config = getattr(SyntheticConfig, name)(seed)
            asked = {"config": config.model_dump(mode="json"), "epochs": arguments.epochs}
            same = [each for each in known.get(name, []) if asked.items() <= each.items()]
            worlds.append(same[0] if same else world(config, arguments.epochs))
            write(arguments.out, command, {each: done for each, done in sets.items() if done})


def write(out: Path, command: str, sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """What is done so far, as a table and as JSON."""
    result = {"command": command, "version": GENERATOR_VERSION, "sets": sets}
    title = f"# How hard the made-up sets are\n\nVersion {GENERATOR_VERSION} of the generator.\n\n    {command}\n\n"
    text = title + EXPLANATION + "\n" + "\n".join(markdown(name, worlds) for name, worlds in sets.items())
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    main()
