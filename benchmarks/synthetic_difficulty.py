"""How hard is the synthetic set? Frame accuracy of everything that needs no representation learning, and of labels.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_difficulty.py --seeds 3

Each seed is a new world with new videos. The rows up to ``progress`` are linear probes on what position and
smoothing give; ``segment mean`` uses the true boundaries (ORACLE); ``supervised`` is a dilated temporal convolution
trained with labels. Widths and the supervised epoch are chosen on the validation split. ``look-alikes`` counts
only frames of classes whose look another class shares.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from keystep.data.synthetic import SyntheticConfig, all_steps, class_names, make_video, make_world

WIDTHS_SECONDS = (1.25, 2.25, 4.25, 8.25)
"""Widths of the moving average that compete; the best on validation is reported."""

Array = NDArray[np.float32]
Predictions = NDArray[np.int64]
"""Class ids of all frames of a split, one video after the other."""
MOST_FRAMES = 60_000
"""A probe is fitted on every n-th training frame, so that it sees no more than these."""
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Sample:
    """One video as the probes see it."""

    raw: Array
    """(T, D)."""
    labels: NDArray[np.int64]
    """(T,) class ids."""

    @property
    def centred(self) -> Array:
        centred: Array = self.raw - self.raw.mean(axis=0)
        return centred


Videos = dict[Split, list[Sample]]
Score = tuple[float, float]
"""Frame accuracy over all frames and over look-alikes, 0-100."""


def load(config: SyntheticConfig) -> Videos:
    world, names = make_world(config), class_names(config)
    ids = {name: i for i, name in enumerate(names)}

    def sample(index: int) -> Sample:
        features, labels = make_video(config, index, world)
        return Sample(features, np.array([ids[name] for name in labels]))

    return {split: [sample(index) for index in config.splits[split]] for split in SPLITS}


def look_alikes(config: SyntheticConfig) -> NDArray[np.int64]:
    """Ids of the classes whose look is shared."""
    looks = [step.look for step in all_steps(config)]
    names = class_names(config)
    return np.array([names.index(s.name) for s in all_steps(config) if looks.count(s.look) > 1])


def moving_average(values: Array, width: int) -> Array:
    """Centred mean over ``width`` frames, over fewer at the ends; (T, D) -> (T, D)."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    now = np.arange(len(values))
    start = np.maximum(now - width // 2, 0)
    stop = np.minimum(now + width // 2 + 1, len(values))
    averaged: Array = ((total[stop] - total[start]) / (stop - start)[:, None]).astype(np.float32)
    return averaged


def segment_mean(sample: Sample) -> Array:
    """ORACLE: every frame replaced by the mean over its true segment."""
    starts = np.flatnonzero(np.diff(sample.labels, prepend=-1))
    stops = [*starts[1:], len(sample.labels)]
    result = np.empty_like(sample.raw)
    for start, stop in zip(starts, stops, strict=True):
        result[start:stop] = sample.centred[start:stop].mean(axis=0)
    return result


def position(frames: int, length: float) -> Array:
    """(T, 6): smooth functions of the position, so that a linear probe can follow any slow change of the classes."""
    at = (np.arange(frames) / length)[:, None]
    return np.concatenate([at, at**2, *(np.cos(np.pi * k * at) for k in range(1, 5))], axis=1).astype(np.float32)


def linear_probe(videos: Videos, inputs: Callable[[Sample], Array], classes: int) -> dict[Split, Predictions]:
    """Softmax regression on standardised inputs; predictions (all frames of the split) for valid and test."""
    stacked = {split: np.concatenate([inputs(s) for s in videos[split]]) for split in SPLITS}
    mean, scale = stacked["train"].mean(axis=0), stacked["train"].std(axis=0) + 1e-6
    tensors = {split: torch.from_numpy((values - mean) / scale).float() for split, values in stacked.items()}
    thin = -(-len(stacked["train"]) // MOST_FRAMES)
    features, target = tensors["train"][::thin], torch.from_numpy(truth(videos["train"]))[::thin]
    torch.manual_seed(0)
    layer = nn.Linear(stacked["train"].shape[1], classes)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(layer(features), target) + 1e-3 * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return {split: layer(tensors[split]).argmax(dim=1).numpy() for split in SPLITS}


def truth(sequences: Sequence[Sample]) -> Predictions:
    return np.concatenate([s.labels for s in sequences])


class DilatedNet(nn.Module):
    """Residual dilated convolutions over time; (B, D, T) -> (B, classes, T). Sees 2 ** layers frames either way."""

    def __init__(self, width_in: int, classes: int, *, width: int = 64, layers: int = 9) -> None:
        super().__init__()
        self.enter = nn.Conv1d(width_in, width, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**layer, dilation=2**layer) for layer in range(layers)
        )
        self.pointwise = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.leave = nn.Conv1d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.enter(F.dropout(features, 0.2, self.training))
        for dilated, pointwise in zip(self.dilated, self.pointwise, strict=True):
            hidden = hidden + F.dropout(pointwise(F.relu(dilated(hidden))), 0.3, self.training)
        return self.leave(hidden)  # type: ignore[no-any-return]


def supervised(videos: Videos, classes: int, *, epochs: int = 100, every: int = 1) -> dict[Split, Predictions]:
    """Train with labels; predictions of the epoch that is best on validation. ``every`` thins the frames."""
    torch.manual_seed(0)
    inputs = {
        split: [torch.from_numpy(moving_average(s.centred, every)[::every]).T for s in videos[split]]
        for split in SPLITS
    }
    scale = torch.cat(inputs["train"], dim=1).std()
    net = DilatedNet(videos["train"][0].raw.shape[1], classes)
    steps = epochs * -(-len(inputs["train"]) // 4)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    best, chosen = -1.0, {}
    for epoch in range(epochs):
        net.train()
        for batch in torch.randperm(len(inputs["train"])).tensor_split(steps // epochs):
            features = nn.utils.rnn.pad_sequence([inputs["train"][i].T for i in batch], batch_first=True)
            target = nn.utils.rnn.pad_sequence(
                [torch.from_numpy(videos["train"][i].labels[::every]) for i in batch],
                batch_first=True,
                padding_value=-100,
            )
            loss = F.cross_entropy(net(features.transpose(1, 2) / scale), target)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        if epoch % 5 == 4 or epoch == epochs - 1:
            found = _predict(net, inputs, scale, videos, every)
            accuracy = float((found["valid"] == truth(videos["valid"])).mean())
            if accuracy > best:
                best, chosen = accuracy, found
    return chosen


def _predict(
    net: nn.Module, inputs: dict[Split, list[Tensor]], scale: Tensor, videos: Videos, every: int
) -> dict[Split, Predictions]:
    net.eval()
    with torch.no_grad():
        return {
            split: np.concatenate(
                [
                    net(x[None] / scale)[0].argmax(dim=0).numpy().repeat(every)[: len(s.labels)]
                    for x, s in zip(inputs[split], videos[split], strict=True)
                ]
            )
            for split in SPLITS
        }


def controls(config: SyntheticConfig, videos: Videos) -> dict[str, dict[Split, Predictions]]:
    """Predictions of every control."""
    classes = len(class_names(config))

    def probe(inputs: Callable[[Sample], Array]) -> dict[Split, Predictions]:
        return linear_probe(videos, inputs, classes)

    def accuracy(found: dict[Split, Predictions]) -> float:
        return float((found["valid"] == truth(videos["valid"])).mean())

    longest = max(len(s.labels) for s in videos["train"])
    extras: dict[str, Callable[[int], Array]] = {
        "moving average": lambda frames: np.empty((frames, 0), np.float32),
        "moving average + elapsed": lambda frames: position(frames, longest),
        "moving average + progress": lambda frames: position(frames, frames),
    }
    rows = {"raw": probe(lambda s: s.raw), "centred": probe(lambda s: s.centred)}
    for name, extra in extras.items():
        candidates = []
        for seconds in WIDTHS_SECONDS:
            width = round(seconds * config.rate) // 2 * 2 + 1

            def inputs(s: Sample, width: int = width, extra: Callable[[int], Array] = extra) -> Array:
                return np.concatenate([moving_average(s.centred, width), extra(len(s.labels))], axis=1)

            candidates.append(probe(inputs))
        rows[name] = max(candidates, key=accuracy)
    rows["segment mean (ORACLE)"] = probe(segment_mean)
    return rows


def table(config: SyntheticConfig, *, epochs: int, every: int) -> dict[str, Score]:
    """Row -> accuracy on the test split over all frames and over look-alikes."""
    videos = load(config)
    classes = len(class_names(config))
    labels = truth(videos["test"])
    majority = np.full_like(labels, np.bincount(truth(videos["train"])).argmax())
    rows: dict[str, dict[Split, Predictions]] = {"majority": {"test": majority}, **controls(config, videos)}
    rows["supervised"] = supervised(videos, classes, epochs=epochs, every=every)
    alike = np.isin(labels, look_alikes(config))
    return {
        name: (
            100 * float((found["test"] == labels).mean()),
            100 * float((found["test"] == labels)[alike].mean()),
        )
        for name, found in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("demo", "standard"), default="demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--every", type=int, default=1, help="the supervised net sees every n-th smoothed frame")
    arguments = parser.parse_args()
    preset = SyntheticConfig.demo if arguments.preset == "demo" else SyntheticConfig.standard
    results = [table(preset(seed), epochs=arguments.epochs, every=arguments.every) for seed in range(arguments.seeds)]
    print("| input | frame accuracy, each seed | mean | look-alikes, mean |\n|---|---|---|---|")
    for name in results[0]:
        each = [result[name][0] for result in results]
        alike = np.mean([result[name][1] for result in results])
        print(f"| {name} | {' '.join(f'{a:.1f}' for a in each)} | {np.mean(each):.1f} | {alike:.1f} |")


if __name__ == "__main__":
    main()
