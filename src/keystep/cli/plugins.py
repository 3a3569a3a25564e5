"""``keystep plugins``: what can be named, and where it is from."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from keystep.plugins import Plugin


def show(found: Sequence[Plugin], console: Console) -> None:
    """A table of all, then a line for each that cannot be used."""
    table = Table("kind", "name", "from")
    for plugin in found:
        table.add_row(plugin.kind, plugin.name, plugin.source, style="yellow" if plugin.problem else None)
    console.print(table)
    console.print("your own: package.module:Name, wherever a name is asked for", markup=False)
    for plugin in found:
        if plugin.problem:
            line = f"{plugin.kind} {plugin.name} from {plugin.source}: {plugin.problem}"
            console.print(line, style="yellow", soft_wrap=True, markup=False)
