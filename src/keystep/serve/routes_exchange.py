"""Labels as files of other programs."""

from __future__ import annotations

import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from keystep.data.folder import open_dataset
from keystep.errors import InputError, one_line
from keystep.exchange import FORMATS, export_annotations
from keystep.exchange.formats import format_of
from keystep.serve.schema import Error, FormatItem, Formats
from keystep.serve.services import Own, Services

router = APIRouter(prefix="/api")

NOTES = "NOTES.txt"
"""Name of the file that says what the format could not hold."""
SAID = "Keystep-Notes"
"""Header with the first of these lines, percent-encoded, so that the page can show them."""
MOST_SAID = 20


@router.get("/formats")
def formats(own: Own) -> Formats:
    """Formats that labels can be exported to: keystep's own, and those of installed packages."""
    filmed = any(own.workspace.recording(name) is not None for name in own.workspace.names)
    return Formats(items=[_described(name, filmed) for name in FORMATS.names()])


@router.get(
    "/export",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        404: {"model": Error},
        422: {"model": Error},
    },
)
async def export(
    own: Own,
    format: Annotated[str, Query(max_length=100)] = "csv",
    video: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> FileResponse:
    """Labels of one or of all videos as files of another program, in one archive; a note in it and the header
    ``Keystep-Notes`` say what the format could not hold."""
    if format not in FORMATS.names():  # a request never names code
        raise HTTPException(422, f"no such format; there are {', '.join(FORMATS.names())}")
    names = [] if video is None else [own.name(video)]
    folder = tempfile.TemporaryDirectory(prefix="keystep-")
    try:
        packed, notes = await to_thread.run_sync(_exported, own, format, names, Path(folder.name), limiter=_one())
    except BaseException:
        folder.cleanup()
        raise
    said = [*notes[:MOST_SAID], *[f"and {len(notes) - MOST_SAID} more lines in {NOTES}"] * (len(notes) > MOST_SAID)]
    return FileResponse(
        packed,
        media_type="application/zip",
        filename=f"{'-'.join(['labels', format, *names])}.zip",
        headers={SAID: quote("\n".join(said))},
        background=BackgroundTask(folder.cleanup),
    )


@cache
def _one() -> CapacityLimiter:
    return CapacityLimiter(1)


def _described(name: str, filmed: bool) -> FormatItem:
    try:
        found = format_of(name)
    except InputError as error:
        return FormatItem(name=name, loses="", problem=str(error))
    lacking = found.needs_video and not filmed
    return FormatItem(name=name, loses=found.loses, problem="needs recordings: --videos DIR" if lacking else "")


def _exported(own: Services, form: str, names: list[str], place: Path) -> tuple[Path, list[str]]:
    """The archive in ``place``, and what its files could not hold."""
    workspace, out = own.workspace, place / "labels"
    packed = place / "labels.zip"
    labelled = open_dataset(workspace.root, source_rate=workspace.folder.source.rate, problems="skip")
    films = {name: path for name in workspace.names if (path := workspace.recording(name)) is not None}
    done = export_annotations(labelled, form, out, names=names, videos=films)
    try:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for path in done.paths:
                smaller = zipfile.ZIP_STORED if path.suffix == ".mp4" else None
                file.write(path, path.relative_to(out), compress_type=smaller)
            if done.notes:
                file.writestr(NOTES, "".join(f"{line}\n" for line in done.notes))
    except OSError as error:
        raise InputError(f"{packed.name}: cannot be written: {one_line(error)}") from error
    return packed, done.notes
