"""Action-pool: an attentive pooler trained with the action labels of single slots, whose classifier is then dropped.

The paper's variant for V-JEPA's patches. It makes strong features, and labels went into them: what is pooled so says
it in its provenance, with the videos whose labels were read, and every table made of it can say so.
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
"""Neighbouring slots read at once: a batch is made of such pieces from anywhere, so that reading is no bottleneck."""
SLOTS = 512
"""Slots pooled at once when no gradients are wanted."""


class ActionPoolConfig(Config):
    """How the pooler looks and how it is trained."""

    dim: int | None = Field(default=None, ge=8, le=MOST_WIDTH)
    """Width of the pooled features; None: that of a token."""
    heads: int = Field(default=4, ge=1, le=MOST_WIDTH)
    depth: int = Field(default=1, ge=0, le=MOST_BLOCKS)
    """Blocks in which the tokens of a slot see each other before they are pooled."""
    steps: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    """Pieces of 16 neighbouring slots a step."""
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.04, ge=0)
    looks: int = Field(default=10, ge=1)
    """How often validation videos are looked at; the best is kept."""
    seed: int = Field(default=0, ge=0)


class ActionPooler(nn.Module):
    """Tokens standardised channel by channel, mapped to ``dim`` and pooled; slot by slot, so nothing looks ahead."""

    def __init__(self, token_width: int, tokens: int, config: ActionPoolConfig) -> None:
        super().__init__()
        dim = config.dim or token_width
        if dim % config.heads or dim // config.heads < 8:
            raise InputError(f"dim {dim} cannot be shared by {config.heads} heads of at least 8 numbers each")
        self.token_width, self.tokens, self.dim, self.config = token_width, tokens, dim, config
        self.norm = ChannelNorm(token_width)
        self.map = nn.Linear(token_width, dim)
        self.pooler = AttentivePooler(dim, tokens, config.heads, config.depth)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, N x D_token) -> (B, T, dim)"""
        out: Tensor = self.pooler(self.map(self.norm(split_tokens(features, self.tokens))))
        return out

    @torch.no_grad()
    def pool(self, features: np.ndarray) -> np.ndarray:
        """(T, N x D_token) -> (T, dim) float32, a few hundred slots at a time."""
        device = self.map.weight.device
        parts = [
            self(torch.from_numpy(features[start : start + SLOTS])[None].to(device))[0].cpu().numpy()
            for start in range(0, len(features), SLOTS)
        ]
        pooled: np.ndarray = np.concatenate(parts)
        return pooled


class _Saved(Record):
    """What ``config.json`` holds of a pooler."""

    token_width: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    tokens: Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    config: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A trained pooler and where it comes from. origin: texts and numbers for provenance, JSON through and through."""

    pooler: ActionPooler
    origin: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``pooler.safetensors``, whole or not at all."""
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
        """The pooler in a folder, on the CPU.

        Raises:
            InputError: no pooler, another format, or weights that do not fit.
        """
        record = read_json(folder / CONFIG)
        if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
            raise InputError(f"{folder / CONFIG}: not a pooler that this keystep reads ({FORMAT} {FORMAT_VERSION})")
        found = checked(_Saved, record, str(folder / CONFIG))
        config = build(ActionPoolConfig, found.config)
        check_size(lambda: ActionPooler(found.token_width, found.tokens, config), folder / WEIGHTS)
        pooler = ActionPooler(found.token_width, found.tokens, config)
        load_strict(pooler, load_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
        return cls(pooler.eval(), found.origin)


def origin_of(folder: FeatureFolder, split: Split) -> dict[str, Any]:
    """What says later which labels made a pooler."""
    return {
        "labels": f"pooled by what learned from the labels of split {split.name}'s {len(split.train)} training videos",
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
    """Train on the labelled slots of the training videos; keep what is best on the validation videos' (the first of
    equals). Test videos are not opened.

    Args:
        progress: reports the steps.

    Raises:
        InputError: one token a slot, no classes, no labelled slot in a part, heads that do not fit, bad features.
    """
    config = config or ActionPoolConfig()
    if folder.tokens < 2:
        raise InputError(f"{folder.root}: one token a slot; there is nothing to pool")
    if not folder.classes:
        raise InputError(f"{folder.root}: no mapping.txt; an action-pool is trained with labels")
    labels = {name: folder.labels(name) for name in (*split.train, *split.valid)}
    for part in ("train", "valid"):
        if not any((labels[name] != IGNORED).any() for name in split.part(part)):
            raise InputError(f"{folder.root}: no labelled slot in the {part} videos of split {split.name}")
    statistics, _ = measure(folder, split.train, config.seed, tokens=folder.tokens)
    model = _fresh(folder, statistics, config).to(device)
    schedule = TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=min(100, config.steps // 10),
    )
    optimizer = build_optimizer(model, schedule)
    looks = {round(config.steps * (look + 1) / config.looks) for look in range(config.looks)}
    best, best_weights, skips = -1.0, model.state_dict(), Skips()
    with progress.task("action-pool", total=config.steps, unit="steps") as task:
        for step, (features, wanted) in enumerate(_batches(folder, split.train, labels, config)):
            loss = functional.cross_entropy(model(features[None].to(device))[0], wanted.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            for group in optimizer.param_groups:
                group["lr"] = schedules.learning_rate(step, schedule)
            skips.step(optimizer, bool(loss.isfinite() & norm.isfinite()))
            skips.check(f"step {step + 1}", "lower learning_rate")
            if step + 1 in looks:
                accuracy = _accuracy(model, folder, split.valid, labels)
                if accuracy > best:
                    best = accuracy
                    best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            task.advance(note=f"loss {loss.item():.3f}, best on validation {max(best, 0):.1f} %")
    model.load_state_dict(best_weights)
    return Fitted(_pooler(model).eval(), {**origin_of(folder, split), "validation_accuracy": round(best, 2)})


def _fresh(folder: FeatureFolder, statistics: Statistics, config: ActionPoolConfig) -> nn.Sequential:
    """The pooler and the classifier that is dropped later; depends on the seed, the widths and the config only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        pooler = ActionPooler(folder.width // folder.tokens, folder.tokens, config)
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
    """Features (S, D_in) and classes (S,) of each step: labelled slots of pieces, one shuffled pass after another."""
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
    """Percent of the videos' labelled slots that the classifier gets right."""
    right = total = 0
    device = next(model.parameters()).device
    for name in videos:
        pooled = _pooler(model).pool(folder.features(name))
        guessed = model[1](torch.from_numpy(pooled).to(device)).argmax(-1).cpu().numpy()
        known = labels[name] != IGNORED
        right += int((guessed == labels[name])[known].sum())
        total += int(known.sum())
    return 100 * right / total
