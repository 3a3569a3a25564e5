"""What runs live, and what brings models in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystep.cli.base import Overwrite, SourceRate, app, console, model_there, there
from keystep.terminal import Terminal

PANEL = "Live streams, and other formats"


@app.command(rich_help_panel=PANEL)
def predict(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.", callback=model_there)],
    videos: Annotated[list[Path], typer.Argument(help="Feature files (.npy) or videos.")],
    head: Annotated[
        Path,
        typer.Option(help="What 'keystep eval' wrote: RESULT/heads/NAME-offline-seed0.safetensors.", callback=there),
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels, probabilities and ribbons.")] = Path("predictions"),
    source_rate: SourceRate = None,
    backbone: Annotated[
        str | None, typer.Option(help="Of videos, where the head's features were made by foreign code: its name again.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Of videos: the backbone's weights.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict the steps of whole recordings: label files, probabilities, ribbons; the offline heads see all of them."""
    from keystep.cli.predicting import predict_videos

    predict_videos(model, head, videos, out, source_rate, backbone, weights, overwrite, console)


@app.command(rich_help_panel=PANEL)
def stream(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.", callback=model_there)],
    source: Annotated[
        str, typer.Argument(help="A video, a camera (0, rtsp://...), a feature file (.npy), a folder that grows, or -.")
    ],
    head: Annotated[
        Path,
        typer.Option(help="What 'keystep eval' wrote: RESULT/heads/NAME-causal-seed0.safetensors.", callback=there),
    ],
    source_rate: SourceRate = None,
    rate: Annotated[str | None, typer.Option(help="Frames a second of the model; by default as the head says.")] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Frames of a file to take at once (default 32; 1 with --realtime).")
    ] = None,
    input_format: Annotated[
        str, typer.Option(help="Of standard input: 'jsonl' (numbers, or time and features) or 'float32' (raw).")
    ] = "jsonl",
    idle: Annotated[float, typer.Option(min=0, help="Seconds without a new file after which a folder is done.")] = 30.0,
    realtime: Annotated[bool, typer.Option("--realtime", help="Feed a file at the pace it was recorded.")] = False,
    view: Annotated[bool, typer.Option("--view", help="Show what happens in the terminal.")] = False,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Also say what an open block looks like now (final: false).")
    ] = False,
    half_life: Annotated[float, typer.Option(help="Average probabilities over the past, seconds; 0: not.")] = 0.0,
    hold: Annotated[float, typer.Option(help="Announce a step once it has led for so many seconds.")] = 0.0,
    on_gap: Annotated[str, typer.Option(help="Missing frames: 'stop', 'bridge' (go on), 'restart' (forget).")] = "stop",
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; more than one makes single frames slower on a busy machine.")
    ] = 1,
    state: Annotated[
        Path | None, typer.Option(help="Keep the stream's state here, and go on from it where it exists.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON lines here instead of to standard output.")] = None,
    picture: Annotated[Path | None, typer.Option(help="At the end, draw what was said here (PNG).")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Of videos: as for 'keystep extract'; by default that of the head's features.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Of videos, with --backbone: 'right' (the default) or 'center'.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Of videos: the backbone's weights.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Say the steps of a live stream as JSON lines: frame, time, step, probability, delay. Offline gives the same."""
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
        overwrite=overwrite,
    )
    stream_source(model, source, options, Terminal(stderr=True))


@app.command(rich_help_panel=PANEL)
def convert(
    source: Annotated[str, typer.Argument(help="Whose format; 'official' is the authors' release.")],
    file: Annotated[Path, typer.Argument(help="The checkpoint file.", callback=there)],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    architecture: Annotated[
        Path | None, typer.Option(help="YAML with the ten architecture settings, for an unknown bare file.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Refuse the file unless its SHA-256 begins with these digits (8 or more).")
    ] = None,
) -> None:
    """Turn a foreign checkpoint into a keystep model folder."""
    from keystep.config.base import read_yaml
    from keystep.errors import InputError
    from keystep.interop import official

    if source != "official":
        raise InputError(f"no converter for {source!r}; there is: official")
    model = official.load(file, read_yaml(architecture) if architecture else None, sha256)
    model.save_pretrained(out)
    oracle = "  ORACLE: it needs true segment boundaries" if model.config.oracle else ""
    sizes = f"reads {model.config.input_dim} numbers a frame, gives {model.latent_dim()}"
    console.print(f"{out}: {model.config.attention}, {sizes}{oracle}", soft_wrap=True, markup=False)


@app.command(rich_help_panel=PANEL)
def export(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.", callback=model_there)],
    out: Annotated[Path, typer.Option(help="Folder for step.json and the programs.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="step.onnx, for ONNX Runtime (the default).")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="step.pt2, a torch.export program.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also step.int8.onnx: smaller, faster, coarser.")] = False,
    frames: Annotated[int | None, typer.Option(help="Frames a call; by default 1, or the model's block.")] = None,
    streams: Annotated[int, typer.Option(help="Streams that run in step.")] = 1,
    window: Annotated[
        int | None, typer.Option(help="Limit attention to so many frames, for models without a window.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="Head of 'keystep eval': adds class probabilities.")] = None,
    features: Annotated[list[Path] | None, typer.Option(help="Feature files to measure what --int8 costs.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one step of the model's stream as a program that runs without keystep, checked against keystep.stream."""
    from keystep.cli.exporting import export_model

    export_model(
        *(model, out, onnx, torch, int8, frames, streams, window, head, features or [], console), overwrite=overwrite
    )


@app.command(rich_help_panel="Help")
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what can be used by name (heads and so on), and where it is from; exit status 1 if any of it is broken."""
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
    as_json: Annotated[bool, typer.Option("--json", help="For programs, or to attach to a report.")] = False,
) -> None:
    """Say versions, devices, extras and what is missing (exit status 1 if keystep cannot work)."""
    from keystep.cli import doctor as printing
    from keystep.doctor import examine

    found = examine()
    if as_json:
        print(printing.as_json(found))
    else:
        printing.show(found, console)
    raise typer.Exit(1 if found.problems else 0)
