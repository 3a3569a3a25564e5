"""A data set from outside, as docs/add_dataset.md shows it, goes through `keystep prepare`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import keystep

NAME = "my_datasets:Kitchen"
CLASSES = ("wait", "cut", "tie a knot")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def download() -> Path:
    """Six videos of 30 slots, of which the last one has no features."""
    root, rng = Path("download"), np.random.default_rng(0)
    root.mkdir()
    names = [f"tea{index}" for index in range(6)]
    for name in names:
        np.save(root / f"{name}.npy", rng.normal(size=(30, 5)).astype(np.float32))
        (root / f"{name}.txt").write_text("".join(f"{CLASSES[i]}\n" for i in np.repeat(rng.integers(3, size=6), 5)))
    for part, chosen in (("train", names[:4]), ("test", names[4:])):
        (root / f"{part}.txt").write_text("".join(f"{name}\n" for name in chosen))
    (root / "tea5.npy").unlink()
    return root


def test_the_page_runs_as_it_stands(page: Callable, shell: Run, download: Path) -> None:
    describe, survey, write, inspect = page("add_dataset.md").commands
    status, said, error = shell(*describe[1:])
    assert status == 0 and "--set half=False: Store float16 instead of float32." in said, error
    status, said, _ = shell(*survey[1:])
    assert (
        status == 1 and "missing: download/tea5.npy; available from kitchen.example.org; --on-error skip leaves" in said
    )
    status, said, error = shell(*write[1:])
    assert status == 0 and "5 videos" in said and "left out" in said, error
    data = keystep.open_dataset("data")
    assert (data.timeline.rate, data.classes) == (4, CLASSES)
    assert data.split("1").test == ("tea4",)
    np.testing.assert_array_equal(data.features("tea0"), np.load(download / "tea0.npy").astype(np.float16))
    assert [CLASSES[i] for i in data.labels("tea0")] == (download / "tea0.txt").read_text().splitlines()
    status, _, error = shell(*inspect[1:])
    assert status == 0, error


def test_from_python_and_by_entry_point(page: Callable, install: Callable, shell: Run, download: Path) -> None:
    page("add_dataset.md")
    assert len(keystep.prepare(NAME, download, "first", on_error="skip").videos) == 5
    install("acme", "keystep.datasets", kitchen=NAME)
    assert len(keystep.prepare("kitchen", download, "second", on_error="skip").videos) == 5
    status, said, error = shell("prepare")
    assert status == 0 and "Kitchen: people who make tea" in said, error


def test_a_recipe_alone_does_not_bring_its_code_in(page: Callable, shell: Run, download: Path) -> None:
    page("add_dataset.md")
    Path("my_datasets.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    Path("recipe.yaml").write_text(f"data_set: {NAME}\nmodels: {{pjepa: {{}}}}\n")
    status, _, error = shell("run", "recipe.yaml", "--root", download, "--out", "out")
    assert status == 2 and f"data set {NAME}: no file may choose the code that runs" in error
    Path("recipe.yaml").write_text("models: {pjepa: {settings: {target: {kind: 'my_datasets:Target'}}}}\n")
    status, _, error = shell("run", "recipe.yaml", "--root", download, "--out", "out")
    assert status == 2 and "target my_datasets:Target: no file may choose the code that runs" in error
    Path("recipe.yaml").write_text("models: {pjepa: {}}\nevaluation: {heads: [linear, 'my_datasets:Head']}\n")
    status, _, error = shell("run", "recipe.yaml", "--root", download, "--out", "out")
    assert status == 2 and "head my_datasets:Head: no file may choose the code that runs" in error
    assert not Path("ran").exists() and not Path("out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def survey", "def look", "lacks survey; see keystep.datasets.survey.Preparer"),
        (
            "config: KitchenConfig",
            "config: dict",
            "Kitchen: __init__ has no argument config annotated with a class",
        ),
        ("import open_npy, read_lines", "import open_nothing", "cannot be imported: ImportError: cannot import name"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said_in_one_line(
    page: Callable, download: Path, old: str, new: str, words: str
) -> None:
    page("add_dataset.md").refused(old, new, words, lambda: keystep.prepare(NAME, download, "out", on_error="skip"))
    assert not Path("out").exists()
