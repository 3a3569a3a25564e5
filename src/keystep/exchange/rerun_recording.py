"""A Rerun recording: the label as a state over time, and the video where it is given (https://rerun.io)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from keystep.errors import InputError, one_line
from keystep.evals.palette import Palette
from keystep.exchange.formats import Recording, missing_extra

TIMELINE, STATE, VIDEO = "video_time", "steps", "video"


class Rerun:
    """One .rrd a video."""

    ending = ""
    loses = "rerun joins segments that touch and have one label"
    needs_frames = needs_video = False
    read = None

    def files(self, names: Sequence[str]) -> list[str]:
        """One a video."""
        return [f"{name}.rrd" for name in names]

    def write(self, recordings: Sequence[Recording], classes: Sequence[str], folder: Path) -> None:
        """A change of state at each border, with the colours that keystep draws classes in; MP4 files go in whole."""
        rerun, palette = _rerun(), Palette(classes)
        colours = [int(palette.colour(index)[1:] + "ff", 16) for index in range(len(classes))]
        for recording in recordings:
            stream = rerun.RecordingStream("keystep", recording_id=recording.name, send_properties=False)
            stream.save(folder / f"{recording.name}.rrd")
            stream.log(STATE, rerun.StateConfiguration(values=list(classes), colors=colours), static=True)
            _log_states(rerun, stream, recording)
            if recording.video is not None and recording.video.suffix.lower() == ".mp4":
                _log_video(rerun, stream, recording.video)
            stream.disconnect()


def _log_states(rerun: ModuleType, stream: Any, recording: Recording) -> None:
    ends = [*(after.start for _, after in pairwise(recording.stretches)), None]
    for (start, end, label), after in zip(recording.stretches, ends, strict=True):
        stream.set_time(TIMELINE, duration=float(start))
        stream.log(STATE, rerun.StateChange(state=label))
        if end != after:
            stream.set_time(TIMELINE, duration=float(end))
            stream.log(STATE, rerun.StateChange(state=[None]))


def _log_video(rerun: ModuleType, stream: Any, path: Path) -> None:
    asset = rerun.AssetVideo(path=path)
    try:
        moments = asset.read_frame_timestamps_nanos()
    except RuntimeError as error:
        raise InputError(f"{path}: Rerun cannot read this video: {one_line(error)}") from error
    stream.log(VIDEO, asset, static=True)
    columns = rerun.VideoFrameReference.columns_nanos(moments)
    stream.send_columns(VIDEO, [rerun.TimeColumn(TIMELINE, duration=1e-9 * moments)], columns)


def _rerun() -> ModuleType:
    try:
        import rerun
    except ImportError as error:
        raise missing_extra("writing Rerun recordings", "rerun-sdk", "rerun") from error
    found: ModuleType = rerun
    return found
