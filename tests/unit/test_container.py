"""The container file without an engine: what it copies is there and enough, and what it runs is a command."""

import json
import re
import tomllib
from pathlib import Path

import typer

from keystep.cli.commands import app

ROOT = Path(__file__).parents[2]
STEPS = re.sub(r"\\\n", " ", (ROOT / "Containerfile").read_text())


def step(name: str) -> str:
    (found,) = re.findall(rf"^{name} (.+)$", STEPS, flags=re.MULTILINE)
    return found


def test_what_is_copied_exists_and_is_all_that_the_package_is_built_from() -> None:
    copied = {name for line in re.findall(r"^COPY (.+)$", STEPS, flags=re.MULTILINE) for name in line.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    source = project["tool"]["setuptools"]["packages"]["find"]["where"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], *source}
    assert needed | {"constraints.txt"} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_its_torch_is_the_pinned_one_and_its_extras_exist() -> None:
    assert re.search(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    (extras,) = re.findall(r"'\.\[(.+?)\]'", step("RUN"))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)


def test_it_runs_the_demo_unless_told_otherwise() -> None:
    assert json.loads(step("ENTRYPOINT")) == ["keystep"]
    verb, *options = json.loads(step("CMD"))
    assert verb == "demo"
    typer.main.get_command(app).commands[verb].make_context(verb, options)  # type: ignore[attr-defined]
