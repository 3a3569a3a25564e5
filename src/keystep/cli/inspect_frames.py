"""Plots of extracted features together with the frames of their videos."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keystep.cli import film
from keystep.data.folder import FeatureFolder
from keystep.evals.plots import plain
from keystep.files import replacing
from keystep.reading import read_json

SHOWN_VIDEOS = 4


def draw_frames(folder: FeatureFolder, picture: Path) -> bool:
    """Draw frames, features and labels of up to four videos; return False if no video file is available."""
    sources = _sources(folder)
    if not sources:
        return False
    labelled = any(folder.video(name).labels is not None for name in sources)
    rows = [2.0, 0.8, 1.0] if labelled else [2.0, 1.1]
    figure = Figure(figsize=(13, len(sources) * (2.6 if labelled else 2.0)), layout="constrained")
    axes = figure.subplots(len(sources) * len(rows), 1, height_ratios=rows * len(sources), squeeze=False)[:, 0]
    for index, (name, source) in enumerate(sources.items()):
        own = axes[index * len(rows) : (index + 1) * len(rows)]
        times = folder.times(name)
        start, stop = float(times[0]), max(float(times[-1]), float(times[0]) + 0.1)
        film.frames(own[0], source, start, stop)
        own[0].set_title(plain(f"{name}: {len(times):,} slots, {start:.2f} to {stop:.2f} s"), fontsize=9, loc="left")
        film.features(own[1], folder.features(name), start, stop)
        own[1].set_ylabel("features", fontsize=8, rotation=0, ha="right", va="center")
        if labelled:
            _labels(own[2], folder, name, start, stop)
            own[1].set_xticks([])
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def _labels(axes: Axes, folder: FeatureFolder, name: str, start: float, stop: float) -> None:
    if folder.video(name).labels is None:
        axes.set_axis_off()
        return
    film.steps(axes, folder.labels(name), folder.classes, start, stop)
    axes.set_ylabel("labels", fontsize=8, rotation=0, ha="right", va="center")


def _sources(folder: FeatureFolder) -> dict[str, Path]:
    """Return name -> video file for up to `SHOWN_VIDEOS` videos whose files are still in place."""
    found: dict[str, Path] = {}
    for name in folder.videos if folder.extraction is not None else ():
        record = folder.root / "features" / f"{name}.json"
        source = read_json(record).get("source") if record.exists() else None
        if isinstance(source, str) and Path(source).is_file() and name not in folder.problems.skipped:
            found[name] = Path(source)
        if len(found) == SHOWN_VIDEOS:
            break
    return found
