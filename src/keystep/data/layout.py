"""The content of a feature folder: arrays, time axis and matching labels, from array headers and label files."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keystep.data.annotation import read_labels
from keystep.data.problems import Problems
from keystep.data.slots import array_header
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.files import is_video
from keystep.reading import held_in_shards, read_json

LEAST_FACTOR = 0.02
LENGTH_TOLERANCE, TOLERATED_SHARE = 16, 0.2
"""Frames, and share of them, by which features and labels of a video may differ; the excess is cut and reported."""


def length_tolerance(frames: int) -> int:
    """Maximum difference between the numbers of labels and frames of a video of ``frames`` frames."""
    return min(LENGTH_TOLERANCE, max(1, int(TOLERATED_SHARE * frames)))


@dataclass(frozen=True)
class Video:
    """A video of a feature folder.

    Attributes:
        name: of the video.
        features: its array.
        labels: its label file. None: no labels.
        frames: number of slots on disk that are used, after cutting to the labels.
        width: D.
        time_axis: 0 for (T, D) on disk, 1 for (D, T).
        scale: what its int8 numbers stand for. None: they are floats.
    """

    name: str
    features: Path
    labels: Path | None
    frames: int
    width: int
    time_axis: int
    scale: Path | None = None


def find_videos(
    root: Path,
    paths: list[Path],
    time_axis: int | None,
    classes: tuple[str, ...],
    problems: Problems,
    labels_needed: bool,
) -> dict[str, Video]:
    """Read the header of every array, determine orientation and width by majority, and check each video.

    Args:
        root: the feature folder.
        paths: its arrays.
        time_axis: 0 for (T, D) on disk, 1 for (D, T). None: determined from labels and shapes.
        classes: class names; empty if labels are not read.
        problems: collects bad videos and notes.
        labels_needed: whether bad labels make a video bad, or only a note.

    Returns:
        Video name -> video.

    Raises:
        InputError: an ambiguous orientation, transposed arrays, labels of another rate, or a bad video (unless
            ``problems`` skips it).
    """
    shapes: dict[Path, tuple[int, int]] = {}
    label_lengths: dict[Path, int] = {}
    scales: dict[Path, Path] = {}
    labelled = file_names(root / "groundTruth") if classes else frozenset()
    for path in paths:

        def measure(path: Path = path) -> None:
            header = array_header(path)
            if f"{path.name.removesuffix('.npy')}.txt" in labelled:
                with _label_problems(path, problems, labels_needed):
                    label_lengths[path] = _label_count(label_path(path), classes)
            shapes[path] = header.shape[0], header.shape[1]
            if header.dtype == np.int8:
                scales[path] = root / "scales" / path.name

        problems.attempt(path.stem, measure)
    if not shapes:
        return {}
    axis = _find_time_axis(root, shapes, label_lengths) if time_axis is None else time_axis
    _check_transposed(root, list(shapes.values()), axis)
    try:
        lengths = {path: (shapes[path][axis], count) for path, count in label_lengths.items() if path in shapes}
        problems.notes += _check_rate(root, lengths)
    except InputError as error:
        if labels_needed:
            raise
        problems.notes.append(f"labels not used: {error}")
        label_lengths = {}
    width = Counter(shape[1 - axis] for shape in shapes.values()).most_common(1)[0][0]
    videos = {}
    for path, shape in shapes.items():
        video = problems.attempt(
            path.stem,
            lambda path=path, shape=shape: _video(  # type: ignore[misc]
                path, shape, axis, width, label_lengths.get(path), scales.get(path), problems, labels_needed
            ),
        )
        if video is not None:
            videos[video.name] = video
    return videos


def _check_transposed(root: Path, shapes: Sequence[tuple[int, int]], axis: int) -> None:
    """Raise InputError if all arrays have the same length and different widths, because they are transposed."""
    lengths, widths = ({shape[side] for shape in shapes} for side in (axis, 1 - axis))
    if len(shapes) > 2 and len(lengths) == 1 and len(widths) == len(shapes):
        raise InputError(
            f"{root}: transposed: read as {_form(axis)}, its {len(shapes)} arrays are all {lengths.pop()} frames long "
            f"and differ in width, such as {shapes[0]}; {_TRANSPOSE}"
        )


def _check_rate(root: Path, lengths: Mapping[Path, tuple[int, int]]) -> list[str]:
    """Raise InputError if labels and features differ by a constant factor, because their rates then differ.

    A factor near 1, such as 29.97 to 30 Hz, gives a note instead, because the ends are only a few frames apart.
    """
    found = rate_factor(list(lengths.values()))
    if found is None:
        return []
    path, (frames, labels) = next(iter(lengths.items()))
    line = (
        f"labels have {found:.4g} times the rate of the features in all {len(lengths)} videos, such as {labels} for "
        f"{frames} in {path.stem}"
    )
    if abs(found - 1) > LEAST_FACTOR:
        raise InputError(f"{root}: {line}; bring both to one rate")
    return [line]


def rate_factor(lengths: Sequence[tuple[float, int]], error: float = 0) -> float | None:
    """The factor between frames and labels, if all videos share one and a tolerated surplus does not explain it.

    Args:
        lengths: (frames, labels) of each video.
        error: relative error of these counts, if they are estimates.

    Returns:
        labels per frame; None if the counts are about equal, or a factor cannot be told from a surplus.
    """
    if len(lengths) < 2:
        return None
    factor = sum(labels for _, labels in lengths) / sum(frames for frames, _ in lengths)
    surplus = [labels - frames for frames, labels in lengths]
    explained = all(abs(labels - factor * frames) <= 1 + error * labels for frames, labels in lengths)
    tolerated = all(abs(labels - frames) <= length_tolerance(int(frames)) for frames, labels in lengths)
    constant = max(surplus) - min(surplus) <= 1 or len({frames for frames, _ in lengths}) < 2
    return factor if explained and min(map(abs, surplus)) > 0 and not (tolerated and constant) else None


def feature_files(root: Path) -> list[Path]:
    """List ``features/*.npy`` without hidden files, with those in tar files.

    Raises:
        InputError: there are none, or the folder cannot be read.
    """
    try:
        names = sorted(path.name for path in (root / "features").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise InputError(f"{root / 'features'}: cannot be read: {error.strerror}") from error
    held_in_shards(root, again=True)
    names = sorted({*names, *file_names(root / "features")})
    paths = [root / "features" / name for name in names if name.endswith(".npy") and not name.startswith(".")]
    if not paths:
        raise InputError(_no_features(root))
    return paths


def file_names(folder: Path) -> frozenset[str]:
    """Names in a part of a feature folder, listed once instead of looked up one by one; none if there is none."""
    held = (path.partition("/") for path in held_in_shards(folder.parent))
    names = {name for part, _, name in held if part == folder.name}
    try:
        return frozenset(names.union(path.name for path in folder.iterdir()))
    except OSError:
        return frozenset(names)


def _no_features(root: Path) -> str:
    """Error message for a folder without features."""
    here = sorted(root.iterdir()) if root.is_dir() else [root]
    if any(is_video(path) and not path.name.startswith(".") for path in here):
        out = root.parent / f"{root.resolve().stem}-features"
        command = shlex.join(["keystep", "extract", str(root), "--out", str(out)])
        return f"{root}: contains videos, not features; extract features first: {command}"
    return f"{root}: no features/*.npy here; keystep reads a folder with one array per video"


def read_store(path: Path) -> dict[str, Any]:
    """Read ``store.json``; empty if there is none.

    Raises:
        InputError: it is damaged.
    """
    if not path.exists():
        return {}
    store = read_json(path)
    axis = store.get("time_axis", 0)
    if type(axis) is not int or axis not in (0, 1):
        raise InputError(f"{path}: expected an object with time_axis 0 for (T, D) or 1 for (D, T)")
    return store


def read_data_set_name(root: Path) -> str | None:
    """Name of the data set from which ``keystep prepare`` made the folder. None: another origin."""
    provenance = read_store(root / "store.json").get("provenance")
    name = provenance.get("data_set") if isinstance(provenance, dict) else None
    return name if isinstance(name, str) else None


def video_records(folder: Path, videos: Iterable[str], skipped: Mapping[str, str]) -> list[dict[str, Any]]:
    """One dict per video, also of those left out: ``video``, ``features``, and the reason in ``left_out``."""
    present = [
        {"video": name, "features": str(folder / "features" / f"{name}.npy"), "left_out": None}
        for name in videos
        if name not in skipped
    ]
    return present + [{"video": name, "features": None, "left_out": why} for name, why in skipped.items()]


def read_oracle_note(store: dict[str, Any]) -> str:
    """The note of store.json about true boundaries in the features; empty if there is none."""
    provenance = store.get("provenance")
    note = provenance.get("oracle") if isinstance(provenance, dict) else None
    return note if isinstance(note, str) else ""


def read_extraction_record(store: dict[str, Any]) -> dict[str, Any] | None:
    """Settings and weights with which ``keystep extract`` made the features. None: another origin."""
    provenance = store.get("provenance")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("extraction"), dict):
        return None
    return {"extraction": provenance["extraction"], "weights": provenance.get("weights")}


def read_label_use(store: dict[str, Any]) -> tuple[str, frozenset[str]]:
    """The note of store.json about labels that went into the features, and the videos of these labels."""
    provenance = store.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    note, videos = provenance.get("labels"), provenance.get("labelled_videos")
    named = frozenset(name for name in videos if isinstance(name, str)) if isinstance(videos, list) else frozenset()
    return (note if isinstance(note, str) else ""), named


def read_token_count(root: Path, store: dict[str, Any], width: int) -> int:
    """Number of tokens per slot according to store.json; 1 by default.

    Raises:
        InputError: not a positive integer, or it does not divide the width.
    """
    provenance = store.get("provenance")
    tokens = provenance.get("tokens", 1) if isinstance(provenance, dict) else 1
    if type(tokens) is not int or tokens < 1 or width % tokens:
        raise InputError(
            f"{root}: store.json says {tokens!r} tokens per slot, which does not divide the feature width {width}"
        )
    return tokens


def source_timeline(root: Path, store: dict[str, Any], source_rate: Fraction | None) -> Timeline:
    """The timeline of the arrays on disk.

    Args:
        root: the feature folder.
        store: content of its store.json.
        source_rate: slots per second according to the caller.

    Raises:
        InputError: the rate is unknown, or the two sources disagree.
    """
    if "timeline" not in store:
        if source_rate is None:
            raise InputError(f"{root}: no store.json states the rate of the features; give it with --source-rate 30")
        return Timeline(rate=source_rate)
    timeline = Timeline.from_json(store["timeline"])
    if source_rate is not None and source_rate != timeline.rate:
        raise InputError(f"{root}: store.json says {timeline.rate} Hz, --source-rate says {source_rate}; drop one")
    return timeline


def _label_count(path: Path, classes: tuple[str, ...]) -> int:
    count = len(read_labels(path, classes))
    if count == 0:
        raise InputError(f"{path}: no labels; delete the file if this video has none")
    return count


@contextmanager
def _label_problems(path: Path, problems: Problems, labels_needed: bool) -> Iterator[None]:
    """Raise errors about the labels of a video, or convert them to notes if labels are not needed."""
    try:
        yield
    except InputError as error:
        if labels_needed:
            raise
        problems.notes.append(f"{path.stem}: labels not used: {error}")


def label_path(features: Path) -> Path:
    """The label file of ``root/features/<video>.npy``."""
    return features.parents[1] / "groundTruth" / f"{features.name.removesuffix('.npy')}.txt"


def _find_time_axis(root: Path, shapes: dict[Path, tuple[int, int]], label_lengths: dict[Path, int]) -> Literal[0, 1]:
    """The time axis: the one that matches the labels, otherwise the one whose length varies."""

    def fits(axis: int) -> tuple[int, int, int]:
        apart = [abs(shapes[path][axis] - length) for path, length in label_lengths.items()]
        allowed = [length_tolerance(shapes[path][axis]) for path in label_lengths]
        near = sum(difference <= most for difference, most in zip(apart, allowed, strict=True))
        return near, len({shape[axis] for shape in shapes.values()}), apart.count(0)

    if fits(0) == fits(1):
        shape, length = next(iter(shapes.values()), None), next(iter(label_lengths.values()), None)
        raise InputError(
            f"{root}: cannot distinguish time from width: the first array has shape {shape}, its labels {length} "
            'lines; write {"time_axis": 1} into store.json for (D, T) arrays, 0 for (T, D)'
        )
    return 0 if fits(0) > fits(1) else 1


_TRANSPOSE = "store it the other way round (numpy: array.T), or correct time_axis in store.json"


def _form(axis: int) -> str:
    """The shape of arrays with this time axis, as text."""
    return "(T, D)" if axis == 0 else "(D, T)"


def _video(
    path: Path,
    shape: tuple[int, int],
    axis: int,
    width: int,
    labels: int | None,
    scale: Path | None,
    problems: Problems,
    labels_needed: bool,
) -> Video:
    if shape[1 - axis] != width:
        if shape[axis] == width:
            raise InputError(f"{path}: transposed: its shape is {shape}, the others are {_form(axis)}; {_TRANSPOSE}")
        raise InputError(f"{path}: width {shape[1 - axis]} in shape {shape}; the other videos have {width}")
    frames, fits = shape[axis], False
    with _label_problems(path, problems, labels_needed):
        if labels is not None and abs(labels - frames) > length_tolerance(frames):
            if abs(labels - width) <= length_tolerance(width):
                raise InputError(
                    f"{path}: transposed: its shape is {shape}, read as {_form(axis)}, and it has {labels} labels; "
                    f"{_TRANSPOSE}"
                )
            raise InputError(
                f"{path}: {frames} frames of features (shape {shape}) but {labels} labels in groundTruth/; "
                f"more than {length_tolerance(frames)} apart"
            )
        fits = labels is not None
    if fits and labels is not None and labels != frames:
        problems.notes.append(f"{path.stem}: {frames} features, {labels} labels; used the first {min(frames, labels)}")
        frames = min(frames, labels)
    return Video(
        name=path.name.removesuffix(".npy"),
        features=path,
        labels=label_path(path) if fits else None,
        frames=frames,
        width=width,
        time_axis=axis,
        scale=scale,
    )
