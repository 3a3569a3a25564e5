"""What trains, judges and applies models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keystep.cli.base import (
    Data,
    Groups,
    OnError,
    Overwrite,
    Rate,
    Set,
    SourceRate,
    Split,
    app,
    console,
    model_there,
    there,
)

PANEL = "Learning and judging"


@app.command(rich_help_panel=PANEL)
def demo(
    out: Annotated[Path, typer.Option(help="Where data, runs and report go.")] = Path("demo"),
    world: Annotated[int, typer.Option(min=0, help="Seed of the synthetic steps, tasks and videos.")] = 0,
) -> None:
    """See it work: synthetic procedures, pretraining without labels, and an honest report. Needs no download."""
    from keystep.cli.demo import run_demo

    run_demo(out, console, world=world)


@app.command(rich_help_panel=PANEL)
def pretrain(
    data: Annotated[
        Path | None, typer.Argument(help="Folder with features/*.npy; labels are not used.", callback=there)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; must be empty or absent.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings (see 'keystep config').", callback=there)
    ] = None,
    preset: Annotated[str, typer.Option(help="tiny, small, surgical or paper.")] = "tiny",
    source_rate: SourceRate = None,
    rate: Rate = None,
    split: Annotated[
        str | None, typer.Option(help="Train on this split's training videos only; needed for an honest eval.")
    ] = None,
    groups: Groups = None,
    settings: Set = None,
    on_error: Annotated[str | None, typer.Option(help="'raise' or 'skip' bad videos.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Train so many models side by side, in OUT/seed0 and so on: a claim needs 3.", min=1),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run, or these seeds, from the newest checkpoint.", callback=there),
    ] = None,
) -> None:
    """Learn representations from features alone. Ctrl-C saves; --resume goes on to the same result."""
    from keystep.config import run_config, seed_runs
    from keystep.data.layout import feature_files
    from keystep.errors import InputError

    if resume is not None:
        if any(
            value is not None for value in (data, out, config, source_rate, rate, split, groups, settings, on_error)
        ):
            raise InputError("--resume takes everything from the run's config.yaml; give no other option but --seeds")
        begun = seed_runs(resume)
        seeds = seeds or len(begun) or None
        run, settled = resume, run_config(begun[0] if begun else resume)
    else:
        flags = {"root": data, "source_rate": source_rate, "rate": rate, "split": split, "on_error": on_error}
        flags |= {"groups": groups}
        if out is None:
            raise InputError("no folder for the run; give --out runs/NAME")
        run, settled = out, _run_config(config, preset, flags, settings)
    feature_files(settled.data.root)  # before the imports that take seconds

    from keystep.cli.onward import after_training
    from keystep.cli.training import train

    train(settled, run, seeds=seeds, resume=resume is not None, console=console)
    if settled.model.oracle:
        console.print("ORACLE: this model needs true segment boundaries wherever it is used")
    elif settled.train.crop_segments is not None:
        console.print("note: its crops followed true segments; the model itself needs none")
    after_training(settled, run)


@app.command(rich_help_panel=PANEL)
def config(
    preset: Annotated[str, typer.Option(help="tiny, small, surgical or paper.")] = "tiny",
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema instead, for editors.")] = False,
) -> None:
    """Print every setting of a preset with its meaning, as a YAML file to start from."""
    from keystep.config.commented import commented_yaml, json_schema

    print(json_schema() if schema else commented_yaml(preset))


@app.command(rich_help_panel=PANEL)
def encode(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.", callback=model_there)],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the latents.")],
    layout: Annotated[
        str, typer.Option(help="'native': (T, D) at the pooled rate. 'mstcn': (D, T) at the source rate, with labels.")
    ] = "native",
    live: Annotated[bool, typer.Option("--live", help="Use the causal attention that a stream would use.")] = False,
    source_rate: SourceRate = None,
    rate: Rate = None,
    on_error: OnError = "raise",
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32.")] = False,
    bands: Annotated[
        str | None, typer.Option(help="Only these bands, such as 'context' or 'steady,context': narrower latents.")
    ] = None,
) -> None:
    """Write latents of whole videos; finished videos are not done again."""
    from keystep.cli.encode import encode_folder

    encode_folder(model, data, out, layout, live, source_rate, rate, on_error, half, bands, console)


@app.command("eval", rich_help_panel=PANEL)
def evaluate(
    data: Data,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="NAME=RUN[,RUN...]: runs of one recipe over seeds. Repeat to compare recipes.",
            callback=model_there,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for result, pictures and report.")] = Path("results"),
    split: Split = "1",
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    settings: Set = None,
    on_error: OnError = "raise",
    suite: Annotated[
        str | None,
        typer.Option(help="'paper': temporal heads too (MS-TCN++, long context), beside the paper's printed rows."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(help="A task of your own, package.module:Name, whose table stands beside that of segmentation."),
    ] = "segmentation",
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: fewer controls and rows, of which nothing may be claimed.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Judge models against raw features and the controls, with linear probes; write table, pictures, report."""
    from keystep.cli.evaluation import evaluate_folder

    evaluate_folder(
        *(data, model or [], out, split, source_rate, rate, settings or [], on_error, console),
        suite=suite,
        task=task,
        persons=groups,
        quick=quick,
        overwrite=overwrite,
    )


