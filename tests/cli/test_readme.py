"""Every command and every line of Python that the README shows, run as shown (with fewer steps)."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_and_the_python_of_the_readme_run(
    keystep: Callable[..., tuple[int, str, str]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    assert data.name == "mydata"
    (block,) = (block for block in blocks("sh") if "keystep inspect" in block)
    commands = [shlex.split(line) for line in block.splitlines() if line]
    assert [command[1] for command in commands] == ["inspect", "pretrain", "eval", "encode", "stream"]
    for command in commands:
        quick = {
            "pretrain": ["--set", "train.steps=2"],
            "eval": ["--set", "probe.min_steps=5"],
        }
        status, _, error = keystep(*command[1:], *quick.get(command[1], []))
        assert status == 0, f"{command}: {error}"
    (python,) = blocks("python")
    exec(compile(python, "README.md", "exec"), {})


def test_the_two_make_commands_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)


def test_links_and_pictures_of_the_readme_are_in_the_repository() -> None:
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target
