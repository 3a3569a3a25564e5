"""Commands that find the steps of a procedure, their order, and where listed steps are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import (
    Data,
    Groups,
    OnError,
    Overwrite,
    Rate,
    SourceRate,
    app,
    console,
    models_exist,
    paths_exist,
)

PANEL = "Procedures"


@app.command(rich_help_panel=PANEL)
def discover(
    data: Data,
    clusters: Annotated[int, typer.Option(min=2, help="Number of clusters, K.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="NAME=RUN[,RUN...]: runs of one recipe with different seeds.", callback=models_exist
        ),
    ] = None,
    matching: Annotated[
        str, typer.Option(help="Match clusters to key-steps per 'video', or once per 'task'.")
    ] = "video",
    split: Annotated[str | None, typer.Option(help="Name of the split; by default, all videos are used.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split to use: test, valid, train or all.")] = "test",
    background: Annotated[
        list[str] | None,
        typer.Option(help="Class that is not a key-step. Repeatable. See also --set background=unmatched."),
    ] = None,
    task_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression for the task in a video's name, such as 'S2_(.+)_C1'; tasks are separate studies."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for discovery.json and discovery.png.")] = Path("discovery"),
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting: clustering, convention, background or starts. Repeatable."),
    ] = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Discover key-steps without labels: cluster frames, match clusters to true steps, compare with controls."""
    from keystep.cli.discovering import discover_folder

    discover_folder(
        data,
        model or [],
        out,
        clusters,
        matching,
        split,
        part,
        background or [],
        task_pattern,
        source_rate,
        rate,
        settings or [],
        on_error,
        console,
        persons=groups,
        overwrite=overwrite,
    )


@app.command(rich_help_panel=PANEL)
def graph(
    data: Annotated[
        Path,
        typer.Argument(help="Feature folder, or a graph.json that this command wrote.", callback=paths_exist),
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write; its ending chooses: .json, .dot, .mmd, .png or .svg. Repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Name of the split; by default, all videos are used.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split to use: train, valid or test.")] = "train",
    labels: Annotated[
        Path | None,
        typer.Option(help="Use the labels in this folder (keystep predict: OUT/labels).", callback=paths_exist),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=2, help="Use no labels: steps are this number of clusters of the features.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --clusters: cluster the latents of this model.", callback=models_exist)
    ] = None,
    task: Annotated[str | None, typer.Option(help="Use only videos of this task.")] = None,
    task_pattern: Annotated[str | None, typer.Option(help="Regular expression for the task in a video's name.")] = None,
    background: Annotated[list[str] | None, typer.Option(help="Class that is not a step. Repeatable.")] = None,
    start: Annotated[
        str | None, typer.Option(help="First step of the procedure, where a video shows it several times in a row.")
    ] = None,
    min_seconds: Annotated[float, typer.Option(min=0, help="Leave out shorter segments.")] = 0.0,
    done: Annotated[
        list[str] | None, typer.Option(help="Print what can come next after this step. Repeat for several, in order.")
    ] = None,
    source_rate: SourceRate = None,
    rate: Rate = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting: confidence, support, required or repeatable. Repeatable."),
    ] = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Learn a procedure as a graph: which steps come before which, are optional or repeated, and can come next."""
    from keystep.cli.graph import GraphSource, graph_command

    source = GraphSource(
        split=split,
        part=part,
        labels=labels,
        clusters=clusters,
        model=model,
        task=task,
        task_pattern=task_pattern,
        background=background or [],
        start=start,
        min_seconds=min_seconds,
        source_rate=source_rate,
        rate=rate,
        on_error=on_error,
    )
    graph_command(data, out or [], source, done, settings or [], console, overwrite=overwrite)


@app.command(rich_help_panel=PANEL)
def align(
    data: Data,
    steps: Annotated[
        Path,
        typer.Option(
            help="Folder of VIDEO.txt, the name of one step a line, in the order of the video; no times.",
            callback=paths_exist,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels/, head.safetensors and alignment.json.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder or hub id whose latents are aligned. Default: raw features.", callback=models_exist
        ),
    ] = None,
    source_rate: SourceRate = None,
    rate: Rate = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting, such as skip=20 (a listed step may be missing) or drop=0.05. Repeatable."),
    ] = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Label frames from ordered lists of steps without times, and fit a head to them."""
    from keystep.cli.aligning import align_command

    align_command(data, steps, out, model, source_rate, rate, settings or [], on_error, console, overwrite=overwrite)
