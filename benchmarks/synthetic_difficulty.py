"""How hard are the made-up sets? Frame accuracy of all that learns nothing, read linearly, and of labels.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_difficulty.py --seeds 5 --out benchmarks/results/synthetic

Each seed is a new world with new videos. Spans are in units of tau, the decorrelation time of the features. Every
control is read by the product's linear probe (penalties chosen on validation videos, as is the width of the averages);
``supervised`` is a dilated temporal convolution (`keystep.heads`) trained with the same labels, its epoch chosen on the
validation videos. ``alike`` is the share of frames whose look several classes share, and ``state`` how often, where
such a frame is taken for one of them, it is for the right one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from keystep.data.clock import decorrelation_time
from keystep.data.synthetic import GENERATOR_VERSION, SyntheticConfig, all_steps, class_names, make_video, make_world
from keystep.evals import controls
from keystep.evals.probe import LinearProbe, fit_probe
from keystep.heads.config import TrainingConfig, head_config
from keystep.heads.training import train_head

COMPONENTS = 24
"""Principal components in the place of channels wherever several spans stand side by side."""
WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 24.0)
"""Widths of the moving averages, in tau; one frame beside them."""
OFFSETS = (0.9, 1.8, 3.6, 7.2, 14.4, 24.0)
"""Distances of the averaged offsets, in tau; each is averaged over half its distance."""
HALF_LIVES = tuple(2.0**k for k in range(-1, 7))
"""Half-lives of the exponential averages, in tau."""
SEEN = 2.0
"""Deviations from the mean after which something counts as seen in a channel."""
NET = {"refinements": 0, "layers": 9, "dropout": 0.1}
TRAINING = {"learning_rate": 3e-3, "crop": 256, "selection": "accuracy", "smoothing": 0.0}

EXPLANATION = """Frame accuracy (0-100) on the test videos. Everything but the last two rows is read by the product's
linear probe; the best width of a moving average (three frames at least) and the best form of the offsets are chosen on
the validation videos. state: of the frames that are taken for a class of the right look, where several share it, how
many for the right class. Spans in tau, the decorrelation time of the features.
"""

Frames = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Split = Literal["train", "valid", "test"]
Mode = Literal["offline", "causal"]
Transform = Callable[[Frames], Frames]
"""(T, D) of one video -> (T, D')."""


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


def probed(data: Data, transform: Transform, refine: bool = True) -> LinearProbe:
    parts = {split: [transform(features) for features in data.features(split)] for split in ("train", "valid")}
    return fit_probe(
        parts["train"],
        data.labels("train"),
        parts["valid"],
        data.labels("valid"),
        classes=data.classes,
        refine=refine,
    )


def best_of(data: Data, candidates: Mapping[str, Transform]) -> Score:
    """The candidate that is best on the validation videos, on the test videos."""
    fits = {name: probed(data, each, refine=False).valid_accuracy for name, each in candidates.items()}
    name = max(fits, key=lambda each: fits[each])
    probe = probed(data, candidates[name])
    return score(data, [probe.predict(candidates[name](features)) for features in data.features("test")], name)


def averaged_offsets(features: Frames, frames: Sequence[float], *, causal: bool) -> Frames:
    """The frame, and averages at so many frames before (and after) it, each over half its distance, side by side."""
    sums = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0, dtype=np.float64)])
    now, parts = np.arange(len(features)), [features]
    for distance in [side * each for each in frames for side in ((-1,) if causal else (-1, 1))]:
        width = max(1, round(abs(distance) / 2))
        start = np.clip(now + round(distance) - width // 2, 0, len(features) - 1)
        stop = np.clip(now + round(distance) - width // 2 + width, start + 1, len(features))
        if causal:
            stop = np.minimum(stop, now + 1)
        parts.append(((sums[stop] - sums[start]) / (stop - start)[:, None]).astype(np.float32))
    return np.concatenate(parts, axis=1)


def exponential_averages(features: Frames, half_lives: Sequence[float]) -> Frames:
    """Averages of the frames so far whose weights halve within so many frames, side by side."""
    parts = []
    for half_life in half_lives:
        keep, total, weight, rows = 0.5 ** (1 / half_life), np.zeros(features.shape[1]), 0.0, []
        for frame in features.astype(np.float64):
            total, weight = keep * total + frame, keep * weight + 1
            rows.append(total / weight)
        parts.append(np.array(rows, np.float32))
    return np.concatenate(parts, axis=1)


def log_counts(features: Frames, rate: float) -> Frames:
    """The signed logarithm of the sum since the start, in seconds."""
    sums = np.cumsum(features, axis=0, dtype=np.float64) / rate
    return (np.sign(sums) * np.log1p(np.abs(sums))).astype(np.float32)


def seen_yet(standardised: Frames) -> Frames:
    """Whether a channel was far above, or far below, its mean before."""
    far = np.concatenate([standardised > SEEN, standardised < -SEEN], axis=1)
    return np.maximum.accumulate(far, axis=0).astype(np.float32)


def rows_of(data: Data) -> dict[str, tuple[Mode, Mapping[str, Transform]]]:
    """Row -> mode, and the transforms to choose from."""
    train, rate = data.features("train"), data.config.rate
    tau = decorrelation_time(train, rate).tau * rate  # frames
    stacked = np.concatenate(train)
    mean, deviation = stacked.mean(axis=0), stacked.std(axis=0)
    reduce = controls.FramePCA.fit(train, COMPONENTS).transform
    offsets = [tau * each for each in OFFSETS]

    def averages(features: Frames) -> Frames:
        return exponential_averages(reduce(features), [tau * each for each in HALF_LIVES])

    def counts(features: Frames) -> Frames:
        return log_counts(features - mean, rate)

    def seen(features: Frames) -> Frames:
        return seen_yet((features - mean) / deviation)

    def means(features: Frames) -> Frames:
        return (np.cumsum(features - mean, axis=0) / np.arange(1, len(features) + 1)[:, None]).astype(np.float32)

    def clock(features: Frames) -> Frames:
        return controls.elapsed(len(features), rate)

    def progress(features: Frames) -> Frames:
        return np.concatenate([clock(features), controls.progress(len(features))], axis=1)

    def around(features: Frames) -> Frames:
        return averaged_offsets(controls.centre(reduce(features)), offsets, causal=False)

    def before(features: Frames) -> Frames:
        return averaged_offsets(reduce(features), offsets, causal=True)

    widths = sorted({3, *(max(3, 2 * round((tau * each - 1) / 2) + 1) for each in WIDTHS)})

    def smoothed(width: int, causal: bool) -> Transform:
        base = controls.running_centre if causal else controls.centre
        return lambda features: controls.moving_average(base(features), width, causal=causal)

    history = {
        "seen yet": seen,
        "log-counts": counts,
        "means since the start": means,
        "exponential averages": averages,
        "past averaged offsets": before,
    }

    def beside(*parts: Transform) -> Transform:
        return lambda features: np.concatenate([part(features) for part in parts], axis=1)

    raw = controls.plain_controls()[0].transform
    past = beside(raw, clock, *history.values())
    alone = {f"{name}, alone": ("causal", {"": each}) for name, each in history.items()}
    with_raw = {f"raw ++ {name}": ("causal", {"": beside(raw, each)}) for name, each in history.items()}
    return {
        "raw": ("causal", {"": raw}),
        "elapsed time": ("causal", {"": clock}),
        "trailing average": ("causal", {f"{width} frames": smoothed(width, True) for width in widths}),
        **alone,
        **with_raw,
        "all causal ones": ("causal", {"": past}),
        "centred": ("offline", {"": controls.centre}),
        "elapsed time and progress": ("offline", {"": progress}),
        "moving average": ("offline", {f"{width} frames": smoothed(width, False) for width in widths}),
        "averaged offsets": (
            "offline",
            {"centred": around, "not centred": lambda x: averaged_offsets(reduce(x), offsets, causal=False)},
        ),
        "all": ("offline", {"": beside(past, progress, around)}),
    }


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


def table(config: SyntheticConfig, epochs: int) -> dict[str, tuple[Mode, Score]]:
    """Row -> mode and score, of one world."""
    data = load(config)
    rows: dict[str, tuple[Mode, Score]] = {}
    for name, (mode, candidates) in rows_of(data).items():
        rows[name] = mode, best_of(data, candidates)
        print(f"seed {config.seed}  {name:34s} {rows[name][1].accuracy:5.1f}", flush=True)
    for mode in ("causal", "offline"):
        rows[f"supervised, {mode}"] = mode, supervised(data, causal=mode == "causal", epochs=epochs)
        print(f"seed {config.seed}  supervised, {mode:22s} {rows[f'supervised, {mode}'][1].accuracy:5.1f}", flush=True)
    return rows


def about(config: SyntheticConfig) -> dict[str, float]:
    """Numbers that describe one world."""
    data = load(config)
    train, test = np.concatenate(data.labels("train")), np.concatenate(data.labels("test"))
    return {
        "tau": decorrelation_time(data.features("train"), config.rate).tau,
        "frames": float(len(train)),
        "alike": 100 * float((data.looks[test] >= 0).mean()),
        "majority": 100 * float((test == np.bincount(train).argmax()).mean()),
    }


def markdown(
    name: str, worlds: Sequence[Mapping[str, float]], tables: Sequence[Mapping[str, tuple[Mode, Score]]]
) -> str:
    """One set's table, every seed shown, and the smallest distances to the supervised model of the same mode."""
    described = ", ".join(f"{key} {np.mean([world[key] for world in worlds]):.3g}" for key in worlds[0])
    lines = [f"## {name}", "", f"Means over seeds: {described}.", ""]
    lines += ["| | | each seed | mean | state | supervised - row, smallest |", "|---|---|---|---|---|---|"]
    for row, (mode, _) in tables[0].items():
        scores = [each[row][1] for each in tables]
        gaps = [each[f"supervised, {mode}"][1].accuracy - each[row][1].accuracy for each in tables]
        states = [score.state for score in scores if score.state is not None]
        state = f"{np.mean(states):.0f}" if states else "-"
        shown = " ".join(f"{score.accuracy:.1f}" for score in scores)
        mean = np.mean([score.accuracy for score in scores])
        lines.append(f"| {row} | {mode} | {shown} | {mean:.1f} | {state} | {min(gaps):.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=("demo", "moment", "standard"), default=["demo", "moment"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60, help="of the supervised model")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = f"python benchmarks/synthetic_difficulty.py --sets {' '.join(arguments.sets)} --seeds {arguments.seeds}"
    command += f" --epochs {arguments.epochs}" + (f" --out {arguments.out}" if arguments.out else "")
    begun, texts, kept = time.process_time(), [], {}
    for name in arguments.sets:
        configs = [getattr(SyntheticConfig, name)(seed) for seed in range(arguments.seeds)]
        worlds = [about(config) for config in configs]
        tables = [table(config, arguments.epochs) for config in configs]
        texts.append(markdown(name, worlds, tables))
        rows = [{row: {"mode": mode, **asdict(each)} for row, (mode, each) in one.items()} for one in tables]
        kept[name] = [
            {"seed": config.seed, "config": config.model_dump(mode="json"), **world, "rows": row}
            for config, world, row in zip(configs, worlds, rows, strict=True)
        ]
    seconds = time.process_time() - begun
    title = f"Version {GENERATOR_VERSION} of the generator; {seconds:.0f} CPU seconds:"
    text = f"# How hard the made-up sets are\n\n{title}\n\n    {command}\n\n{EXPLANATION}\n" + "\n".join(texts)
    print(text)
    if arguments.out:
        arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
        result = {"command": command, "cpu_seconds": seconds, "version": GENERATOR_VERSION, "sets": kept}
        arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
