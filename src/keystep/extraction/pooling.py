"""`pool` reduces several tokens per slot to one vector, by their mean or by action pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keystep.config.base import build
from keystep.data.annotation import Split
from keystep.data.folder import FeatureFolder
from keystep.data.store import FeatureStore, labels_record
from keystep.errors import InputError
from keystep.extraction.action_pool import CONFIG, ActionPoolConfig, Fitted, describe_origin, fit_action_pool
from keystep.locking import owning
from keystep.nn.pooling import mean_token
from keystep.progress import SILENT, Progress

POOLER = "pooler"
"""Folder of the learned pooler in the output."""


@dataclass(frozen=True)
class Pooled:
    """Folder of pooled features written by `pool`.

    Attributes:
        root: the folder; `keystep.open_dataset` reads it.
        videos: names of the videos in it.
        skipped: name of each video that was skipped -> reason.
        warnings: lines for the user.
        tokens: tokens per slot that were pooled.
        labels: labels that the pooler was trained on; empty if none.
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
    """Check that exactly one method is chosen, and that the settings are for it."""
    if mean + labels + (pooler is not None) != 1:
        raise InputError("choose one of --mean, --labels and --pooler DIR")
    if labels != (split is not None):
        raise InputError(
            "--labels needs --split K, whose training videos it is trained on; the other methods take no split"
        )
    if settings and not labels:
        raise InputError("--set is only for --labels; omit it")


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
    """Pool the tokens of a feature folder by one of three methods. The folder is consistent after every video.

    Args:
        folder: features with several tokens per slot.
        out: the feature folder to write; finished videos in it are skipped.
        mean: average the tokens of each slot.
        labels: train action pooling on the labels of the training videos of ``split``, and save it in ``out/pooler``.
        pooler: use a pooler trained earlier with ``labels=True``.
        split: name of the split for ``labels``.
        settings: of `ActionPoolConfig`, for ``labels``.
        tokens: tokens per slot, if the folder does not state it.
        half: store float16 instead of float32.
        progress: reports the training and the videos.

    Raises:
        InputError: no method or several, one token per slot, a pooler for other tokens, an unreadable video (unless the
            folder skips it), or ``out`` was written with other settings.
    """
    _check(mean, labels, pooler, split, settings)
    out = Path(out)
    folder = folder.with_tokens(tokens)
    if folder.tokens == 1:
        raise InputError(f"{folder.root}: one token per slot according to store.json; use --tokens N if that is wrong")
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
        pooled = _mean_pooling(folder) if fitted is None else fitted.pooler.to(_device()).pool
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
    """Provenance of the pooled features; known before training, so that conflicts are reported at once."""
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
        origin = describe_origin(folder, split)
    told = {key: origin[key] for key in ("labels", "labelled_videos")}
    return record | told | {"pooling": "action-pool", "learned_on": origin["features"], "pooler": config.model_dump()}


def _load_fitted(path: Path, folder: FeatureFolder) -> Fitted:
    """Load a pooler, and check that it is for the tokens of the folder."""
    fitted = Fitted.load(path)
    pooler = fitted.pooler
    if (pooler.tokens, pooler.token_width) != (folder.tokens, folder.token_width):
        raise InputError(
            f"{path}: for {pooler.tokens} tokens of width {pooler.token_width}; {folder.root} has {folder.tokens} of "
            f"width {folder.token_width}"
        )
    return fitted


def _learn(folder: FeatureFolder, split: Split, config: ActionPoolConfig, path: Path, progress: Progress) -> Fitted:
    """Load the pooler of an interrupted run with the same settings, or train one."""
    origin = describe_origin(folder, split)
    if (path / CONFIG).exists():
        before = _load_fitted(path, folder)
        if before.pooler.config == config and all(before.origin.get(key) == origin[key] for key in origin):
            return before
    fitted = fit_action_pool(folder, split, config, device=_device(), progress=progress)
    fitted.save(path)
    right = fitted.origin["validation_accuracy"]
    progress.message(f"action pooling: {right:.1f} % accuracy on the validation videos; saved in {path}")
    return fitted


def _mean_pooling(folder: FeatureFolder) -> Callable[[np.ndarray], np.ndarray]:
    return lambda features: mean_token(torch.from_numpy(features), folder.token_width).numpy()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
