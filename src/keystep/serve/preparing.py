"""From a folder of videos to what can be labelled: features, and a model where there is enough to learn one from.

::

    OUT/features/    the feature folder, with the labels
    OUT/run/         the pretraining run

Whatever is finished is not done again, so that a run that was stopped goes on, and new videos are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystep.config import RunConfig, build, run_config
from keystep.config.presets import preset_settings
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError
from keystep.extraction.listing import find_videos
from keystep.extraction.run import Extracted, extract
from keystep.progress import SILENT, Progress
from keystep.train.run import pretrain

FEWEST_VIDEOS, FEWEST_MINUTES = 8, 30
"""What a model is learned from at least. A judgement, not a measurement: of less, it hardly sees a step twice."""


@dataclass(frozen=True)
class PreparedVideos:
    """What can be served.

    folder: the features. recordings: name -> file of each video. model: the run; None: ``reason`` says why there is no
    model, so that the features stand for the videos. extracted: what extraction has to say.
    """

    folder: FeatureFolder
    recordings: Mapping[str, Path]
    model: Path | None
    reason: str
    extracted: Extracted


def prepare(
    videos: Iterable[Path],
    out: Path,
    *,
    backbone: str = "efficientnet-lite0",
    weights: Path | None = None,
    preset: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    learn: bool = True,
    recursive: bool = False,
    progress: Progress = SILENT,
) -> PreparedVideos:
    """Extract the features of videos and pretrain a model on them, as far as that is not done yet.

    Args:
        settings: what differs from the preset.
        learn: False to go without a model.

    Raises:
        InputError: no videos, none that can be read, or what ``extract`` and ``pretrain`` refuse.
        Interrupted: asked to stop while training, after saving.
    """
    places = list(videos)
    recordings = find_videos(places, recursive)
    data = out / "features"
    done = extract(
        places,
        backbone,
        out=data,
        weights=weights,
        recursive=recursive,
        on_error="skip",
        progress=progress,
    )
    if not done.videos:
        raise InputError(f"{data}: not one of {done.asked} videos could be read; the reasons are in {data / 'skipped'}")
    folder = open_dataset(data, problems="skip")
    reason = _why_not(folder, learn)
    run = out / "run"
    if (run / "model").is_dir():
        return PreparedVideos(folder, recordings, run, "", done)  # also where videos were added since
    if not reason:
        if (run / "config.yaml").exists():
            pretrain(run_config(run), run, resume=True, progress=progress)
        else:
            given = {"data": {"root": data, "on_error": "skip"}}
            pretrain(build(RunConfig, preset_settings(preset), given, settings or {}), run, progress=progress)
    return PreparedVideos(folder, recordings, None if reason else run, reason, done)


def _why_not(folder: FeatureFolder, learn: bool) -> str:
    """Why no model is learned; empty where one is."""
    if not learn:
        return "as asked, no model is learned"
    minutes = sum(folder.length(name) for name in folder.videos) / float(folder.timeline.rate) / 60
    if len(folder.videos) >= FEWEST_VIDEOS and minutes >= FEWEST_MINUTES:
        return ""
    return (
        f"{len(folder.videos)} videos of {minutes:.0f} minutes together are too few to learn a model from (it takes "
        f"{FEWEST_VIDEOS} videos and {FEWEST_MINUTES} minutes); their features are shown and learned from instead"
    )