@app.command(rich_help_panel=PANEL)
def discover(
    data: Data,
    clusters: Annotated[int, typer.Option(min=2, help="K, the number of clusters.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="NAME=RUN[,RUN...]: runs of one recipe over seeds.", callback=model_there),
    ] = None,
    matching: Annotated[
        str, typer.Option(help="Match clusters to key-steps anew in every 'video', or once for a 'task'.")
    ] = "video",
    split: Annotated[str | None, typer.Option(help="Split K; by default all videos are clustered and scored.")] = None,
    part: Annotated[str, typer.Option(help="Which of the split's videos: test, valid, train or all.")] = "test",
    background: Annotated[
        list[str] | None, typer.Option(help="Class that is no key-step; see --set background=unmatched.")
    ] = None,
    task_pattern: Annotated[
        str | None, typer.Option(help="Finds a video's task in its name, such as 'S2_(.+)_C1'; each is its own study.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for discovery.json and discovery.png.")] = Path("discovery"),
    source_rate: SourceRate = None,
    rate: Rate = None,
    groups: Groups = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="clustering, convention, background, starts. Repeat as needed."),
    ] = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
) -> None:
    """Find key-steps without labels: cluster frames, match clusters to true steps, compare with the controls."""
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


@app.command("run", rich_help_panel=PANEL)
def run_(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/gtea.yaml.")],
    root: Annotated[Path, typer.Option(help="The folder that the data set was downloaded to, or a feature folder.")],
    out: Annotated[Path, typer.Option(help="Folder for data, runs and results; a run that was stopped goes on.")],
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each model, instead of the recipe's.")] = None,
    models: Annotated[str, typer.Option(help="Only these of the recipe's models, such as pjepa,paper.")] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each model; a claim needs 3.")] = 1,
    split: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    preparation: Annotated[
        list[str] | None, typer.Option("--prepare-set", help="As for keystep prepare --set. Repeat as needed.")
    ] = None,
    settings: Set = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval-set", help="As for keystep eval --set. Repeat as needed.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="'paper': temporal heads too, beside the paper's printed rows.")
    ] = None,
    suite_settings: Annotated[
        list[str] | None, typer.Option("--suite-set", help="As for keystep eval --suite paper --set. Repeat as needed.")
    ] = None,
    on_error: OnError = "raise",
) -> None:
    """Run a recipe: prepare a data set, pretrain its models, judge them."""
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
    result: Annotated[Path, typer.Argument(help="A folder that 'keystep eval' wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown too.")] = False,
) -> None:
    """Draw the report of a result again (no data or model needed)."""
    from keystep.cli.evaluation import show_report

    show_report(result, console, markdown)


def _run_config(file: Path | None, preset: str, flags: dict[str, Any], settings: list[str] | None) -> Any:
    """Preset, then file, then flags, then --set."""
    from keystep.config import RunConfig
    from keystep.config.base import assignments, build, read_yaml
    from keystep.config.presets import preset_settings
    from keystep.errors import InputError
    from keystep.plugins import TARGETS

    given = {name: value for name, value in flags.items() if value is not None}
    layers = [preset_settings(preset), read_yaml(file) if file else {}, {"data": given}, assignments(settings or [])]
    sections = [layer.get("data") for layer in layers]
    if not any(isinstance(section, dict) and section.get("root") for section in sections):
        raise InputError("no data; name the folder with features/*.npy: keystep pretrain DATA --out runs/NAME")
    found = build(RunConfig, *layers)
    TARGETS.check(found.target.kind)  # before the imports that take seconds
    return found


if __name__ == "__main__":
    sys.exit(app())
