"""Labels as files of other programs."""

from __future__ import annotations

import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response

from keystep.data.folder import open_dataset
from keystep.exchange import export_annotations
from keystep.serve.schema import Error
from keystep.serve.services import Own, Services

router = APIRouter(prefix="/api")

Format = Literal["csv", "webvtt", "elan", "labelstudio", "cvat", "mstcn", "fiftyone", "lerobot"]
"""Formats that are part of keystep: a request never names code."""
NOTES = "NOTES.txt"
"""Name of the file that says what the format could not hold."""


@router.get(
    "/export",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        422: {"model": Error},
    },
)
def export(own: Own, format: Format = "csv") -> Response:
    """All labels as files of another program, in one archive; a note in it says what the format could not hold."""
    with tempfile.TemporaryDirectory(prefix="keystep-") as folder:
        packed = _exported(own, format, Path(folder) / "labels")
    headers = {"Content-Disposition": f'attachment; filename="labels-{format}.zip"'}
    return Response(packed, media_type="application/zip", headers=headers)


def _exported(own: Services, form: str, out: Path) -> bytes:
    workspace = own.workspace
    labelled = open_dataset(workspace.root, source_rate=workspace.folder.source.rate, problems="skip")
    places = {path.parent for path in map(workspace.recording, workspace.names) if path is not None}
    done = export_annotations(labelled, form, out, videos=places.pop() if len(places) == 1 else None)
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in done.paths:
            file.write(path, path.relative_to(out))
        if done.notes:
            file.writestr(NOTES, "".join(f"{line}\n" for line in done.notes))
    return archive.getvalue()
