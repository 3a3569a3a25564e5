"""Action pooling: an attentive pooler trained with the action labels of single slots, without its classifier.

The paper's variant for the patches of V-JEPA. Its features are strong because labels went into them, so their
provenance lists the videos whose labels were used, and every table repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from keystep import schedules
from keystep.config import Config, TrainConfig
from keystep.config.base import build
from keystep.config.model import MOST_BLOCKS, MOST_INPUTS, MOST_WIDTH
from keystep.data.annotation import IGNORED, Split
from keystep.data.folder import FeatureFolder
from keystep.data.statistics import Statistics, measure
from keystep.errors import InputError
from keystep.files import replacing, write_json
from keystep.nn.norm import ChannelNorm
from keystep.nn.pooling import AttentivePooler, split_tokens
from keystep.persistence import check_size, load_strict, load_tensors, save_tensors
from keystep.progress import SILENT, Progress
from keystep.reading import Record, checked, read_json
from keystep.target import channel_norm
from keystep.train.skips import Skips
from keystep.train.step import build_optimizer

CONFIG, WEIGHTS = "config.json", "pooler.safetensors"
FORMAT, FORMAT_VERSION = "keystep-pooler", 1
PIECE = 16
"""Adjacent slots read at once: a batch consists of such pieces, so that reading is not a bottleneck."""
SLOTS = 512
"""Slots pooled at once without gradients."""


class ActionPoolConfig(Config):
    """Architecture and training of the pooler."""

    dim: int | None = Field(default=None, ge=8, le=MOST_WIDTH)
    """Width of the pooled features; None: the width of a token."""
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    """Attention heads."""
    depth: int = Field(default=1, ge=0, le=MOST_BLOCKS)
    """Self-attention blocks over the tokens of a slot before pooling."""
    steps: int = Field(default=2000, ge=1)
    """Training steps."""
    batch_size: int = Field(default=16, ge=1)
    """Pieces of 16 adjacent slots per step."""
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.04, ge=0)
    looks: int = Field(default=10, ge=1)
    """Number of evaluations on the validation videos; the best weights are kept."""
    seed: int = Field(default=0, ge=0)


class ActionPooler(nn.Module):
    """Standardise each channel of the tokens, project them to ``dim`` and pool them. Slots are independent.

    Args:
        token_width: D_token, width of a token.
        tokens: N, tokens per slot.
        config: architecture.

    Raises:
        InputError: ``dim`` is not divisible by the heads, or too small for them.
    """

    def __init__(self, token_width: int, tokens: int, config: ActionPoolConfig) -> None:
        super().__init__()
        dim = config.dim or token_width
        if dim % config.heads or dim // config.heads < 8:
            raise InputError(f"dim {dim} must be a multiple of the {config.heads} heads, with at least 8 channels each")
        self.token_width, self.tokens, self.dim, self.config = token_width, tokens, dim, config
        self.norm = ChannelNorm(token_width)
        self.map = nn.Linear(token_width, dim)
        self.pooler = AttentivePooler(dim, tokens, config.heads, config.depth)

    def forward(self, features: Tensor) -> Tensor:
        """Pool features: (B, T, N * D_token) -> (B, T, dim)."""
        out: Tensor = self.pooler(self.map(self.norm(split_tokens(features, self.token_width))))
        return out

    @torch.no_grad()
    def pool(self, features: np.ndarray) -> np.ndarray:
        """Pool a video without gradients, in pieces: (T, N * D_token) -> (T, dim) float32."""
        device = self.map.weight.device
        parts = [
            self(torch.from_numpy(features[start : start + SLOTS])[None].to(device))[0].cpu().numpy()
            for start in range(0, len(features), SLOTS)
        ]
        pooled: np.ndarray = np.concatenate(parts)
        return pooled


class _Saved(Record):
    """Contents of a pooler's ``config.json``."""

    token_width: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    tokens: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    config: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A trained pooler.

    Attributes:
        pooler: the network.
        origin: JSON values for the provenance of its features.
    """

    pooler: ActionPooler
    origin: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``pooler.safetensors`` atomically."""
        pooler = self.pooler
        record = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "token_width": pooler.token_width,
            "tokens": pooler.tokens,
            "config": pooler.config.model_dump(mode="json"),
            "origin": dict(self.origin),
        }
        with replacing(folder, (CONFIG, WEIGHTS)) as temporary:
            write_json(temporary / CONFIG, record)
            save_tensors(temporary / WEIGHTS, pooler.state_dict())

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Load a pooler on the CPU.

        Raises:
            InputError: no pooler, another format, or weights that do not fit.
        """
        record = read_json(folder / CONFIG)
        if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
            raise InputError(f"{folder / CONFIG}: not a pooler for this version of keystep ({FORMAT} {FORMAT_VERSION})")
        found = checked(_Saved, record, str(folder / CONFIG))
        config = build(ActionPoolConfig, found.config)
        check_size(lambda: ActionPooler(found.token_width, found.tokens, config), folder / WEIGHTS)
        pooler = ActionPooler(found.token_width, found.tokens, config)
        load_strict(pooler, load_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
        return cls(pooler.eval(), found.origin)


def describe_origin(folder: FeatureFolder, split: Split) -> dict[str, Any]:
    """Describe the labels that a pooler is trained on, as JSON values."""
    return {
        "labels": f"pooler trained on the labels of the {len(split.train)} training videos of split {split.name}",
        "labelled_videos": sorted((*split.train, *split.valid)),
        "features": folder.fingerprint(),
    }


def fit_action_pool(
    folder: FeatureFolder,
    split: Split,
    config: ActionPoolConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Fitted:
    """Train action pooling on the labelled slots of the training videos. Test videos are not opened.

    The weights with the best accuracy on the validation videos are kept (the earliest of equals).

    Args:
        folder: features with several tokens per slot, and labels.
        split: training and validation videos.
        config: architecture and training.
        device: to train on.
        progress: reports the steps.

    Raises:
        InputError: one token per slot, no classes, no labelled slot in a part, an invalid number of heads, or damaged
            features.
    """
    config = config or ActionPoolConfig()
    if folder.tokens < 2:
        raise InputError(f"{folder.root}: one token per slot; there is nothing to pool")
    if not folder.classes:
        raise InputError(f"{folder.root}: no mapping.txt; action pooling needs labels")
    labels = {name: folder.labels(name) for name in (*split.train, *split.valid)}
    for part in ("train", "valid"):
        if not any((labels[name] != IGNORED).any() for name in split.part(part)):
            raise InputError(f"{folder.root}: no labelled slot in the {part} videos of split {split.name}")
    statistics, _ = measure(folder, split.train, config.seed)
    model = _initialise(folder, statistics, config).to(device)
    schedule = TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=min(100, config.steps // 10),
    )
    optimizer = build_optimizer(model, schedule)
    evaluations = {round(config.steps * (index + 1) / config.looks) for index in range(config.looks)}
    best, best_weights, skips = -1.0, model.state_dict(), Skips()
    with progress.task("action pooling", total=config.steps, unit="steps") as task:
        for step, (features, wanted) in enumerate(_batches(folder, split.train, labels, config)):
            loss = functional.cross_entropy(model(features[None].to(device))[0], wanted.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            for group in optimizer.param_groups:
                group["lr"] = schedules.learning_rate(step, schedule)
            skips.step(optimizer, bool(loss.isfinite() & norm.isfinite()))
            skips.check(f"step {step + 1}", "lower learning_rate")
            if step + 1 in evaluations:
                accuracy = _accuracy(model, folder, split.valid, labels)
                if accuracy > best:
                    best = accuracy
                    best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            task.advance(note=f"loss {loss.item():.3f}, best validation accuracy {max(best, 0):.1f} %")
    model.load_state_dict(best_weights)
    return Fitted(_pooler(model).eval(), {**describe_origin(folder, split), "validation_accuracy": round(best, 2)})


def _initialise(folder: FeatureFolder, statistics: Statistics, config: ActionPoolConfig) -> nn.Sequential:
    """Initialise the pooler and its classifier, depending only on the seed, the widths and the config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        pooler = ActionPooler(folder.token_width, folder.tokens, config)
        classifier = nn.Sequential(nn.LayerNorm(pooler.dim), nn.Linear(pooler.dim, len(folder.classes)))
    pooler.norm = channel_norm(statistics)
    return nn.Sequential(pooler, classifier)


