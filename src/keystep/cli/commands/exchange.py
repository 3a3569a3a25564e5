"""Commands that exchange annotations with other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import Data, Overwrite, SourceRate, app, console, paths_exist

exchange = typer.Typer(help="Exchange annotations with other programs, as files.", no_args_is_help=True)
app.add_typer(exchange, name="annotations", rich_help_panel="Videos and features")
Videos = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the videos themselves (NAME.mp4 or another ending), for formats that count their frames.",
        callback=paths_exist,
    ),
]
FrameRate = Annotated[str | None, typer.Option(help="Video frames per second (25, 30000/1001), if no file states it.")]
FORMATS = "csv, webvtt, elan, labelstudio, cvat or mstcn"


@exchange.command("export")
def export_annotations_(
    data: Data,
    form: Annotated[
        str, typer.Option("--format", help=f"{FORMATS}; or, only for export, fiftyone, lerobot, rerun or mp4.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the files to.")],
    names: Annotated[list[str] | None, typer.Option("--name", help="Export only this video. Repeatable.")] = None,
    split: Annotated[str | None, typer.Option(help="Export only the videos of this split.")] = None,
    part: Annotated[str | None, typer.Option(help="With --split: only its 'train', 'valid' or 'test' videos.")] = None,
    videos: Videos = None,
    frame_rate: FrameRate = None,
    source_rate: SourceRate = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the labels of a feature folder as files of another annotation program, and list what is lost."""
    from keystep.cli.data import open_data
    from keystep.cli.exchange import chosen_videos, show_exported
    from keystep.cli.progress import progress_on
    from keystep.exchange import export_annotations

    folder = open_data(data, source_rate, None, "raise")
    done = export_annotations(
        folder,
        form,
        out,
        names=chosen_videos(folder, names, split, part),
        videos=videos,
        frame_rate=frame_rate,
        overwrite=overwrite,
        progress=progress_on(console),
    )
    show_exported(done, out, console)


@exchange.command("import")
def import_annotations_(
    files: Annotated[list[Path], typer.Argument(help="Annotation files.", callback=paths_exist)],
    data: Annotated[
        Path,
        typer.Option(help="Feature folder of the videos; gets groundTruth/ and mapping.txt.", callback=paths_exist),
    ],
    form: Annotated[
        str | None, typer.Option("--format", help=f"{FORMATS}; by default guessed from the files' ending.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="ELAN tier or Label Studio tag to read, if a file has several.")
    ] = None,
    videos: Videos = None,
    frame_rate: FrameRate = None,
    source_rate: SourceRate = None,
    overwrite: Overwrite = False,
) -> None:
    """Read files of another annotation program into a feature folder, and list what was rounded, dropped or unknown."""
    from keystep.cli.data import open_data
    from keystep.cli.exchange import show_imported
    from keystep.exchange import import_annotations

    done = import_annotations(
        open_data(data, source_rate, None, "raise", labels_needed=False),
        files,
        form,
        videos=videos,
        frame_rate=frame_rate,
        track=track,
        overwrite=overwrite,
    )
    show_imported(done, {"--source-rate": source_rate}, console)
