"""What lies in a feature folder: which arrays, which axis is time, which labels fit. Headers and label files only."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from keystep.data.annotation import read_labels
from keystep.data.problems import Problems
from keystep.data.slots import open_array
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.files import is_video
from keystep.reading import read_json

LEAST_FACTOR = 0.02
LENGTH_TOLERANCE, TOLERATED_SHARE = 16, 0.2
"""Frames, and share of them, by which features and labels of one video may differ; the surplus is cut and reported."""


def length_tolerance(frames: int) -> int:
    """Labels that a video of so many frames may have more or fewer."""
    return min(LENGTH_TOLERANCE, max(1, int(TOLERATED_SHARE * frames)))


@dataclass(frozen=True)
class Video:
    """Where one video's features lie, and how long it is at the folder's pooled rate."""

    name: str
    features: Path
    labels: Path | None
    frames: int
    """Slots on disk that are used (after cutting to the labels)."""
    width: int
    time_axis: int
    """0 for (T, D) on disk, 1 for (D, T)."""


def find_videos(
    root: Path,
    paths: list[Path],
    time_axis: int | None,
    classes: tuple[str, ...],
    problems: Problems,
    labels_needed: bool,
) -> dict[str, Video]:
    """Measure every array, find the orientation and width that fit most, and check each video against them."""
    shapes: dict[Path, tuple[int, int]] = {}
    label_lengths: dict[Path, int] = {}
    for path in paths:

        def measure(path: Path = path) -> None:
            shape = open_array(path).shape
            if classes and label_path(path).exists():
                with _label_problems(path, problems, labels_needed):
                    label_lengths[path] = _label_count(label_path(path), classes)
            shapes[path] = (shape[0], shape[1])

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
                path, shape, axis, width, label_lengths.get(path), problems, labels_needed
            ),
        )
        if video is not None:
            videos[video.name] = video
    return videos


def _check_transposed(root: Path, shapes: Sequence[tuple[int, int]], axis: int) -> None:
    """Refuse arrays all of which are as long as each other, and none as wide: those are the other way round."""
    lengths, widths = ({shape[side] for shape in shapes} for side in (axis, 1 - axis))
    if len(shapes) > 2 and len(lengths) == 1 and len(widths) == len(shapes):
        raise InputError(
            f"{root}: transposed: read as {_form(axis)}, its {len(shapes)} arrays are all {lengths.pop()} frames long "
            f"and differ in width, such as {shapes[0]}; {_TRANSPOSE}"
        )


def _check_rate(root: Path, lengths: Mapping[Path, tuple[int, int]]) -> list[str]:
    """Refuse labels that are by one factor more or fewer than the features, which is another rate and no surplus.

    A factor as near to 1 as that of 29.97 and 30 frames a second is a line instead: ends are a few frames apart.
    """
    found = rate_factor(list(lengths.values()))
    if found is None:
        return []
    path, (frames, labels) = next(iter(lengths.items()))
    line = (
        f"labels come at {found:.4g} times the rate of the features in all {len(lengths)} videos, such as {labels} for "
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
    """``features/*.npy`` without the hidden files that some systems leave beside them."""
    try:
        paths = sorted(path for path in (root / "features").iterdir() if path.suffix == ".npy")
    except (FileNotFoundError, NotADirectoryError):
        paths = []
    except OSError as error:
        raise InputError(f"{root / 'features'}: cannot be read: {error.strerror}") from error
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise InputError(_no_features(root))
    return paths


def _no_features(root: Path) -> str:
    """Why there is nothing to read, and what to do about it."""
    here = sorted(root.iterdir()) if root.is_dir() else [root]
    if any(is_video(path) and not path.name.startswith(".") for path in here):
        out = root.parent / f"{root.resolve().stem}-features"
        command = shlex.join(["keystep", "extract", str(root), "--out", str(out)])
        return f"{root}: videos, not features; make features of them first: {command}"
    return f"{root}: no features/*.npy here; keystep reads a folder with one array a video"


def read_store(path: Path) -> dict[str, Any]:
    """What ``store.json`` says; nothing where there is none. InputError where it is damaged."""
    if not path.exists():
        return {}
    store = read_json(path)
    axis = store.get("time_axis", 0)
    if type(axis) is not int or axis not in (0, 1):
        raise InputError(f"{path}: expected an object with time_axis 0 for (T, D) or 1 for (D, T)")
    return store


def data_set_of(root: Path) -> str | None:
    """The name of the data set that ``keystep prepare`` made the folder of, where it did."""
    provenance = read_store(root / "store.json").get("provenance")
    name = provenance.get("data_set") if isinstance(provenance, dict) else None
    return name if isinstance(name, str) else None


def video_records(folder: Path, videos: Iterable[str], skipped: Mapping[str, str]) -> list[dict[str, Any]]:
    """One a video that is in a feature folder or was left out of it: its name, its features, why it was left out."""
    there = [
        {"video": name, "features": str(folder / "features" / f"{name}.npy"), "left_out": None}
        for name in videos
        if name not in skipped
    ]
    return there + [{"video": name, "features": None, "left_out": why} for name, why in skipped.items()]


def oracle_of(store: dict[str, Any]) -> str:
    """What store.json says of true boundaries."""
    provenance = store.get("provenance")
    told = provenance.get("oracle") if isinstance(provenance, dict) else None
    return told if isinstance(told, str) else ""


def extraction_of(store: dict[str, Any]) -> dict[str, Any] | None:
    """How the features were made of videos, and with which weights, where ``keystep extract`` made them."""
    provenance = store.get("provenance")
    if not isinstance(provenance, dict) or not isinstance(provenance.get("extraction"), dict):
        return None
    return {"extraction": provenance["extraction"], "weights": provenance.get("weights")}


def labels_of(store: dict[str, Any]) -> tuple[str, frozenset[str]]:
    """What store.json says of labels that went into the features, and the videos that they were of."""
    provenance = store.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    told, videos = provenance.get("labels"), provenance.get("labelled_videos")
    named = frozenset(name for name in videos if isinstance(name, str)) if isinstance(videos, list) else frozenset()
    return (told if isinstance(told, str) else ""), named


def tokens_of(root: Path, store: dict[str, Any], width: int) -> int:
    """How many tokens a slot's features hold side by side, as store.json says; 1 where it says nothing.

    Raises:
        InputError: no number of tokens, or one that does not divide the width.
    """
    provenance = store.get("provenance")
    tokens = provenance.get("tokens", 1) if isinstance(provenance, dict) else 1
    if type(tokens) is not int or tokens < 1 or width % tokens:
        raise InputError(f"{root}: store.json says {tokens!r} tokens a slot; features {width} wide cannot hold those")
    return tokens


def source_timeline(root: Path, store: dict[str, Any], source_rate: Fraction | None) -> Timeline:
    """The timeline of the arrays on disk; InputError where nothing says their rate, or two things say two."""
    if "timeline" not in store:
        if source_rate is None:
            raise InputError(f"{root}: no store.json says how many features a second; give it with --source-rate 30")
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
    """Let a problem with a video's labels through, or make it a note where labels are not needed."""
    try:
        yield
    except InputError as error:
        if labels_needed:
            raise
        problems.notes.append(f"{path.stem}: labels not used: {error}")


def label_path(features: Path) -> Path:
    """Where the labels of ``root/features/<video>.npy`` lie."""
    return features.parents[1] / "groundTruth" / f"{features.name.removesuffix('.npy')}.txt"


def _find_time_axis(root: Path, shapes: dict[Path, tuple[int, int]], label_lengths: dict[Path, int]) -> Literal[0, 1]:
    """Which axis is time: the one that fits the labels; failing that, the one whose length varies."""

    def fits(axis: int) -> tuple[int, int, int]:
        apart = [abs(shapes[path][axis] - length) for path, length in label_lengths.items()]
        allowed = [length_tolerance(shapes[path][axis]) for path in label_lengths]
        near = sum(difference <= most for difference, most in zip(apart, allowed, strict=True))
        return near, len({shape[axis] for shape in shapes.values()}), apart.count(0)

    if fits(0) == fits(1):
        shape, length = next(iter(shapes.values()), None), next(iter(label_lengths.values()), None)
        raise InputError(
            f"{root}: cannot tell time from width: first array has shape {shape}, its labels {length} lines; write "
            '{"time_axis": 1} into store.json for (D, T) arrays, 0 for (T, D)'
        )
    return 0 if fits(0) > fits(1) else 1


_TRANSPOSE = "store it the other way round (numpy: array.T), or correct time_axis in store.json"


def _form(axis: int) -> str:
    """How arrays with time on that axis are written."""
    return "(T, D)" if axis == 0 else "(D, T)"


def _video(
    path: Path,
    shape: tuple[int, int],
    axis: int,
    width: int,
    labels: int | None,
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
    )
