"""``keystep plugins``: list what can be used by name, with its origin."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from keystep.plugins import Plugin


def show(found: Sequence[Plugin], console: Console) -> None:
    """Print a table of all plug-ins and a line for each one that cannot be loaded."""
    table = Table("kind", "name", "from")
    for plugin in found:
        table.add_row(plugin.kind, plugin.name, plugin.source, style="yellow" if plugin.problem else None)
    console.print(table)
    console.print("to use your own, pass package.module:Name instead of a name", markup=False)
    for plugin in found:
        if plugin.problem:
            line = f"{plugin.kind} {plugin.name} from {plugin.source}: {plugin.problem}"
            console.print(line, style="yellow", soft_wrap=True, markup=False)
