"""Commands that train, apply and evaluate models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keystep.cli.base import (
    Address,
    Data,
    EngineName,
    Groups,
    OnError,
    Overwrite,
    Rate,
    Set,
    SinkName,
    SourceRate,
    Split,
    Workers,
    app,
    console,
    models_exist,
    paths_exist,
)

PANEL = "Training and evaluation"


@app.command(rich_help_panel=PANEL)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    world: Annotated[int, typer.Option(min=0, help="Seed of the synthetic steps, tasks and videos.")] = 0,
) -> None:
    """Run a demo: synthetic procedures, pretraining without labels, and an honest report. Needs no download."""
    from keystep.cli.demo import run_demo

    run_demo(out, console, world=world)


@app.command(rich_help_panel=PANEL)
def pretrain(
    data: Annotated[
        Path | None,
        typer.Argument(help="Feature folder, with features/*.npy; labels are not used.", callback=paths_exist),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; must be empty or not exist yet.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings (see 'keystep config').", callback=paths_exist)
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset: tiny, small, surgical or paper.")] = "tiny",
    source_rate: SourceRate = None,
    rate: Rate = None,
    split: Annotated[
        str | None,
        typer.Option(help="Train only on the training videos of this split; required for a fair evaluation."),
    ] = None,
    groups: Groups = None,
    settings: Set = None,
    on_error: Annotated[
        str | None, typer.Option(help="'raise': stop at an invalid video. 'skip': leave it out and list it.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Train this many models with different seeds, in OUT/seed0, OUT/seed1, ...; a claim needs 3.", min=1
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Resume this run, or folder of seeds, from the latest checkpoint.", callback=paths_exist),
    ] = None,
) -> None:
    """Pretrain a model on features, without labels. Ctrl-C saves a checkpoint; --resume gives the same result."""
    from keystep.config import run_config, seed_runs
    from keystep.data.layout import feature_files
    from keystep.errors import InputError

    if resume is not None:
        if any(
            value is not None for value in (data, out, config, source_rate, rate, split, groups, settings, on_error)
        ):
            raise InputError(
                "--resume reads all settings from the run's config.yaml; the only other option allowed is --seeds"
            )
        seeded = seed_runs(resume)
        seeds = seeds or len(seeded) or None
        run, settled = resume, run_config(seeded[0] if seeded else resume)
    else:
        flags = {"root": data, "source_rate": source_rate, "rate": rate, "split": split, "on_error": on_error}
        flags |= {"groups": groups}
        if out is None:
            raise InputError("the run needs a folder; give --out runs/NAME")
        run, settled = out, _run_config(config, preset, flags, settings)
    feature_files(settled.data.root)  # before slow imports

    from keystep.cli.onward import after_training
    from keystep.cli.training import train

    train(settled, run, seeds=seeds, resume=resume is not None, console=console)
    if settled.model.oracle:
        console.print("ORACLE: this model needs true segment boundaries as input")
    elif settled.train.crop_segments is not None:
        console.print("note: training crops followed true segments; the model itself does not need them")
    after_training(settled, run)


@app.command(rich_help_panel=PANEL)
def config(
    preset: Annotated[str, typer.Option(help="Preset: tiny, small, surgical or paper.")] = "tiny",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema instead, for editors.")] = False,
) -> None:
    """Print all settings of a preset with their descriptions, as a YAML file to edit."""
    from keystep.config.commented import commented_yaml, json_schema

    print(json_schema() if schema else commented_yaml(preset))


@app.command(rich_help_panel=PANEL)
def encode(
    model: Annotated[str, typer.Argument(help="Run folder, model folder or Hugging Face id.", callback=models_exist)],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the latents.")],
    layout: Annotated[
        str, typer.Option(help="'native': (T, D) at the model's rate. 'mstcn': (D, T) at the source rate, with labels.")
    ] = "native",
    live: Annotated[bool, typer.Option("--live", help="Use the causal attention of live streams.")] = False,
    source_rate: SourceRate = None,
    rate: Rate = None,
    on_error: OnError = "raise",
    half: Annotated[bool, typer.Option("--half", help="Write float16 instead of float32.")] = False,
    bands: Annotated[
        str | None, typer.Option(help="Write only these bands of the latents, such as 'context' or 'steady,context'.")
    ] = None,
    sink: SinkName = "folder",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
) -> None:
    """Encode videos and write their latents; finished videos are skipped."""
    from keystep.cli.encode import encode_folder
    from keystep.engines import find_engine

    found = find_engine(engine, address, workers)
    encode_folder(model, data, out, layout, live, source_rate, rate, on_error, half, bands, sink, found, console)


@app.command("eval", rich_help_panel=PANEL)
def evaluate(
    data: Data,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="NAME=RUN[,RUN...]: runs of one recipe with different seeds. Repeat to compare recipes.",
            callback=models_exist,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result, plots and report.")] = Path("results"),
    split: Split = "1",
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    settings: Set = None,
    on_error: OnError = "raise",
    suite: Annotated[
        str | None,
        typer.Option(
            help="'paper': also train temporal heads (MS-TCN++, long context), and show the paper's published rows."
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="Additional task with its own table: 'anticipate' (later steps), 'remaining' (the time left), "
            "'mistakes' (in runs), or one of your own, package.module:Name."
        ),
    ] = "segmentation",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fast preview with fewer controls and rows; supports no claims.")
    ] = False,
    overwrite: Overwrite = False,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
) -> None:
    """Evaluate models with linear probes against raw features and controls; write tables, plots and a report."""
    from keystep.cli.evaluation import evaluate_folder
    from keystep.engines import find_engine

    evaluate_folder(
        *(data, model or [], out, split, source_rate, rate, settings or [], on_error, console),
        suite=suite,
        task=task,
        persons=groups,
        quick=quick,
        overwrite=overwrite,
        engine=find_engine(engine, address, workers),
    )


@app.command("run", rich_help_panel=PANEL)
def run_(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, such as recipes/gtea.yaml.")],
    root: Annotated[Path, typer.Option(help="Folder that the data set was downloaded to, or a feature folder.")],
    out: Annotated[Path, typer.Option(help="Folder for data, runs and results; an interrupted run is resumed.")],
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per model; overrides the recipe.")] = None,
    models: Annotated[str, typer.Option(help="Run only these models of the recipe, such as pjepa,paper.")] = "",
    seeds: Annotated[int, typer.Option(help="Number of seeds per model; a claim needs 3.")] = 1,
    split: Annotated[str | None, typer.Option(help="Name of the split; overrides the recipe.")] = None,
    preparation: Annotated[
        list[str] | None, typer.Option("--prepare-set", help="Same as keystep prepare --set. Repeatable.")
    ] = None,
    settings: Set = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval-set", help="Same as keystep eval --set. Repeatable.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="'paper': also train temporal heads, and show the paper's published rows.")
    ] = None,
    suite_settings: Annotated[
        list[str] | None, typer.Option("--suite-set", help="Same as keystep eval --suite paper --set. Repeatable.")
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Run a recipe: prepare a data set, pretrain models and evaluate them."""
    from keystep.cli.recipe import run_recipe

    run_recipe(
        recipe,
        root,
        out,
        [name for name in models.split(",") if name],
        console,
        steps=steps,
        seeds=seeds,
        split=split,
        options=preparation or [],
        settings=settings or [],
        evaluation=evaluation or [],
        suite=suite,
        suite_settings=suite_settings or [],
        on_error=on_error,
    )


