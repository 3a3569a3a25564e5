"""The command line's application, and the options that several commands share."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keystep.terminal import PlainFormatter, Terminal

app = typer.Typer(
    name="keystep",
    help="Self-supervised, frame-aligned representations of long procedural videos, honestly evaluated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Terminal()


def there(value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Checks the paths of an argument before a command imports what takes seconds."""
    from keystep.files import check_exists

    for path in value if isinstance(value, list) else [] if value is None else [value]:
        check_exists(path)
    return value


def model_there(value: str | list[str] | None) -> str | list[str] | None:
    """Checks what names a model: a folder or a hub id, or each in NAME=RUN,RUN."""
    from keystep.files import check_model_name

    for text in value if isinstance(value, list) else [] if value is None else [value]:
        for name in text.partition("=")[2].split(",") if isinstance(value, list) else [text]:
            check_model_name(name)
    return value


def print_next(*words: object) -> None:
    """The command to go on with, quoted so that it can be pasted."""
    console.print(f"next: {shlex.join(['keystep', *map(str, words)])}", soft_wrap=True, markup=False)


Data = Annotated[
    Path, typer.Argument(help="Folder with features/*.npy (MS-TCN layout or keystep's own).", callback=there)
]
SourceRate = Annotated[
    str | None, typer.Option(help="Features a second on disk (30, 3.75, 30000/1001), if store.json does not say.")
]
Rate = Annotated[str | None, typer.Option(help="Work at this rate by averaging; a whole fraction of the source rate.")]
OnError = Annotated[str, typer.Option(help="'raise' stops at a bad video, 'skip' leaves it out and lists it.")]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Finds a video's person or site in its name, such as '^(P[0-9]+)_'; by default splits/groups.csv says.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Split = Annotated[str, typer.Option(help="Split K of splits/train.splitK.bundle.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, such as train.steps=4000 (of eval: probe.penalties=[0.1,0.01], tau=20). Repeat as needed.",
    ),
]


@app.callback(invoke_without_command=True)
def _start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is going on.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PACKAGE.MODULE:NAME",
            help="Trust this code where a file names it, such as the head of a file. Repeat as needed.",
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
