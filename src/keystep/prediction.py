"""`keystep.predict`: the steps of recordings, from features or videos, by a model and a head that may see all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from keystep.encoding import mode_pattern
from keystep.errors import InputError
from keystep.evals.pictures import ribbons_png, safe_names
from keystep.files import check_exists, check_new, check_replaceable, replacing, write_array, write_json, write_lines
from keystep.heads import Head, load_head
from keystep.loading import check_head, load
from keystep.locking import owning
from keystep.opening import SourceOptions, open_source
from keystep.pjepa import PJEPA
from keystep.progress import SILENT, Progress

RECORD, LABELS, PROBABILITIES, RIBBONS = "predictions.json", "labels", "probabilities", "ribbons"
OURS = (RECORD, LABELS, PROBABILITIES, RIBBONS)


@dataclass(frozen=True, repr=False)
class Prediction:
    """The steps of one video.

    name: of the video. ids: (T,) class ids. probabilities: (T, C), each frame's sum to 1. names: of all classes by id.
    rate: frames a second; None where nothing says it.
    """

    name: str
    ids: np.ndarray
    probabilities: np.ndarray
    names: tuple[str, ...]
    rate: Fraction | None = None

    @property
    def labels(self) -> list[str]:
        """The class name of each frame."""
        return [self.names[identifier] for identifier in self.ids]

    def segments(self) -> list[tuple[str, int, int]]:
        """(class name, first frame, frame after the last) of each stretch of one class."""
        edges = np.flatnonzero(np.diff(self.ids)) + 1
        starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(self.ids)]
        return [(self.names[self.ids[start]], start, end) for start, end in zip(starts, ends, strict=True)]

    def ribbon(self) -> bytes:
        """A picture of the steps over time, PNG; frames are seconds where nothing says the rate."""
        return ribbons_png(None, {self.name: self.ids}, self.names, (), float(self.rate or 1))

    def _repr_png_(self) -> bytes:
        return self.ribbon()

    def __repr__(self) -> str:
        return f"Prediction({self.name!r}: {len(self.ids)} frames, {len(self.segments())} segments)"


def predict(
    model: PJEPA | Path | str,
    head: Head | Path | str,
    videos: np.ndarray | Tensor | Path | str | Sequence[Path | str],
    *,
    source_rate: str | None = None,
    backbone: str | None = None,
    weights: Path | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> list[Prediction]:
    """Predict the steps of whole recordings.

    The model attends as it did when the head was fitted: a head of offline latents sees the whole video.

    Args:
        model: or what `keystep.load` accepts.
        head: or the file that ``keystep eval`` wrote.
        videos: features of one video, (T, D); or files, each with features (``.npy``, (T, D) or (D, T)) or a video,
            whose features are made as those of the head were.
        source_rate: features a second of the files, where no ``store.json`` says it.
        backbone: the one that made the head's features, for videos; it has to be named where it is no part of keystep.
        weights: of the backbone, for videos.
        out: folder for ``labels/NAME.txt`` (a class name a frame), ``probabilities/NAME.npy`` (T, C),
            ``ribbons/NAME.png`` and ``predictions.json``.
        overwrite: replace the predictions in ``out``.
        progress: reports the videos.

    Returns:
        A prediction for each video, in their order.

    Raises:
        InputError: a head of another model, an ORACLE model, files that cannot be used, or predictions in ``out``.
    """
    with owning(out):
        if out is not None:
            _check_out(Path(out), overwrite)
        model = model if isinstance(model, PJEPA) else load(model)
        named = str(head) if isinstance(head, (Path, str)) else "this head"
        head = load_head(head) if isinstance(head, (Path, str)) else head
        for line in check_head(head, model, named, live=False):
            progress.message(f"warning: {line}")
        if model.config.oracle:
            raise InputError(f"{model.origin.source}: attends by true segments (ORACLE), which no new video has")
        if isinstance(videos, (np.ndarray, Tensor)):
            rate = head.origin.get("rate")
            found = [_predicted("video", torch.as_tensor(videos), model, head, Fraction(rate) if rate else None)]
        else:
            if not isinstance(videos, (Path, str)) and not (
                videos and all(isinstance(one, (Path, str)) for one in videos)
            ):
                raise InputError("videos: expected an array (T, D), or one or more files")
            for one in [videos] if isinstance(videos, (Path, str)) else videos:
                check_exists(one)
            paths = [Path(videos)] if isinstance(videos, (Path, str)) else [Path(path) for path in videos]
            for path in paths:
                if not path.is_file():
                    raise InputError(f"{path}: a folder; give files with features (.npy) or videos")
            options = SourceOptions(source_rate=source_rate, backbone=backbone, weights=weights, chunk=256)
            found = []
            with progress.task("predicting", total=len(paths), unit="videos") as task:
                for path, name in zip(paths, safe_names([path.stem for path in paths]), strict=True):
                    source = open_source(str(path), head, model, options)
                    chunks = [chunk.features for chunk in source.chunks(0, None)]
                    if not chunks:
                        raise InputError(f"{path}: holds no frame")
                    features = torch.from_numpy(np.concatenate(chunks))
                    found.append(_predicted(name, features, model, head, source.timeline.rate))
                    task.advance(note=name)
        if out is not None:
            _write(Path(out), found, model, head, named)
    return found


def _predicted(name: str, features: Tensor, model: PJEPA, head: Head, rate: Fraction | None) -> Prediction:
    """One video. features: (T, D)."""
    if features.ndim != 2 or not len(features):
        raise InputError(f"{name}: features have shape {tuple(features.shape)}; expected (T, D) with a frame at least")
    pattern = mode_pattern(model, "causal" if head.origin.get("mode") == "causal" else "offline")
    with torch.inference_mode():
        latents = model.encode(features.float(), pattern=pattern)
        probabilities = head.probabilities(latents)
        ids = head.choose(probabilities)
    names = tuple(head.name(identifier) for identifier in range(probabilities.shape[-1]))
    return Prediction(name, ids.cpu().numpy(), probabilities.float().cpu().numpy(), names, rate)


def _check_out(out: Path, overwrite: bool) -> None:
    check_replaceable(out, OURS)
    check_new(out / RECORD, overwrite, "predictions")


def _write(out: Path, found: Sequence[Prediction], model: PJEPA, head: Head, named: str) -> None:
    """All files, whole or not at all."""
    with replacing(out, OURS) as temporary:
        for each in found:
            write_lines(temporary / LABELS / f"{each.name}.txt", each.labels)
            write_array(temporary / PROBABILITIES / f"{each.name}.npy", each.probabilities)
            with replacing(temporary / RIBBONS / f"{each.name}.png") as picture:
                picture.write_bytes(each.ribbon())
        write_json(temporary / RECORD, _record(found, model, head, named))


def _record(found: Sequence[Prediction], model: PJEPA, head: Head, named: str) -> Mapping[str, object]:
    videos = {
        each.name: {
            "rate": None if each.rate is None else str(each.rate),
            "frames": len(each.ids),
            "segments": [{"step": step, "start": start, "end": end} for step, start, end in each.segments()],
        }
        for each in found
    }
    origin = {key: value for key, value in head.origin.items() if key in ("weights", "mode", "rate")}
    facts = {"model": model.origin.source, "head": named, "fitted_on": origin, "classes": list(found[0].names)}
    return json.loads(json.dumps({"format": "keystep-predictions", "version": 1, **facts, "videos": videos}))  # type: ignore[no-any-return]
