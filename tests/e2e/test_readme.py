"""Every command and every line of Python that the README shows, run as shown (with fewer steps)."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from clips import write_clip

from keystep.cli.commands import app

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_and_the_python_of_the_readme_run(
    keystep: Callable[..., tuple[int, str, str]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    assert data.name == "mydata"
    (block,) = (block for block in blocks("sh") if "keystep pretrain" in block)
    commands = [shlex.split(line) for line in block.splitlines() if line]
    assert [command[1] for command in commands] == ["inspect", "pretrain", "eval", "encode", "stream"]
    for command in commands:
        quick = {
            "pretrain": ["--set", "train.steps=2"],
            "eval": ["--set", "probe.penalties=[0.01]"],
        }
        status, _, error = keystep(*command[1:], *quick.get(command[1], []))
        assert status == 0, f"{command}: {error}"
    (python,) = blocks("python")
    exec(compile(python, "README.md", "exec"), {})


def test_the_way_from_videos_to_features_runs(
    keystep: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "VIDEOS").mkdir()
    write_clip(tmp_path / "VIDEOS" / "kitchen.mp4", frames=25, height=64, width=96, rate=25)
    (block,) = (block for block in blocks("sh") if "keystep extract" in block)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    installs, *commands, (_, verb, *label) = commands
    assert [installs[0], *(command[1] for command in commands), verb] == ["pip", "extract", "inspect", "label"]
    typer.main.get_command(app).commands[verb].make_context(verb, label)  # type: ignore[attr-defined]  # it would stay
    for command in commands:
        status, _, error = keystep(*command[1:])
        assert status == 0, f"{command}: {error}"
    assert (tmp_path / "inspect-mydata-frames.png").exists()


def test_the_two_make_commands_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)


def test_links_and_pictures_of_the_readme_are_in_the_repository() -> None:
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target