@app.command(rich_help_panel=PANEL)
def report(
    result: Annotated[Path, typer.Argument(help="Folder written by 'keystep eval'.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Also print the table as Markdown.")] = False,
) -> None:
    """Write the report of a result again (without data or models)."""
    from keystep.cli.evaluation import show_report

    show_report(result, console, markdown)


def _run_config(file: Path | None, preset: str, flags: dict[str, Any], settings: list[str] | None) -> Any:
    """Build the config; --set overrides flags, which override the file, which overrides the preset."""
    from keystep.config import RunConfig
    from keystep.config.base import assignments, build, read_yaml
    from keystep.config.presets import preset_settings
    from keystep.errors import InputError
    from keystep.plugins import TARGETS

    given = {name: value for name, value in flags.items() if value is not None}
    layers = [preset_settings(preset), read_yaml(file) if file else {}, {"data": given}, assignments(settings or [])]
    sections = [layer.get("data") for layer in layers]
    if not any(isinstance(section, dict) and section.get("root") for section in sections):
        raise InputError("no data given; name a feature folder: keystep pretrain DATA --out runs/NAME")
    found = build(RunConfig, *layers)
    TARGETS.check(found.target.kind)  # before slow imports
    return found


if __name__ == "__main__":
    sys.exit(app())
