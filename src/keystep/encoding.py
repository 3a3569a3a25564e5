"""Latents of arrays and of whole folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from keystep.batch import SequenceBatch
from keystep.config.attention import AttentionPattern
from keystep.data.crops import length_buckets
from keystep.data.folder import FeatureFolder
from keystep.data.store import FeatureStore, Layout, labels_record
from keystep.errors import InputError
from keystep.loading import check_features
from keystep.locking import owning
from keystep.pjepa import PJEPA
from keystep.progress import SILENT, Progress

Mode = Literal["offline", "causal"]
"""``offline``: the attention that the model has for recordings. ``causal``: the one that a stream uses."""

BATCH_FRAMES = {"cuda": 16_384, "cpu": 4_096}
"""Frames of videos that are encoded together; a processor is faster where a batch fits its cache."""


@dataclass(frozen=True)
class EncodedFolder:
    """A folder of latents that `encode` wrote.

    Attributes:
        root: the folder; `keystep.open_dataset` reads it.
        videos: names of the videos in it.
        skipped: name of each video that was left out -> why.
        warnings: lines about what deserves a look.
        oracle: what true boundaries had to do with the latents; empty where nothing.
    """

    root: Path
    videos: tuple[str, ...]
    skipped: dict[str, str]
    warnings: tuple[str, ...]
    oracle: str = ""

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"EncodedFolder({str(self.root)!r}, {len(self.videos)} videos{skipped})"


@overload
def encode(model: PJEPA, features: Tensor, *, mode: Mode = ..., bands: Sequence[str] | None = ...) -> Tensor: ...
@overload
def encode(
    model: PJEPA, features: np.ndarray, *, mode: Mode = ..., bands: Sequence[str] | None = ...
) -> np.ndarray: ...
@overload
def encode(
    model: PJEPA,
    features: FeatureFolder,
    *,
    mode: Mode = ...,
    bands: Sequence[str] | None = ...,
    out: None = ...,
    progress: Progress = ...,
) -> dict[str, np.ndarray]: ...
@overload
def encode(
    model: PJEPA,
    features: FeatureFolder,
    *,
    mode: Mode = ...,
    bands: Sequence[str] | None = ...,
    out: Path | str,
    layout: Layout = ...,
    half: bool = ...,
    progress: Progress = ...,
) -> EncodedFolder: ...
def encode(
    model: PJEPA,
    features: Tensor | np.ndarray | FeatureFolder,
    *,
    mode: Mode = "offline",
    bands: Sequence[str] | None = None,
    out: Path | str | None = None,
    layout: Layout = "native",
    half: bool = False,
    progress: Progress = SILENT,
) -> Tensor | np.ndarray | dict[str, np.ndarray] | EncodedFolder:
    """Latents of one video, of a batch, or of all videos of a data set.

    Args:
        features: (T, D_in) or (B, T, D_in) array or tensor, or what `keystep.open_dataset` returned.
        mode: ``offline`` sees whole videos, ``causal`` only the past, as a stream does.
        bands: which of the model's bands (`PJEPA.bands`), such as ``["context"]``; None: all.
        out: data sets only: the folder to write to. Videos that are there already are not encoded again.
        layout: with ``out``: ``native`` writes (T, D) at the pooled rate, ``mstcn`` (D, T) at the source rate.
        half: with ``out``: write float16 instead of float32.
        progress: reports the videos of a data set.

    Returns:
        An array for an array and a tensor for a tensor, (..., T, D); for a data set, the latents of each video by name,
        or with ``out`` an `EncodedFolder`.

    Raises:
        InputError: the features do not fit the model, the model has no causal attention or no such band, or ``out`` was
            written with other settings.
    """
    pattern = pattern_of(model, mode)
    columns = _columns(model, pattern, bands)
    if isinstance(features, FeatureFolder):
        if out is not None:
            with owning(out):
                return _encode_folder(model, features, Path(out), pattern, bands, layout, half, progress)
        features.problems.notes.extend(check_features(model, features))
        names = list(features.videos)
        with progress.task("encoding", total=len(names), unit="videos") as task:
            latents = dict(encode_videos(model, features, names, pattern, lambda video: task.advance(note=video)))
        return {name: latents[name][:, columns] for name in names if name in latents}
    if out is not None:
        raise InputError("out is for data sets; save this array yourself, such as with numpy.save")
    encoded = model.encode(torch.as_tensor(features), pattern=pattern)[..., columns]
    return encoded if isinstance(features, Tensor) else encoded.cpu().numpy()


def pattern_of(model: PJEPA, mode: Mode) -> AttentionPattern | None:
    """The attention of a mode; None for the model's own.

    Raises:
        InputError: an unknown mode, or a model that was not trained for it.
    """
    if mode not in get_args(Mode):
        raise InputError(f"unknown mode {mode!r}; expected one of {', '.join(get_args(Mode))}")
    if mode == "offline":
        return None
    if model.config.stream_attention is None:
        raise InputError(f"{model.origin.source}: this model has no causal attention; encode it offline")
    return model.config.stream_attention


def _columns(model: PJEPA, pattern: AttentionPattern | None, bands: Sequence[str] | None) -> slice | list[int]:
    """Those of the latents that belong to some bands, in the order of the latents."""
    widths = model.bands(pattern)
    unknown = [band for band in bands or () if band not in widths]
    if unknown or (bands is not None and not bands):
        raise InputError(f"no band {', '.join(unknown) or 'asked for'}; these latents have {', '.join(widths)}")
    if bands is None:
        return slice(None)
    owners = [band for band, width in widths.items() for _ in range(width)]
    return [column for column, band in enumerate(owners) if band in bands]


def _encode_folder(
    model: PJEPA,
    folder: FeatureFolder,
    out: Path,
    pattern: AttentionPattern | None,
    bands: Sequence[str] | None,
    layout: Layout,
    half: bool,
    progress: Progress,
) -> EncodedFolder:
    """Encode what is not there yet; the folder is complete and consistent after every video."""
    if layout not in get_args(Layout):
        raise InputError(f"unknown layout {layout!r}; expected one of {', '.join(get_args(Layout))}")
    warnings = check_features(model, folder)
    folder.problems.notes.extend(warnings)
    upsample = folder.pool if layout == "mstcn" else 1
    columns = _columns(model, pattern, bands)
    made = "made with the true segment boundaries" if model.config.oracle else ""
    oracle = "; ".join(filter(None, (folder.oracle, made)))
    store = FeatureStore(
        out,
        folder.source if layout == "mstcn" else folder.timeline,
        layout,
        {
            "model": model.origin.source,
            "weights": model.fingerprint,
            "features": folder.fingerprint(),
            "attention": str(pattern or model.config.attention),
            "bands": {band: width for band, width in model.bands(pattern).items() if bands is None or band in bands},
            "oracle": oracle,
            **labels_record(folder),
            "pooled_by": folder.pool,
            "type": "float16" if half else "float32",
        },
    ).create()
    if folder.pool == upsample:
        store.copy_annotation(folder)
    else:
        warnings.append("labels are not copied: they are at another rate than these latents")
    done = {name for name in folder.videos if (out / "features" / f"{name}.npy").exists()}
    with progress.task("encoding", total=len(folder.videos) - len(done), unit="videos") as task:

        def count(video: str) -> None:
            if video not in done:
                task.advance(note=video)

        for name, latents in encode_videos(model, folder, list(folder.videos), pattern, count, done):
            latents = latents[:, columns]
            held = np.repeat(latents, upsample, axis=0)[: folder.video(name).frames] if upsample > 1 else latents
            times = folder.times(name) if folder.pool != upsample and folder.has_times(name) else None
            store.add(name, held.astype(np.float16 if half else np.float32), times=times)
    skipped = dict(folder.problems.skipped)
    videos = tuple(name for name in folder.videos if name not in skipped)
    store.finish()
    return EncodedFolder(out, videos, skipped, tuple(warnings), oracle)


def encode_videos(
    model: PJEPA,
    folder: FeatureFolder,
    names: Sequence[str],
    pattern: AttentionPattern | None = None,
    progress: Callable[[str], None] = lambda video: None,
    done: Collection[str] = (),
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (T, D) float32 latents) of each video, longest first; bad videos go to the folder's problems.

    Videos of similar length share a batch; every video is encoded whole, whatever its length. Rows of a batch of
    another size may differ in their last bits, so those of ``names`` that are ``done``, and not given again, keep their
    places in the batches that others need.
    """
    if folder.width != model.config.input_dim:
        raise InputError(f"{folder.root}: features are {folder.width} wide; this model reads {model.config.input_dim}")
    frames = BATCH_FRAMES.get(model.mask_token.device.type, BATCH_FRAMES["cpu"])
    oracle = model.config.oracle or (pattern is not None and pattern.oracle)
    for group in length_buckets({name: folder.length(name) for name in names}, frames):
        if all(name in done for name in group):
            continue
        read = {}
        for name in group:
            features = folder.problems.attempt(name, lambda name=name: folder.features(name))  # type: ignore[misc]
            if features is not None:
                read[name] = features
            progress(name)
        if not read:
            continue
        segments = [folder.segment_lengths(name) for name in read] if oracle else None
        batch = SequenceBatch.pad(list(read.values()), segments)
        with torch.inference_mode():
            latents = model.encode(batch.features, batch.valid, batch.segment_lengths, pattern).float().cpu().numpy()
        for row, (name, features) in enumerate(read.items()):
            if name not in done:
                yield name, latents[row, : len(features)]
