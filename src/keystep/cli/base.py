"""The command line's application, and the options that several commands share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

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