def _pooler(model: nn.Sequential) -> ActionPooler:
    pooler = model[0]
    assert isinstance(pooler, ActionPooler)
    return pooler


def _batches(
    folder: FeatureFolder, videos: Sequence[str], labels: Mapping[str, np.ndarray], config: ActionPoolConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features (S, D_in) and classes (S,) of each step: labelled slots of pieces, in shuffled epochs."""
    pieces = [
        (name, start)
        for name in videos
        for start in range(0, len(labels[name]), PIECE)
        if (labels[name][start : start + PIECE] != IGNORED).any()
    ]
    rng = np.random.default_rng((config.seed, 1))
    order: list[int] = []
    for _ in range(config.steps):
        while len(order) < config.batch_size:
            order += rng.permutation(len(pieces)).tolist()
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        features, wanted = [], []
        for name, start in (pieces[index] for index in chosen):
            ids = labels[name][start : start + PIECE]
            features.append(folder.features(name, start, start + len(ids))[ids != IGNORED])
            wanted.append(ids[ids != IGNORED])
        yield torch.from_numpy(np.concatenate(features)), torch.from_numpy(np.concatenate(wanted))


@torch.no_grad()
def _accuracy(
    model: nn.Sequential, folder: FeatureFolder, videos: Sequence[str], labels: Mapping[str, np.ndarray]
) -> float:
    """Accuracy of the classifier on the labelled slots of videos, in percent."""
    right = total = 0
    device = next(model.parameters()).device
    for name in videos:
        pooled = _pooler(model).pool(folder.features(name))
        guessed = model[1](torch.from_numpy(pooled).to(device)).argmax(-1).cpu().numpy()
        known = labels[name] != IGNORED
        right += int((guessed == labels[name])[known].sum())
        total += int(known.sum())
    return 100 * right / total
