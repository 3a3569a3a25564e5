"""The command line application and the options shared by several commands."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keystep.terminal import PlainFormatter, Terminal

app = typer.Typer(
    name="keystep",
    help="Self-supervised, frame-level representations of long procedural videos, honestly evaluated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Terminal()


def paths_exist(value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Check that the paths of an argument exist, before a command starts its slow imports."""
    from keystep.files import check_exists

    for path in value if isinstance(value, list) else [] if value is None else [value]:
        check_exists(path)
    return value


def models_exist(value: str | list[str] | None) -> str | list[str] | None:
    """Check the name of a model, which is a folder or a hub id, or each one in NAME=RUN,RUN."""
    from keystep.files import check_model_name

    for text in value if isinstance(value, list) else [] if value is None else [value]:
        for name in text.partition("=")[2].split(",") if isinstance(value, list) else [text]:
            check_model_name(name)
    return value


def print_next(*words: object) -> None:
    """Print the command to run next, quoted so that it can be pasted."""
    console.print(f"next: {shlex.join(['keystep', *map(str, words)])}", soft_wrap=True, markup=False)


Data = Annotated[
    Path,
    typer.Argument(
        help="Feature folder, with features/*.npy (in the MS-TCN layout or keystep's own).", callback=paths_exist
    ),
]
SourceRate = Annotated[
    str | None,
    typer.Option(help="Rate of the features on disk in Hz (30, 3.75, 30000/1001), if not in store.json."),
]
Rate = Annotated[
    str | None, typer.Option(help="Average the features down to this rate in Hz; must divide the source rate evenly.")
]
OnError = Annotated[str, typer.Option(help="'raise': stop at an invalid video. 'skip': leave it out and list it.")]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Regular expression for the group (person or site) in a video's name, such as '^(P[0-9]+)_'. By default, "
        "groups are read from splits/groups.csv.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of workers; each loads the model. By default one, with --engine ray as many as fit."
    ),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="'local': processes of this machine. 'ray': a Ray cluster (extra 'ray').")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster that this machine belongs to, such as HOST:6379. By default as RAY_ADDRESS says, or "
        "this machine alone."
    ),
]
SinkName = Annotated[
    str,
    typer.Option("--sink", help="'folder': files for each video. 'tar': tar files of many videos (WebDataset)."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Split = Annotated[str, typer.Option(help="Name of the split: K in splits/train.splitK.bundle.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting, such as train.steps=4000 (for eval: probe.penalties=[0.1,0.01], tau=20). Repeatable.",
    ),
]


@app.callback(invoke_without_command=True)
def _start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show log messages.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE.MODULE:NAME",
            help="Allow this code to be loaded when a file names it, such as the file of a head. Repeatable.",
        ),
    ] = None,
) -> None:
    from keystep.plugins import allow

    allow(*(plugin or []))
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("keystep: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if version:
        from keystep import __version__

        print(__version__)
        raise typer.Exit
