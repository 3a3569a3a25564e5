"""Latents of arrays and of data sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from keystep.batch import SequenceBatch
from keystep.config.attention import AttentionPattern
from keystep.data.crops import length_buckets
from keystep.data.folder import FeatureFolder
from keystep.data.store import FeatureStore, Layout, Sink, labels_record
from keystep.engines import Engine, Local, Report, check_shared, device_of
from keystep.errors import InputError
from keystep.loading import check_features
from keystep.locking import owning
from keystep.pjepa import PJEPA
from keystep.progress import SILENT, Progress

Mode = Literal["offline", "causal"]
"""``offline``: the model's attention for recordings. ``causal``: its attention on streams."""

BATCH_FRAMES = {"cuda": 16_384, "cpu": 4_096}
"""Frames per batch by device; CPUs are faster if a batch fits in their cache."""


@dataclass(frozen=True)
class EncodedFolder:
    """A folder of latents written by `encode`.

    Attributes:
        root: the folder, which `keystep.open_dataset` can read.
        videos: names of the encoded videos.
        skipped: name of each skipped video -> reason.
        warnings: possible problems.
        oracle: how true boundaries were used; empty if they were not.
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
    sink: Sink = ...,
    engine: Engine | None = ...,
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
    sink: Sink = "folder",
    engine: Engine | None = None,
    progress: Progress = SILENT,
) -> Tensor | np.ndarray | dict[str, np.ndarray] | EncodedFolder:
    """Compute the latents of a video, a batch, or all videos of a data set.

    Args:
        model: the model.
        features: (T, D_in) or (B, T, D_in) array or tensor, or a data set from `keystep.open_dataset`.
        mode: ``offline`` uses the whole video, ``causal`` only the past, as on a stream.
        bands: names of `PJEPA.bands` to return, such as ``["context"]``. None: all.
        out: output folder, for data sets only. Videos that are already in it are not encoded again.
        layout: with ``out``: ``native`` writes (T, D) at the pooled rate, ``mstcn`` (D, T) at the source rate.
        half: with ``out``: write float16 instead of float32.
        sink: with ``out``: ``folder`` or ``tar``, see `FeatureStore`.
        engine: with ``out``: where to run, see `keystep.extract`. None: this process.
        progress: receives one update for each video of a data set.

    Returns:
        (..., T, D) as array or tensor, like the input. For a data set: video -> (T, D), or with ``out`` an
        `EncodedFolder`.

    Raises:
        InputError: incompatible features, no causal attention, an unknown band, or an ``out`` written with other
            settings.
    """
    pattern = mode_pattern(model, mode)
    columns = _columns(model, pattern, bands)
    if isinstance(features, FeatureFolder):
        if layout not in get_args(Layout):
            raise InputError(f"unknown layout {layout!r}; expected one of {', '.join(get_args(Layout))}")
        warnings = check_features(model, features)
        features.problems.notes.extend(warnings)
        if out is not None:
            with owning(out):
                store = _store(model, features, Path(out), pattern, bands, layout, half, sink)
                work = _Encoding(model, features, store, pattern, columns, half)
                return _encode_folder(work, warnings, engine or Local(), progress)
        names = list(features.videos)
        with progress.task("encoding", total=len(names), unit="videos") as task:
            latents = dict(encode_videos(model, features, names, pattern, lambda video: task.advance(note=video)))
        return {name: latents[name][:, columns] for name in names if name in latents}
    if out is not None:
        raise InputError("out is only supported for data sets; save this array with numpy.save")
    encoded = model.encode(torch.as_tensor(features), pattern=pattern)[..., columns]
    return encoded if isinstance(features, Tensor) else encoded.cpu().numpy()


def mode_pattern(model: PJEPA, mode: Mode) -> AttentionPattern | None:
    """The attention pattern of a mode; None: the model's own.

    Raises:
        InputError: an unknown mode, or a model without causal attention.
    """
    if mode not in get_args(Mode):
        raise InputError(f"unknown mode {mode!r}; expected one of {', '.join(get_args(Mode))}")
    if mode == "offline":
        return None
    if model.config.stream_attention is None:
        raise InputError(f"{model.origin.source}: this model has no causal attention; encode it offline")
    return model.config.stream_attention


def _columns(model: PJEPA, pattern: AttentionPattern | None, bands: Sequence[str] | None) -> slice | list[int]:
    """Columns of the latents that belong to some bands, in column order."""
    widths = model.bands(pattern)
    unknown = [band for band in bands or () if band not in widths]
    if unknown or (bands is not None and not bands):
        raise InputError(f"unknown band {', '.join(unknown) or '(none given)'}; expected {', '.join(widths)}")
    if bands is None:
        return slice(None)
    owners = [band for band, width in widths.items() for _ in range(width)]
    return [column for column, band in enumerate(owners) if band in bands]


def _store(
    model: PJEPA,
    folder: FeatureFolder,
    out: Path,
    pattern: AttentionPattern | None,
    bands: Sequence[str] | None,
    layout: Layout,
    half: bool,
    sink: Sink,
) -> FeatureStore:
    """Create the folder of latents, or continue it."""
    made = "made with the true segment boundaries" if model.config.oracle else ""
    return FeatureStore(
        out,
        folder.source if layout == "mstcn" else folder.timeline,
        layout,
        {
            "model": model.origin.source,
            "weights": model.fingerprint,
            "features": folder.fingerprint(),
            "attention": str(pattern or model.config.attention),
            "bands": {band: width for band, width in model.bands(pattern).items() if bands is None or band in bands},
            "oracle": "; ".join(filter(None, (folder.oracle, made))),
            **labels_record(folder),
            "pooled_by": folder.pool,
            "type": "float16" if half else "float32",
        },
        sink=sink,
    ).create()


def _encode_folder(work: _Encoding, warnings: list[str], engine: Engine, progress: Progress) -> EncodedFolder:
    """Encode the videos that are not in the store yet. It is consistent after every video."""
    folder, store = work.folder, work.store
    if folder.pool == work.upsample:
        store.copy_annotation(folder)
    else:
        warnings.append("labels are not copied, because their rate differs from that of the latents")
    kind = work.model.mask_token.device.type if isinstance(engine, Local) else engine.kind()
    if not engine.alone:
        work = replace(work, model=deepcopy(work.model).cpu(), device=kind)
    done = store.videos()
    lengths = {name: folder.length(name) for name in folder.videos}
    groups = [group for group in length_buckets(lengths, _batch_frames(kind)) if not done.issuperset(group)]
    jobs = {group[0]: (group, done.intersection(group)) for group in groups}
    with (
        progress.task("encoding", total=len(lengths.keys() - done), unit="videos") as task,
        closing(engine.run(work, jobs, lambda amount, count: task.advance(amount), kind)) as finished,
    ):
        for name, result in finished:
            folder.problems.skipped.update(result())
            task.advance(0, note=name)
    skipped = dict(folder.problems.skipped)
    store.finish()
    videos = tuple(name for name in folder.videos if name not in skipped)
    return EncodedFolder(store.root, videos, skipped, tuple(warnings), (store.provenance or {})["oracle"])


@dataclass(frozen=True)
class _Encoding:
    """What a worker does; pickled for workers.

    Attributes:
        model, folder, pattern: as in `encode_videos`.
        store: the folder of latents.
        columns: columns of the latents to write.
        half: write float16 instead of float32.
        device: kind of device to move the model to; None: it stays where it is.
    """

    model: PJEPA
    folder: FeatureFolder
    store: FeatureStore
    pattern: AttentionPattern | None
    columns: slice | list[int]
    half: bool
    device: str | None = None

    @property
    def upsample(self) -> int:
        """How often each latent is written."""
        return self.folder.pool if self.store.layout == "mstcn" else 1

    def __call__(self, worker: int, report: Report) -> Callable[[list[str], Collection[str]], dict[str, str]]:
        """Move the model to the device of a worker."""
        check_shared(self.store.root / "store.json")
        if self.device is not None:
            self.model.to(device_of(worker, self.device))
        return partial(self._encode, report)

    def _encode(self, report: Report, group: list[str], done: Collection[str]) -> dict[str, str]:
        """Encode and write the videos of a batch that are not done; returns those that were skipped -> reason."""
        folder, upsample = self.folder, self.upsample

        def count(video: str) -> None:
            if video not in done:
                report(1, 0)

        for name, latents in encode_videos(self.model, folder, group, self.pattern, count, done):
            latents = latents[:, self.columns]
            held = np.repeat(latents, upsample, axis=0)[: folder.video(name).frames] if upsample > 1 else latents
            times = folder.times(name) if folder.pool != upsample and folder.has_times(name) else None
            self.store.add(name, held.astype(np.float16 if self.half else np.float32), times=times)
        return {name: reason for name, reason in folder.problems.skipped.items() if name in group}


def frame_vectors(folder: FeatureFolder, videos: Sequence[str], model: PJEPA | None) -> dict[str, np.ndarray]:
    """Offline latents of videos, or without a model their raw features; (T, D) each, in the order of ``videos``."""
    if model is None:
        return {name: folder.vectors(name) for name in videos}
    found = dict(encode_videos(model, folder, videos))
    return {name: found[name] for name in videos if name in found}


def encode_videos(
    model: PJEPA,
    folder: FeatureFolder,
    names: Sequence[str],
    pattern: AttentionPattern | None = None,
    progress: Callable[[str], None] = lambda video: None,
    done: Collection[str] = (),
) -> Iterator[tuple[str, np.ndarray]]:
    """Encode videos in batches of similar lengths. Each video is encoded as a whole.

    Args:
        model: the model.
        folder: the data.
        names: the videos to encode.
        pattern: attention pattern. None: the model's own.
        progress: called with the name of each video.
        done: videos of ``names`` that are not returned again. They keep their places in the batches that other videos
            need, because results may differ in the last bits between batches of different sizes.

    Yields:
        (name, (T, D) float32 latents), longest first. Invalid videos are recorded in the folder's problems.

    Raises:
        InputError: features of another width.
    """
    if folder.width != model.config.input_dim:
        raise InputError(f"{folder.root}: features have width {folder.width}; expected {model.config.input_dim}")
    frames = _batch_frames(model.mask_token.device.type)
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


def _batch_frames(device: str) -> int:
    return BATCH_FRAMES.get(device, BATCH_FRAMES["cpu"])
