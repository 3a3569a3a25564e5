"""The cells of examples/first_steps.ipynb, run in their order (on fewer videos, with fewer steps)."""

import json
from pathlib import Path
from typing import Any

NOTEBOOK = json.loads((Path(__file__).parents[2] / "examples" / "first_steps.ipynb").read_text())
QUICK = {"train_videos=36, valid_videos=6, test_videos=6": "train_videos=6, valid_videos=3, test_videos=3", "200": "4"}


def test_the_cells_of_the_notebook_run() -> None:
    names: dict[str, Any] = {}
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    for old in QUICK:
        assert any(old in cell for cell in cells)
    for cell in cells:
        for old, new in QUICK.items():
            cell = cell.replace(old, new)
        exec(compile(cell, "first_steps.ipynb", "exec"), names)
    assert names["steps"]._repr_png_().startswith(b"\x89PNG") and "<table" in names["results"]._repr_html_()


def test_links_of_the_notebook_are_in_the_repository() -> None:
    text = "".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")
    links = [link.split(")")[0] for link in text.split("](")[1:]]
    assert links
    for link in links:
        assert (Path(__file__).parents[2] / "examples" / link).exists(), link
