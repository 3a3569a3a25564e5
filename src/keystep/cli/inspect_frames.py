"""Plots of extracted features together with the frames of their videos."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from matplotlib.figure import Figure

from keystep.cli import film
from keystep.data.folder import FeatureFolder
from keystep.evals.palette import Palette
from keystep.evals.plots import plain
from keystep.files import replacing
from keystep.reading import read_json
from keystep.terminal import clock

SHOWN_VIDEOS = 4


def draw_frames(folder: FeatureFolder, picture: Path) -> bool:
    """Draw frames, features and labels of up to four videos; return False if no video file is available."""
    sources = _sources(folder)
    if not sources:
        return False
    labelled = {name: folder.video(name).labels is not None for name in sources}
    ratios = [[2.0, 0.8, 1.0] if labelled[name] else [2.0, 1.1] for name in sources]
    height = sum(2.6 if found else 2.0 for found in labelled.values())
    figure = Figure(figsize=(13, height), layout="constrained")
    axes = iter(figure.subplots(sum(map(len, ratios)), 1, height_ratios=[*chain(*ratios)], squeeze=False)[:, 0])
    palette = Palette(folder.classes)
    strips = []
    for (name, source), rows in zip(sources.items(), ratios, strict=True):
        own = [next(axes) for _ in rows]
        times = folder.times(name)
        start, stop = float(times[0]), max(float(times[-1]), float(times[0]) + 0.1)
        strips.append((own[0], source, start, stop))
        own[0].set_title(
            plain(f"{name}: {len(times):,} slots, {clock(start)} to {clock(stop)}"), fontsize=9, loc="left"
        )
        film.features(own[1], folder.features(name), start, stop)
        own[1].set_ylabel("features", fontsize=8, rotation=0, ha="right", va="center")
        if labelled[name]:
            own[1].set_xticks([])
            film.steps(own[2], folder.labels(name), palette, start, stop)
            own[2].set_ylabel("labels", fontsize=8, rotation=0, ha="right", va="center")
    for strip in strips:
        film.frames(*strip)
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


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
