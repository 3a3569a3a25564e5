"""The commands of the guides: those on small data run as printed, those for many machines are understood."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from small import QUICK, SMALL

from keystep.cli.commands import app

DOCS = Path(__file__).parents[2] / "docs"
QUICKER = {"pretrain": SMALL, "eval": (*QUICK, "--quick")}


def commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("page", ["own_features.md", "few_labels.md"])
def test_a_guide_runs_as_it_is_printed(
    keystep: Callable[..., tuple[int, str, str]], data: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.chdir(data.parent)
    (data.parent / "unlabelled").mkdir()
    (data.parent / "unlabelled" / "features").symlink_to(data / "features")
    lines = commands(page)
    if ["keystep", "split", "mydata"] in lines:
        for path in (data / "splits").iterdir():
            path.unlink()
    for program, *words in lines:
        assert program == "keystep"
        status, _, error = keystep(*words, *QUICKER.get(words[0], ()))
        assert status == 0, f"{words}: {error}"


def test_commands_for_many_machines_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VIDEOS", "data"):
        (tmp_path / name).mkdir()
    lines = [words for words in commands("many_machines.md") if "keystep" in words]
    assert len(lines) == 12
    for words in lines:
        name, *rest = words[words.index("keystep") + 1 :]
        typer.main.get_command(app).commands[name].make_context(name, rest)  # type: ignore[attr-defined]
