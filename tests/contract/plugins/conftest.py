"""Each page ``docs/add_*.md`` is a test: its module is written as it stands, its commands run as they stand."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from keystep import plugins
from keystep.errors import InputError

DOCS = Path(__file__).parents[3] / "docs"
Run = Callable[..., tuple[int, str, str]]


class Page:
    """The module of a page, which lies in the working folder, and its commands, word by word."""

    def __init__(self, name: str) -> None:
        text = (DOCS / name).read_text().replace("\\\n", "")
        blocks = {language: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("python", "sh")}
        self.code = blocks["python"][0]
        self.file = re.match(r"# (\w+\.py)\n", self.code)[1]
        self.commands = [shlex.split(line) for block in blocks["sh"] for line in block.splitlines()]
        assert len(self.code.splitlines()) <= 40, f"{name}: the example is longer than 40 lines"
        Path(self.file).write_text(self.code)

    def refused(self, old: str, new: str, words: str, run: Callable[[], object]) -> str:
        """Replace something in the module; ``run`` has to refuse it in one line, which is returned."""
        assert old in self.code
        Path(self.file).write_text(self.code.replace(old, new))
        with pytest.raises(InputError, match=words) as caught:
            run()
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that nobody has told anything, in an empty folder; modules of it are forgotten afterwards."""
    monkeypatch.setattr(plugins, "_allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def page() -> Callable[[str], Page]:
    return Page


@pytest.fixture
def shell(keystep: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a process that was told nothing before: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(plugins, "_allowed", set())
        return keystep(*arguments)

    return run


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., None]:
    """Puts a distribution with entry points on the path: ``install("acme", "keystep.heads", mean="my_heads:Mean")``."""

    def put(distribution: str, group: str, **entries: str) -> None:
        folder = tmp_path / "installed"
        record = folder / f"{distribution}-1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (record / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
            invalidate_caches()

    return put
