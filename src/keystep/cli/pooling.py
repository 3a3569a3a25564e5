"""``keystep pool``: one vector a slot of a folder with several tokens a slot, by their mean or by an action-pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from keystep.cli.data import list_problems, open_data
from keystep.cli.progress import counting
from keystep.config.base import assignments, build
from keystep.data.annotation import Split
from keystep.data.folder import FeatureFolder
from keystep.data.store import FeatureStore, labels_record
from keystep.errors import InputError
from keystep.extraction.action_pool import CONFIG, ActionPoolConfig, Fitted, fit_action_pool, origin_of
from keystep.nn.pooling import mean_token

POOLER = "pooler"
"""Folder inside the output where what was learned lies."""
Pool = Callable[[np.ndarray], np.ndarray]
"""(T, N x D) -> (T, D) float32."""


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """What the command line asks for."""

    mean: bool = False
    labels: bool = False
    pooler: Path | None = None
    split: str | None = None
    settings: tuple[str, ...] = ()
    tokens: int | None = None
    source_rate: str | None = None
    on_error: str = "raise"
    half: bool = False

    def check(self) -> None:
        """Refuse anything but one way to pool, and settings of another."""
        if self.mean + self.labels + (self.pooler is not None) != 1:
            raise InputError("how to pool? give one of --mean, --labels and --pooler DIR")
        if self.labels != (self.split is not None):
            raise InputError("--labels needs --split K, whose training videos it learns from; nothing else does")
        if self.settings and not self.labels:
            raise InputError("--set is for what --labels trains; leave it out")


def pool_folder(data: Path, out: Path, options: PoolOptions, console: Console) -> None:
    """Pool what is not there yet; the folder is complete and consistent after every video."""
    options.check()
    folder = open_data(data, options.source_rate, None, options.on_error, labels_needed=options.labels)
    folder = replace(folder, tokens=folder.tokens_as(options.tokens))
    if folder.tokens == 1:
        raise InputError(f"{folder.root}: one token a slot, as far as store.json says; give --tokens N if it is not so")
    config = build(ActionPoolConfig, assignments(list(options.settings)))
    split = folder.split(options.split) if options.split is not None else None
    fitted = None if options.pooler is None else _fitting(options.pooler, folder)
    provenance = _provenance(folder, split, config, fitted)
    provenance["type"] = "float16" if options.half else "float32"
    store = FeatureStore(out, folder.source, provenance=provenance).create()
    store.copy_annotation(folder)
    if split is not None:
        fitted = _learned(folder, split, config, out / POOLER, console)
    pool = _mean_of(folder) if fitted is None else fitted.pooler.to(_device()).pool
    names = [name for name in folder.videos if not (out / "features" / f"{name}.npy").exists()]
    with counting(console, "pooling", len(names)) as tick:
        for name in names:
            features = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
            if features is not None:
                store.add(name, pool(features).astype(np.float16 if options.half else np.float32))
            tick(name)
    store.finish()
    list_problems(folder, console)
    done = len(folder.videos) - len(folder.problems.skipped)
    marked = f"  LABELS: {provenance['labels']}" if "labels" in provenance else ""
    console.print(f"{out}: {done} videos, {folder.tokens} tokens a slot pooled{marked}", soft_wrap=True, markup=False)


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


def _fitting(path: Path, folder: FeatureFolder) -> Fitted:
    """A learned pooler that suits the folder's tokens."""
    fitted = Fitted.load(path)
    pooler, width = fitted.pooler, folder.width // folder.tokens
    if (pooler.tokens, pooler.token_width) != (folder.tokens, width):
        raise InputError(
            f"{path}: pools {pooler.tokens} tokens {pooler.token_width} wide; {folder.root} has {folder.tokens}, "
            f"{width} wide"
        )
    return fitted


def _learned(folder: FeatureFolder, split: Split, config: ActionPoolConfig, path: Path, console: Console) -> Fitted:
    """The pooler of an earlier try at the same work, or a new one."""
    origin = origin_of(folder, split)
    if (path / CONFIG).exists():
        before = _fitting(path, folder)
        if before.pooler.config == config and all(before.origin.get(key) == origin[key] for key in origin):
            return before
    with counting(console, "action-pool", config.steps) as tick:
        fitted = fit_action_pool(folder, split, config, device=_device(), progress=lambda step, note: tick(note))
    fitted.save(path)
    right = fitted.origin["validation_accuracy"]
    console.print(f"action-pool: {right:.1f} % of the validation videos' labelled slots right; kept in {path}")
    return fitted


def _mean_of(folder: FeatureFolder) -> Pool:
    return lambda features: mean_token(torch.from_numpy(features), folder.tokens).numpy()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
