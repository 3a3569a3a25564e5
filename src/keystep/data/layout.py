"""What lies in a feature folder: which arrays, which axis is time, which labels fit. Headers and label files only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from keystep.files import read_json

LENGTH_TOLERANCE = 16
"""Frames by which features and labels of one video may differ; the surplus is cut and reported."""


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
        raise InputError(f"{root}: no features/*.npy here; keystep reads a folder with one array a video")
    return paths


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
        near = sum(difference <= LENGTH_TOLERANCE for difference in apart)
        return near, len({shape[axis] for shape in shapes.values()}), apart.count(0)

    if fits(0) == fits(1):
        shape, length = next(iter(shapes.values()), None), next(iter(label_lengths.values()), None)
        raise InputError(
            f"{root}: cannot tell time from width: first array has shape {shape}, its labels {length} lines; write "
            '{"time_axis": 1} into store.json for (D, T) arrays, 0 for (T, D)'
        )
    return 0 if fits(0) > fits(1) else 1


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
        raise InputError(f"{path}: width {shape[1 - axis]} in shape {shape}; the other videos have {width}")
    frames, fits = shape[axis], False
    with _label_problems(path, problems, labels_needed):
        if labels is not None and abs(labels - frames) > LENGTH_TOLERANCE:
            raise InputError(
                f"{path}: {frames} frames of features (shape {shape}) but {labels} labels in groundTruth/; "
                f"more than {LENGTH_TOLERANCE} apart"
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
