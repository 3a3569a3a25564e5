"""`pool`: one vector a slot of features with several tokens a slot, by their mean or by an action-pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.config.base import build
from keystep.data.annotation import Split
from keystep.data.folder import FeatureFolder
from keystep.data.store import FeatureStore, labels_record
from keystep.errors import InputError
from keystep.extraction.action_pool import CONFIG, ActionPoolConfig, Fitted, fit_action_pool, origin_of
from keystep.locking import owning
from keystep.nn.pooling import mean_token
from keystep.progress import SILENT, Progress

POOLER = "pooler"
"""Folder inside the output where what was learned is kept."""


@dataclass(frozen=True)
class Pooled:
    """A folder of pooled features that `pool` wrote.

    Attributes:
        root: the folder; `keystep.open_dataset` reads it.
        videos: names of the videos in it.
        skipped: name of each video that was left out -> why.
        warnings: lines about what deserves a look.
        tokens: tokens a slot that were pooled.
        labels: which labels the pooling was learned from; empty where none.
    """

    root: Path
    videos: tuple[str, ...]
    skipped: dict[str, str]
    warnings: tuple[str, ...]
    tokens: int
    labels: str = ""

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"Pooled({str(self.root)!r}, {len(self.videos)} videos{skipped})"


def _check(mean: bool, labels: bool, pooler: Path | str | None, split: str | None, settings: object) -> None:
    """Refuse anything but one way to pool, and settings of another."""
    if mean + labels + (pooler is not None) != 1:
        raise InputError("how to pool? give one of --mean, --labels and --pooler DIR")
    if labels != (split is not None):
        raise InputError("--labels needs --split K, whose training videos it learns from; nothing else does")
    if settings and not labels:
        raise InputError("--set is for what --labels trains; leave it out")


def pool(
    folder: FeatureFolder,
    *,
    out: Path | str,
    mean: bool = False,
    labels: bool = False,
    pooler: Path | str | None = None,
    split: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tokens: int | None = None,
    half: bool = False,
    progress: Progress = SILENT,
) -> Pooled:
    """Pool what is not there yet, in one of three ways; the folder is complete and consistent after every video.

    Args:
        folder: features with several tokens a slot.
        out: the feature folder to write. Videos that are there already are not done again.
        mean: take the mean of a slot's tokens.
        labels: learn an action-pool from the labels of the training videos of ``split``; it is kept in ``out/pooler``.
        pooler: use what an earlier ``labels=True`` has learned.
        settings: of `ActionPoolConfig`, with ``labels``.
        tokens: tokens a slot, where the folder does not say so.
        half: store float16 instead of float32.
        progress: reports the training and the videos.

    Raises:
        InputError: not one way to pool, one token a slot, a pooler of other tokens, a bad video (unless the folder's
            problems skip it), or ``out`` was written with other settings.
    """
    _check(mean, labels, pooler, split, settings)
    out = Path(out)
    folder = replace(folder, tokens=folder.tokens_as(tokens))
    if folder.tokens == 1:
        raise InputError(f"{folder.root}: one token a slot, as far as store.json says; give --tokens N if it is not so")
    config = build(ActionPoolConfig, settings or {})
    learned_on = folder.split(split) if split is not None else None
    fitted = None if pooler is None else _load_fitted(Path(pooler), folder)
    provenance = _provenance(folder, learned_on, config, fitted)
    provenance["type"] = "float16" if half else "float32"
    with owning(out):
        store = FeatureStore(out, folder.source, provenance=provenance).create()
        store.copy_annotation(folder)
        if learned_on is not None:
            fitted = _learn(folder, learned_on, config, out / POOLER, progress)
        pooled = _mean_of(folder) if fitted is None else fitted.pooler.to(_device()).pool
        names = [name for name in folder.videos if not (out / "features" / f"{name}.npy").exists()]
        with progress.task("pooling", total=len(names), unit="videos") as task:
            for name in names:
                features = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
                if features is not None:
                    store.add(name, pooled(features).astype(np.float16 if half else np.float32))
                task.advance(note=name)
        store.finish()
    skipped = dict(folder.problems.skipped)
    videos = tuple(name for name in folder.videos if name not in skipped)
    warnings = tuple(folder.problems.notes)
    return Pooled(out, videos, skipped, warnings, folder.tokens, str(provenance.get("labels", "")))


def _provenance(
    folder: FeatureFolder, split: Split | None, config: ActionPoolConfig, fitted: Fitted | None
) -> dict[str, Any]:
    """What the pooled features say of themselves; known before anything is trained, so that a clash shows at once."""
    record: dict[str, Any] = {
        "pooled_tokens": folder.tokens,
        "features": folder.fingerprint(),
        "oracle": folder.oracle,
        **labels_record(folder),
    }
    if split is None and fitted is None:
        return record | {"pooling": "mean"}
    if fitted is not None:
        origin, config = fitted.origin, fitted.pooler.config
    else:
        assert split is not None
        origin = origin_of(folder, split)
    told = {key: origin[key] for key in ("labels", "labelled_videos")}
    return record | told | {"pooling": "action-pool", "learned_on": origin["features"], "pooler": config.model_dump()}


def _load_fitted(path: Path, folder: FeatureFolder) -> Fitted:
    """A learned pooler that suits the folder's tokens."""
    fitted = Fitted.load(path)
    pooler, width = fitted.pooler, folder.width // folder.tokens
    if (pooler.tokens, pooler.token_width) != (folder.tokens, width):
        raise InputError(
            f"{path}: pools {pooler.tokens} tokens {pooler.token_width} wide; {folder.root} has {folder.tokens}, "
            f"{width} wide"
        )
    return fitted


def _learn(folder: FeatureFolder, split: Split, config: ActionPoolConfig, path: Path, progress: Progress) -> Fitted:
    """The pooler of an earlier try at the same work, or a new one."""
    origin = origin_of(folder, split)
    if (path / CONFIG).exists():
        before = _load_fitted(path, folder)
        if before.pooler.config == config and all(before.origin.get(key) == origin[key] for key in origin):
            return before
    fitted = fit_action_pool(folder, split, config, device=_device(), progress=progress)
    fitted.save(path)
    right = fitted.origin["validation_accuracy"]
    progress.message(f"action-pool: {right:.1f} % of the validation videos' labelled slots right; kept in {path}")
    return fitted


def _mean_of(folder: FeatureFolder) -> Callable[[np.ndarray], np.ndarray]:
    return lambda features: mean_token(torch.from_numpy(features), folder.tokens).numpy()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
