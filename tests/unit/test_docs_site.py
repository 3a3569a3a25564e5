"""The documentation site without its generator: no broken link, and every page is in the navigation."""

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer

import keystep
from keystep.cli.commands import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``docs/build.py``, with its pages staged in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delitem(sys.modules, "build", raising=False)
    import build

    monkeypatch.setattr(build, "STAGE", tmp_path / "docs")
    build.stage()
    return build


def test_links_pages_and_navigation_fit_together(build: ModuleType) -> None:
    assert build.broken_links() == [] and build.strangers(build.navigation()) == []


def test_the_reference_has_every_public_name(build: ModuleType) -> None:
    text = (build.STAGE / "reference.md").read_text()
    for name in set(keystep.__all__) - {"__version__"}:
        assert f".{name}\n" in text, name


def test_the_layers_of_the_page_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [{name.strip(" ()") for name in layer.split("|")} for layer in contracts[0]["layers"]]
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page.partition("## The way of the data")[0], flags=re.MULTILINE)
    height = {name: place for place, names in enumerate(layers) for name in names}
    listed = [{height[name] for name in re.findall(r"`(\w+)`", row)} for row in rows]
    assert len(listed) > 20 and all(len(heights) == 1 for heights in listed), "a row is of one layer"
    assert [*map(min, listed)] == sorted(map(min, listed)), "from the top down"


def test_what_each_command_needs_is_said_of_commands_that_exist() -> None:
    page = (ROOT / "docs" / "run_folder.md").read_text()
    said = set(re.findall(r"^\| `(\w+)", page.partition("## A feature folder")[0], flags=re.MULTILINE))
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert said <= commands and {"extract", "split", "pretrain", "eval", "predict", "stream"} <= said


def test_broken_links_and_pages_out_of_the_navigation_are_named(build: ModuleType) -> None:
    (build.STAGE / "new.md").write_text(
        "# One heading, two\n[a](absent.md) [b](#one-heading-two) [c](#absent) `[d](code.md)` [e](https://x.org)\n"
    )
    assert build.broken_links() == ["new.md: broken link: absent.md", "new.md: no such heading: #absent"]
    assert build.strangers([*build.navigation(), "gone.md"]) == [
        "mkdocs.yml names gone.md, which does not exist",
        "new.md is not in the navigation of mkdocs.yml",
    ]


def pages() -> list[Path]:
    return sorted((ROOT / "docs").glob("**/*.md"))


def test_every_page_says_first_what_it_is_for() -> None:
    for page in pages():
        first = page.read_text().split("\n\n")[1]
        assert not first.startswith(("#", "|", "```", "- ", "![")), f"{page.name} begins with {first[:40]!r}"


def test_code_of_pages_is_fenced_so_that_no_editor_takes_it_for_prose() -> None:
    for page in pages():
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r"(?<=\n\n) {4}(?!-)\S.*", prose), page.name


def test_a_link_to_a_page_has_a_name_for_readers() -> None:
    for page in pages():
        assert not re.search(r"\[[^]\s]*\.md\]\(", page.read_text()), page.name
