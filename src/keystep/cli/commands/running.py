"""Commands for live streams and other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import Overwrite, SourceRate, app, console, models_exist, paths_exist
from keystep.terminal import Terminal

PANEL = "Live streams and other formats"


@app.command(rich_help_panel=PANEL)
def predict(
    model: Annotated[str, typer.Argument(help="Run folder, model folder or Hugging Face id.", callback=models_exist)],
    videos: Annotated[list[Path], typer.Argument(help="Feature files (.npy) or video files.")],
    head: Annotated[
        Path,
        typer.Option(
            help="Head written by 'keystep eval': RESULT/heads/NAME-offline-seed0.safetensors.", callback=paths_exist
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels, probabilities and ribbons.")] = Path("predictions"),
    source_rate: SourceRate = None,
    backbone: Annotated[
        str | None, typer.Option(help="For videos: name of the backbone, if the head's features came from a plug-in.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="For videos: the backbone's weights.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the steps of recordings with an offline head; write labels, probabilities and ribbons."""
    from keystep.cli.predicting import predict_videos

    predict_videos(model, head, videos, out, source_rate, backbone, weights, overwrite, console)


@app.command(rich_help_panel=PANEL)
def stream(
    model: Annotated[str, typer.Argument(help="Run folder, model folder or Hugging Face id.", callback=models_exist)],
    source: Annotated[
        str,
        typer.Argument(
            help="Video file, camera (0, rtsp://...), feature file (.npy), growing folder, or - (standard input)."
        ),
    ],
    head: Annotated[
        Path,
        typer.Option(
            help="Head written by 'keystep eval': RESULT/heads/NAME-causal-seed0.safetensors.", callback=paths_exist
        ),
    ],
    source_rate: SourceRate = None,
    rate: Annotated[str | None, typer.Option(help="Rate of the model in Hz; by default that of the head.")] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Frames per chunk when reading a file (default 32; 1 with --realtime).")
    ] = None,
    input_format: Annotated[
        str, typer.Option(help="Format of standard input: 'jsonl' (numbers, or time and features) or 'float32' (raw).")
    ] = "jsonl",
    idle: Annotated[
        float, typer.Option(min=0, help="Seconds without a new file after which a folder is considered complete.")
    ] = 30.0,
    realtime: Annotated[bool, typer.Option("--realtime", help="Feed a file in real time.")] = False,
    view: Annotated[bool, typer.Option("--view", help="Show a live view in the terminal.")] = False,
    provisional: Annotated[
        bool,
        typer.Option(
            "--provisional", help="Also write provisional predictions for an incomplete block (final: false)."
        ),
    ] = False,
    half_life: Annotated[
        float,
        typer.Option(help="Causal smoothing: half-life of an average over past probabilities, in seconds; 0: off."),
    ] = 0.0,
    hold: Annotated[
        float, typer.Option(help="Hysteresis: switch to a step only after it has led for this many seconds.")
    ] = 0.0,
    on_gap: Annotated[
        str, typer.Option(help="At missing frames: 'stop', 'bridge' (continue) or 'restart' (reset the state).")
    ] = "stop",
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; more than one can slow down single frames on a busy machine.")
    ] = 1,
    state: Annotated[
        Path | None, typer.Option(help="Save the stream's state in this file, and resume from it if it exists.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON lines to this file instead of standard output.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Plot the predictions to this PNG file at the end.")] = None,
    foresight: Annotated[
        Path | None,
        typer.Option(help="Forecaster written by 'keystep eval --task anticipate'; adds next step and time left."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="For videos: as in 'keystep extract'; by default that of the head's features.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="For videos, with --backbone: 'right' (default) or 'center'.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="For videos: the backbone's weights.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the steps of a live stream; write JSON lines with frame, time, step, probability and delay."""
    from keystep.cli.streaming import StreamOptions, stream_source
    from keystep.opening import SourceOptions

    options = StreamOptions(
        head=head,
        source=SourceOptions(
            source_rate=source_rate,
            rate=rate,
            chunk=chunk,
            input_format=input_format,
            idle=idle,
            realtime=realtime,
            keeps_state=state is not None,
            backbone=backbone,
            window=window,
            weights=weights,
        ),
        view=view,
        provisional=provisional,
        half_life=half_life,
        hold=hold,
        on_gap=on_gap,
        threads=threads,
        state=state,
        out=out,
        picture=picture,
        foresight=foresight,
        overwrite=overwrite,
    )
    stream_source(model, source, options, Terminal(stderr=True))


@app.command(rich_help_panel=PANEL)
def convert(
    source: Annotated[str, typer.Argument(help="Format: 'official' (the authors' release).")],
    file: Annotated[Path, typer.Argument(help="Checkpoint file.", callback=paths_exist)],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    architecture: Annotated[
        Path | None,
        typer.Option(help="YAML file with the ten architecture settings, for a checkpoint that lacks them."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Require the file's SHA-256 to start with these digits (8 or more).")
    ] = None,
) -> None:
    """Convert another project's checkpoint to a keystep model folder."""
    from keystep.config.base import read_yaml
    from keystep.errors import InputError
    from keystep.interop import official

    if source != "official":
        raise InputError(f"unknown format {source!r}; expected official")
    model = official.load(file, read_yaml(architecture) if architecture else None, sha256)
    model.save_pretrained(out)
    oracle = "  ORACLE: needs true segment boundaries" if model.config.oracle else ""
    sizes = f"feature dimension {model.config.input_dim}, latent dimension {model.latent_dim()}"
    console.print(f"{out}: {model.config.attention}, {sizes}{oracle}", soft_wrap=True, markup=False)


@app.command(rich_help_panel=PANEL)
def export(
    model: Annotated[str, typer.Argument(help="Run folder, model folder or Hugging Face id.", callback=models_exist)],
    out: Annotated[Path, typer.Option(help="Folder for step.json and the programs.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write step.onnx, for ONNX Runtime (default).")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="Write step.pt2, a torch.export program.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write step.int8.onnx: smaller and faster, but less precise.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option(help="Frames per call; by default 1, or the model's block length.")
    ] = None,
    streams: Annotated[int, typer.Option(help="Number of streams per call.")] = 1,
    window: Annotated[
        int | None, typer.Option(help="Limit attention to this many frames, for models without a window.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="Head written by 'keystep eval'; adds class probabilities.")] = None,
    features: Annotated[
        list[Path] | None, typer.Option(help="Feature files for measuring the loss of precision of --int8.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export the model's streaming step as a program that runs without keystep; verify it against keystep.stream."""
    from keystep.cli.exporting import export_model

    export_model(
        *(model, out, onnx, torch, int8, frames, streams, window, head, features or [], console), overwrite=overwrite
    )


@app.command(rich_help_panel="Help")
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List all backbones, data sets, heads, targets and tasks by name and origin (exit status 1 if one is broken)."""
    import json
    from dataclasses import asdict

    from keystep.cli.plugins import show
    from keystep.plugins import REGISTRIES

    found = [plugin for registry in REGISTRIES for plugin in registry.plugins()]
    if as_json:
        print(json.dumps([asdict(plugin) for plugin in found], indent=2))
    else:
        show(found, console)
    raise typer.Exit(1 if any(plugin.problem for plugin in found) else 0)


@app.command(rich_help_panel="Help")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, such as for a bug report.")] = False,
) -> None:
    """Show versions, devices, extras and missing packages (exit status 1 if keystep cannot run)."""
    from keystep.cli import doctor as printing
    from keystep.doctor import examine

    found = examine()
    if as_json:
        print(printing.as_json(found))
    else:
        printing.show(found, console)
    raise typer.Exit(1 if found.problems else 0)
