"""What each command takes and says."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="keystep",
    help="Self-supervised, frame-aligned representations of long procedural videos, honestly evaluated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(highlight=False)

Data = Annotated[Path, typer.Argument(help="Folder with features/*.npy (MS-TCN layout or keystep's own).")]
SourceRate = Annotated[
    str | None, typer.Option(help="Features a second on disk (30, 3.75, 30000/1001), if store.json does not say.")
]
Rate = Annotated[str | None, typer.Option(help="Work at this rate by averaging; a whole fraction of the source rate.")]
OnError = Annotated[str, typer.Option(help="'raise' stops at a bad video, 'skip' leaves it out and lists it.")]
Split = Annotated[str, typer.Option(help="Split K of splits/train.splitK.bundle.")]
Found = Annotated[
    Path | None, typer.Option(help="What 'keystep segment' wrote, for models that attend by discovered boundaries.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, such as --set train.steps=4000. Repeat as needed.")
]


@app.callback(invoke_without_command=True)
def _start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is going on.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="keystep: %(message)s")
    if version:
        from keystep import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, runs and report go.")] = Path("demo"),
) -> None:
    """See it work: made-up procedures, pretraining without labels, and an honest report. Needs no download."""
    from keystep.cli.demo import run_demo

    run_demo(out, console)


@app.command()
def inspect(
    data: Data,
    source_rate: SourceRate = None,
    rate: Rate = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw lengths and classes.")] = None,
) -> None:
    """Say what a feature folder holds, draw it, and list every problem (exit status 1 if there are any)."""
    from keystep.cli.inspection import inspect_folder

    sound = inspect_folder(data, source_rate, rate, picture or Path(f"inspect-{data.resolve().name}.png"), console)
    raise typer.Exit(0 if sound else 1)


@app.command()
def pretrain(
    data: Annotated[Path | None, typer.Argument(help="Folder with features/*.npy; labels are not used.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; must be empty or absent.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings (see 'keystep config').")] = None,
    preset: Annotated[str, typer.Option(help="tiny, small, surgical or paper.")] = "tiny",
    source_rate: SourceRate = None,
    rate: Rate = None,
    split: Annotated[
        str | None, typer.Option(help="Train on this split's training videos only; needed for an honest eval.")
    ] = None,
    settings: Set = None,
    on_error: Annotated[str | None, typer.Option(help="'raise' or 'skip' bad videos.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run from its newest checkpoint.")] = None,
) -> None:
    """Learn representations from features alone. Ctrl-C saves; --resume goes on to the same result."""
    from keystep.cli.progress import TrainingProgress
    from keystep.errors import InputError
    from keystep.train.run import pretrain as train
    from keystep.train.run import run_config

    if resume is not None:
        if any(value is not None for value in (data, out, config, source_rate, rate, split, settings, on_error)):
            raise InputError("--resume takes everything from the run's config.yaml; give no other option")
        run, settled = resume, run_config(resume)
    else:
        flags = {"root": data, "source_rate": source_rate, "rate": rate, "split": split, "on_error": on_error}
        if out is None:
            raise InputError("no folder for the run; give --out runs/NAME")
        run, settled = out, _run_config(config, preset, flags, settings)
    with TrainingProgress(console) as progress:
        model = train(settled, run, resume=resume is not None, progress=progress)
    console.print(f"model: {model}   metrics: {run / 'metrics.jsonl'}", soft_wrap=True)
    if settled.model.oracle:
        console.print("ORACLE: this model needs true segment boundaries wherever it is used")
    elif settled.model.segments:
        console.print("note: it attends by discovered boundaries; give eval and encode --boundaries DIR")
    elif settled.train.crop_segments is not None:
        console.print("note: its crops followed true segments; the model itself needs none")
    console.print(f"next: keystep eval DATA --model pjepa={run}", soft_wrap=True)


@app.command()
def config(
    preset: Annotated[str, typer.Option(help="tiny, small, surgical or paper.")] = "tiny",
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema instead, for editors.")] = False,
) -> None:
    """Print every setting of a preset with its meaning, as a YAML file to start from."""
    from keystep.cli.settings import commented_yaml, json_schema

    print(json_schema() if schema else commented_yaml(preset))


@app.command()
def segment(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for <video>.txt (segment lengths) and segmenter.json.")],
    model: Annotated[str | None, typer.Option(help="A run or model folder, for 'latents' and 'surprise'.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="'features', 'latents' or 'surprise'; by default features, or the model's latents."),
    ] = None,
    source_rate: SourceRate = None,
    rate: Rate = None,
    split: Annotated[
        str | None, typer.Option(help="Fit on this split's training videos only; needed for an honest eval.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="window, shortest, longest, quantile, per_minute, span, context. Repeat as needed."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Seconds within which a true boundary counts as hit.")] = 1.0,
    on_error: OnError = "raise",
) -> None:
    """Find where steps begin, without labels and with a stated look-ahead, for models that attend by segment."""
    from keystep.cli.segmenting import segment_folder

    segment_folder(data, out, model, source, source_rate, rate, split, settings or [], tolerance, on_error, console)


@app.command()
def encode(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.")],
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
    boundaries: Found = None,
) -> None:
    """Write latents of whole videos; finished videos are not done again."""
    from keystep.cli.encode import encode_folder

    encode_folder(model, data, out, layout, live, source_rate, rate, on_error, half, boundaries, console)


@app.command()
def pool(
    tokens: Annotated[Path, typer.Argument(help="Feature folder with several tokens a slot.")],
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
    from keystep.cli.pooling import PoolOptions, pool_folder

    options = PoolOptions(
        mean=mean,
        labels=labels,
        pooler=pooler,
        split=split,
        settings=tuple(settings or ()),
        tokens=count,
        source_rate=source_rate,
        on_error=on_error,
        half=half,
    )
    pool_folder(tokens, out, options, console)


@app.command("eval")
def evaluate(
    data: Data,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="NAME=RUN[,RUN...]: runs of one recipe over seeds. Repeat to compare recipes."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for result, pictures and report.")] = Path("results"),
    split: Split = "1",
    source_rate: SourceRate = None,
    rate: Rate = None,
    settings: Set = None,
    on_error: OnError = "raise",
    boundaries: Found = None,
) -> None:
    """Judge models against raw features and the controls, with linear probes; write table, pictures, report."""
    from keystep.cli.evaluation import evaluate_folder

    evaluate_folder(data, model or [], out, split, source_rate, rate, settings or [], on_error, boundaries, console)


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A folder that 'keystep eval' wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown too.")] = False,
) -> None:
    """Draw the report of a result again (no data or model needed)."""
    from keystep.cli.evaluation import show_report

    show_report(result, console, markdown)


@app.command()
def stream(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.")],
    source: Annotated[str, typer.Argument(help="A feature file (.npy), a folder that grows, or - for standard input.")],
    head: Annotated[Path, typer.Option(help="What 'keystep eval' wrote: RESULT/heads/NAME-causal-seed0.safetensors.")],
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
    boundaries: Found = None,
    segmenter_model: Annotated[
        str | None, typer.Option(help="The model that the boundaries were found with, if they were found with one.")
    ] = None,
) -> None:
    """Say the steps of a live stream as JSON lines: frame, time, step, probability, delay. Offline gives the same."""
    from keystep.cli.streaming import StreamOptions, stream_source

    options = StreamOptions(
        head=head,
        source_rate=source_rate,
        rate=rate,
        chunk=chunk,
        input_format=input_format,
        idle=idle,
        realtime=realtime,
        view=view,
        provisional=provisional,
        half_life=half_life,
        hold=hold,
        on_gap=on_gap,
        threads=threads,
        state=state,
        out=out,
        boundaries=boundaries,
        segmenter_model=segmenter_model,
    )
    stream_source(model, source, options, Console(stderr=True, highlight=False))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Whose format; 'official' is the authors' release.")],
    file: Annotated[Path, typer.Argument(help="The checkpoint file.")],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    architecture: Annotated[
        Path | None, typer.Option(help="YAML with the ten architecture settings, for an unknown bare file.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Refuse the file unless its SHA-256 begins with these digits (8 or more).")
    ] = None,
) -> None:
    """Turn a foreign checkpoint into a keystep model folder."""
    from keystep.errors import InputError
    from keystep.interop import official
    from keystep.settings import read_yaml

    if source != "official":
        raise InputError(f"no converter for {source!r}; there is: official")
    model = official.load(file, read_yaml(architecture) if architecture else None, sha256)
    model.save_pretrained(out)
    oracle = "  ORACLE: it needs true segment boundaries" if model.config.oracle else ""
    sizes = f"reads {model.config.input_dim} numbers a frame, gives {model.config.dim}"
    console.print(
        f"{out}: {model.config.describe(model.config.attention)}, {sizes}{oracle}", soft_wrap=True, markup=False
    )


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Whose format; 'official' is the authors' release.")],
    archive: Annotated[Path, typer.Argument(help="The archive file; of LEMON, its index.pt.")],
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
    from keystep.cli.importing import import_official
    from keystep.data.timeline import parse_rate
    from keystep.errors import InputError
    from keystep.interop.official.importing import ImportOptions

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
    import_official(options, on_error, console)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hugging Face id.")],
    out: Annotated[Path, typer.Option(help="Folder for step.json and the programs.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="step.onnx, for ONNX Runtime (the default).")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="step.pt2, a torch.export program.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also step.int8.onnx: smaller, faster, coarser.")] = False,
    frames: Annotated[int | None, typer.Option(help="Frames a call; by default 1, or the model's block.")] = None,
    streams: Annotated[int, typer.Option(help="Streams that run in step.")] = 1,
    window: Annotated[
        int | None, typer.Option(help="Limit attention to so many frames, for models without a window.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="Linear head that 'keystep eval' wrote: adds class probabilities.")
    ] = None,
    features: Annotated[list[Path] | None, typer.Option(help="Feature files to measure what --int8 costs.")] = None,
) -> None:
    """Write one step of the model's stream as a program that runs without keystep, checked against keystep.stream."""
    from keystep.cli.exporting import export_model

    export_model(model, out, onnx, torch, int8, frames, streams, window, head, features or [], console)


def _run_config(file: Path | None, preset: str, flags: dict[str, Any], settings: list[str] | None) -> Any:
    """Preset, then file, then flags, then --set."""
    from keystep.config import RunConfig
    from keystep.errors import InputError
    from keystep.presets import preset_settings
    from keystep.settings import assignments, build, read_yaml

    given = {name: value for name, value in flags.items() if value is not None}
    layers = [preset_settings(preset), read_yaml(file) if file else {}, {"data": given}, assignments(settings or [])]
    sections = [layer.get("data") for layer in layers]
    if not any(isinstance(section, dict) and section.get("root") for section in sections):
        raise InputError("no data; name the folder with features/*.npy: keystep pretrain DATA --out runs/NAME")
    return build(RunConfig, *layers)


if __name__ == "__main__":
    sys.exit(app())
