"""The documentation site without its generator: no broken link, and every page is in the navigation."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

import keystep

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


def test_broken_links_and_pages_out_of_the_navigation_are_named(build: ModuleType) -> None:
    (build.STAGE / "new.md").write_text(
        "# One heading, two\n[a](absent.md) [b](#one-heading-two) [c](#absent) `[d](code.md)` [e](https://x.org)\n"
    )
    assert build.broken_links() == ["new.md: broken link: absent.md", "new.md: no such heading: #absent"]
    assert build.strangers([*build.navigation(), "gone.md"]) == [
        "mkdocs.yml names gone.md, which does not exist",
        "new.md is not in the navigation of mkdocs.yml",
    ]
