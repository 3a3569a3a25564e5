"""What ``make dist`` looks for, without building anything."""

import email
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dist(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "dist", raising=False)
    import dist

    return dist


def written(path: Path, dist: ModuleType, left_out: str = "", **more: str) -> Path:
    """A wheel of the source tree's files, as setuptools would make it, but for one, and with others."""
    extras = "".join(f"Provides-Extra: {name}\n" for name in dist_extras(dist))
    fields = "".join(f"{name}: x\n" for name in dist.FIELDS)
    info = "keystep-0.dist-info/"
    texts = {info + "METADATA": fields + extras + "\nREADME", info + "licenses/LICENSE": (ROOT / "LICENSE").read_text()}
    package = ROOT / "src" / "keystep"
    texts |= {f"keystep/{file.relative_to(package)}": "" for file in package.rglob("*") if dist.ours(file)}
    with zipfile.ZipFile(path, "w") as file:
        for name, text in (texts | more).items():
            if name != left_out:
                file.writestr(name, text)
    return path


def dist_extras(dist: ModuleType) -> list[str]:
    project = dist.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"])


def test_the_version_is_the_same_wherever_it_stands(dist: ModuleType) -> None:
    assert len(set(dist.versions().values())) == 1, dist.versions()


def test_a_whole_wheel_has_no_problems(dist: ModuleType, tmp_path: Path) -> None:
    assert dist.wheel_problems(written(tmp_path / "k.whl", dist)) == []


def test_what_a_wheel_lacks_or_has_too_much_is_named(dist: ModuleType, tmp_path: Path) -> None:
    lacking = written(tmp_path / "a.whl", dist, left_out="keystep/py.typed")
    assert dist.wheel_problems(lacking) == ["a.whl: py.typed is missing"]
    template = written(tmp_path / "b.whl", dist, left_out="keystep/evals/templates/report.html.j2")
    assert dist.wheel_problems(template) == ["b.whl: evals/templates/report.html.j2 is missing"]
    foreign = written(tmp_path / "c.whl", dist, **{"keystep/jquery.js": "", "tests/test_a.py": ""})
    assert dist.wheel_problems(foreign) == [
        "c.whl: jquery.js does not belong there",
        "c.whl: tests/test_a.py is outside of the package",
    ]
    bare = written(tmp_path / "d.whl", dist, left_out="keystep-0.dist-info/licenses/LICENSE")
    assert dist.wheel_problems(bare) == ["d.whl: LICENSE is not in it, or another one"]


def test_metadata_without_a_field_or_an_extra_is_named(dist: ModuleType) -> None:
    lines = dist.metadata_problems(email.message_from_string("Name: keystep\n\nREADME"))
    assert (
        "metadata: no License-Expression" in lines and "metadata: the extras are not those of pyproject.toml" in lines
    )
