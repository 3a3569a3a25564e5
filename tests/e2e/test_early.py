"""What is wrong with a command line is said at once, and what a command says to do next can be done."""

import importlib.metadata
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from keystep import doctor
from keystep.cli.base import print_next

Run = Callable[..., tuple[int, str, str]]
ABSENT = {
    "inspect": ["absent"],
    "pretrain": ["absent", "--out", "run"],
    "pretrain --resume": ["--resume", "absent"],
    "encode": [".", "absent", "--out", "latents"],
    "eval": ["absent", "--model", "a=."],
    "discover": ["absent", "--clusters", "3"],
    "extract": ["absent", "--out", "features"],
    "pool": ["absent", "--out", "pooled", "--mean"],
    "stream": [".", "video.npy", "--head", "absent"],
    "convert": ["official", "absent", "--out", "model"],
    "import": ["official", "absent", "--out", "features"],
}
LOOK = (
    "import sys, keystep.cli\n"
    "try: keystep.cli.main()\n"
    "finally: print('heavy:', [name for name in ('torch', 'sklearn', 'matplotlib') if name in sys.modules])"
)


def looked_at(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that says which of the slow packages it imported."""
    command = [sys.executable, "-c", LOOK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("command", "options"), ABSENT.items())
def test_a_path_that_is_not_there_is_one_line(keystep: Run, command: str, options: list[str]) -> None:
    status, _, error = keystep(command.split()[0], *options)
    assert status == 2
    assert error.strip() == "keystep: error: absent: no such file or folder"


@pytest.mark.parametrize("name", ["absent", "no/such/folder", "mydata/typo"])
def test_a_model_that_is_no_folder_is_not_looked_for_on_the_web(
    keystep: Run, data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(data.parent)
    for command in (["encode", name, data, "--out", "latents"], ["eval", data, "--model", f"a={data},{name}"]):
        status, _, error = keystep(*command)
        assert status == 2 and error.strip().endswith(f"{name}: no such folder, and no Hugging Face id (OWNER/NAME)")


@pytest.mark.parametrize("address", ["https://example.org/data", "hf://datasets/x/y"])
def test_a_url_is_no_path_and_that_is_said(keystep: Run, data: Path, address: str) -> None:
    for command in (
        ["inspect", address],
        ["pretrain", address, "--out", "run"],
        ["extract", address, "--out", "features"],
        ["encode", address, data, "--out", "latents"],
        ["eval", data, "--model", f"a={address}"],
    ):
        status, _, error = keystep(*command)
        assert status == 2 and f"error: {address}: a URL; keystep reads files of this machine" in error


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--set", "train.setps=3"], "unknown setting train.setps (did you mean steps?)"),
        (["--set", "train.steps"], "is not NAME=VALUE"),
        (["--preset", "smal"], "unknown preset 'smal'"),
        (["--rate", "fast"], "fast"),
        (["--seed", "3"], "No such option: --seed"),
    ],
)
def test_settings_are_checked_before_slow_imports(data: Path, tmp_path: Path, options: list[str], line: str) -> None:
    done = looked_at("pretrain", data, "--out", tmp_path / "run", *options)
    assert done.returncode == 2 and line in done.stderr
    assert "heavy: []" in done.stdout


@pytest.mark.parametrize("command", [["pretrian"], ["pretrain", "absent", "--out", "run"], ["inspect", "absent"]])
def test_typos_are_answered_before_slow_imports(command: list[str]) -> None:
    done = looked_at(*command)
    assert done.returncode == 2 and "heavy: []" in done.stdout


def parsed(line: str) -> dict[str, object]:
    """What the command line understands of a line that a user pastes."""
    from keystep.cli.commands import app

    program, name, *rest = shlex.split(line)
    assert program == "keystep"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return command.make_context(name, rest).params


def test_what_comes_next_can_be_pasted(keystep: Run, data: Path, tmp_path: Path) -> None:
    spaced = data.rename(tmp_path / "my data")
    run = tmp_path / "first run"
    small = [w for s in ("model.dim=16", "model.heads=2", "train.steps=2", "train.crop=16") for w in ("--set", s)]
    status, said, error = keystep(
        "pretrain", spaced, "--source-rate", 4, "--rate", 2, "--split", 1, "--out", run, *small
    )
    assert status == 0, error
    (line,) = [line.removeprefix("next: ") for line in said.splitlines() if line.startswith("next: ")]
    params = parsed(line)
    assert (params["data"], params["model"]) == (spaced, [f"pjepa={run}"]) or params["model"] == (f"pjepa={run}",)
    assert (params["source_rate"], params["rate"], params["split"]) == ("4", "2", "1")


def test_every_line_that_says_what_comes_next_is_made_by_the_one_that_quotes() -> None:
    sources = Path(__file__).parents[2] / "src" / "keystep"
    found = [
        path.name
        for path in sources.rglob("*.py")
        if "next: keystep" in path.read_text() or "next: {" in path.read_text()
    ]
    assert found == ["base.py"]


def test_words_with_spaces_are_quoted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "it's mine"
    folder.mkdir()
    print_next("inspect", folder, "--source-rate", "30000/1001")
    params = parsed(capsys.readouterr().out.removeprefix("next: "))
    assert (params["data"], params["source_rate"]) == (folder, "30000/1001")


def test_doctor_says_what_is_there_and_what_is_missing(keystep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "torch>=2.6",
        'absent-one>=3; extra == "video"',
        'numpy>=999; extra == "data"',
        'pytest>=8; extra == "dev"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    status, said, _ = keystep("doctor")
    assert status == 0
    assert "extra video: absent-one missing" in said and "pip install 'keystep[video]'" in said
    assert "(too old)" in said and "keystep has everything it needs" in said and "pytest" not in said
    status, said, _ = keystep("doctor", "--json")
    assert json.loads(said)["lacking"] == {"video": ["absent-one"], "data": ["numpy"]}


def test_doctor_works_where_torch_does_not(keystep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["absent-one>=3"])
    status, said, _ = keystep("doctor")
    assert status == 1
    assert "problem: torch cannot be imported" in said and "absent-one is missing; keystep needs absent-one>=3" in said
    assert doctor.examine().devices[0].startswith("CPU")
