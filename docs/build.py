"""Builds the documentation site into ``build/site/``: ``make docs``. Needs the extra 'docs', and no network.

The pages in ``docs/`` have links that work in the repository. They are copied to ``build/docs`` together with what they
link to outside of ``docs/``, a reference page is added, and zensical makes the site of it, as ``mkdocs.yml`` says. A
broken link or anchor ends the build; so does a page that the navigation does not name, or names in vain.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

import keystep

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "mkdocs.yml"
STAGE = ROOT / "build" / "docs"
OUTSIDE = ("benchmarks/results", "examples")
"""Folders that pages link to as ``../FOLDER/...``."""


def main() -> int:
    """Copy, check, build; the exit status."""
    stage()
    problems = [*strangers(navigation()), *broken_links()]
    for line in problems:
        print(f"docs: {line}", file=sys.stderr)
    if problems:
        return 1
    settings = STAGE.parent / SETTINGS.name
    shutil.copy(SETTINGS, settings)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(settings)]
    return subprocess.run(command, cwd=STAGE.parent).returncode


def stage() -> None:
    """Copy what the site is made of, and write the reference page."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGE, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for folder in OUTSIDE:
        ignored = shutil.ignore_patterns("study", "*.json", "__pycache__")
        shutil.copytree(ROOT / folder, STAGE / folder, ignore=ignored)
    for page in STAGE.glob("*.md"):
        text = re.sub(rf"\]\(\.\./({'|'.join(OUTSIDE)})/", r"](\1/", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
    (STAGE / "reference.md").write_text(reference(), encoding="utf-8")


def reference() -> str:
    """A page of all public names, whose docstrings mkdocstrings puts in."""
    functions = [f"::: keystep.{home}.{name}" for name, home in sorted(keystep._HOMES.items())]
    packages = [f"::: keystep.{name}\n    options: {{members: false}}" for name in keystep._PACKAGES]
    errors = ["::: keystep.errors.InputError"]
    lines = [
        "# Reference",
        "What `import keystep` offers, from the docstrings. Names load on first use: the import costs nothing.",
        *functions,
        *errors,
    ]
    return "\n\n".join([*lines, *packages]) + "\n"


def navigation() -> list[str]:
    """The pages that ``mkdocs.yml`` names."""

    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:  # type: ignore[attr-defined]
                yield from pages(below)

    return list(pages(yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["nav"]))


def strangers(named: list[str]) -> list[str]:
    """A line for each page that the navigation names and nobody wrote, or the other way round.

    Measurements, which lie outside of ``docs/``, need not be named: pages link to them.
    """
    there = {str(page.relative_to(STAGE)) for page in STAGE.rglob("*.md")}
    own = {page for page in there if not page.startswith(OUTSIDE)}
    lines = [f"mkdocs.yml names {page}, which does not exist" for page in sorted(set(named) - there)]
    return lines + [f"{page} is not in the navigation of mkdocs.yml" for page in sorted(own - set(named))]


def broken_links() -> list[str]:
    """A line for each link or picture of a page whose file, or heading in it, does not exist."""
    lines = []
    for page in sorted(STAGE.rglob("*.md")):
        for target in links(page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.is_file():
                lines.append(f"{page.relative_to(STAGE)}: broken link: {target}")
            elif anchor and file.name != "reference.md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                lines.append(f"{page.relative_to(STAGE)}: no such heading: {target}")
    return lines


def links(text: str) -> list[str]:
    """Targets of a page's links and pictures that are not on the web; code is left out."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    found = re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


if __name__ == "__main__":
    sys.exit(main())
