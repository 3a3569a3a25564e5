"""Commands that open a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import Data, Set, SourceRate, app, console, models_exist, paths_exist

PANEL = "Look and label"

Host = Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")]
Token = Annotated[
    str | None, typer.Option(help="Token that every request has to bring; by default one is made where it is needed.")
]
AllowSources = Annotated[
    bool,
    typer.Option("--allow-sources", help="Let requests open addresses (RTSP, HTTP, ...) and cameras as live streams."),
]
LiveWindow = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Frames of the past that live streams attend to, for models without a window; by default as many as "
        "64 MiB hold.",
    ),
]


@app.command(rich_help_panel=PANEL)
def serve(
    data: Data,
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings, named as the feature files are.", callback=paths_exist),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, model folder or Hugging Face id: its latents are shown and learned from.",
            callback=models_exist,
        ),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(help="Head written by 'keystep eval', whose predictions are shown as well.", callback=paths_exist),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    allow_sources: AllowSources = False,
    live_window: LiveWindow = None,
    source_rate: SourceRate = None,
) -> None:
    """Look at videos, label them and learn from the labels, on a page in the browser (needs the extra 'serve')."""
    from keystep.cli.serving import Listening, serve_data

    serve_data(
        data, videos, model, head, source_rate, Listening(host, port, token, allow_sources), console, live_window
    )


@app.command(rich_help_panel=PANEL)
def label(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.", callback=paths_exist)],
    out: Annotated[Path, typer.Option(help="Folder for features, labels and the model; what is done there stays.")],
    backbone: Annotated[str, typer.Option(help="As in 'keystep extract'.")] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the backbone; by default from the cache.", callback=paths_exist)
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset of the model: tiny, small, surgical or paper.")] = "tiny",
    settings: Set = None,
    raw: Annotated[bool, typer.Option("--raw", help="Learn no model: label by the features alone.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Search subfolders too; videos are named by their path.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    allow_sources: AllowSources = False,
    live_window: LiveWindow = None,
) -> None:
    """From a folder of videos to a labelled data set: extract features, pretrain, and serve. Run again to go on."""
    from keystep.cli.serving import Listening, label_videos
    from keystep.config.base import assignments

    label_videos(
        videos,
        out,
        Listening(host, port, token, allow_sources),
        console,
        live_window,
        backbone=backbone,
        weights=weights,
        preset=preset,
        settings=assignments(settings or []),
        learn=not raw,
        recursive=recursive,
    )
