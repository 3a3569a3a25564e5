"""Builds wheel and sdist into ``dist/`` and checks them as a stranger would get them: ``make dist``.

The wheel is built from the sdist, opened and compared with the source tree (files, metadata, licence, ``py.typed``).
Then it is installed in an empty environment without any extra, torch first and pinned, where it runs the doctor and the
way of ``keystep demo`` on less data. With the extra ``serve``, the server shows these data.
"""

from __future__ import annotations

import argparse
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
CONSTRAINTS = ROOT / "constraints.txt"
DATA = ("py.typed", "evals/templates/", "serve/static/")
"""What the wheel holds beside Python: ours, all of it, under the project's licence."""
FIELDS = ("Name", "Version", "Summary", "Requires-Python", "License-Expression", "Description-Content-Type")
TRACES = ("pytest", "mypy", "ruff", "zensical", "onnx", "transformers", "tensorboard")
"""Packages of extras, none of which the wheel alone may need or bring."""
DEMO = """
import sys
from pathlib import Path
import keystep
from keystep.data.synthetic import SyntheticConfig, generate

root = Path(sys.argv[1])
sizes = {"train_videos": 8, "valid_videos": 2, "test_videos": 3, "min_frames": 200, "max_frames": 240}
generate(root / "data", SyntheticConfig(**sizes))
settings = {"model": {"dim": 16, "heads": 2, "depth": 2, "readout_dim": 24}, "train": {"steps": 4, "crop": 64}}
config = keystep.RunConfig(data={"root": root / "data", "split": "1"}, **settings)
model = keystep.pretrain(config, root / "run")
results = keystep.evaluate(root / "data", {"pjepa": model}, out=root / "report", quick=True)
assert (root / "report" / "report.html").stat().st_size > 10_000
print(results.compare("pjepa", "best control"))
"""
PAGE = """
import re
import subprocess
import sys
from urllib.request import urlopen

command = [sys.executable, "-m", "keystep", "serve", sys.argv[1], "--port", "0"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    address = next(found for line in server.stdout if (found := re.search(r"http://\\S+/", line))).group()
    for name in ("", "static/app.js", "static/app.css", "api/project", "openapi.json"):
        assert urlopen(address + name).read(), name
finally:
    server.terminate()
    server.wait()
"""


def main() -> int:
    """Build, look, install, run; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the environment, and say where it is")
    options = parser.parse_args()
    shutil.rmtree(DIST, ignore_errors=True)
    say("building")
    run(sys.executable, "-m", "build", "--quiet", "--outdir", DIST, ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    problems = [*wheel_problems(wheel), *sdist_problems(sdist)]
    for line in problems:
        print(f"dist: {line}", file=sys.stderr)
    if problems:
        return 1
    place = Path(tempfile.mkdtemp(prefix="keystep-dist-"))
    try:
        try_out(wheel, place)
    finally:
        if options.keep:
            say(f"kept: {place}")
        else:
            shutil.rmtree(place)
    say(f"{wheel.name} and {sdist.name} are whole")
    return 0


def wheel_problems(wheel: Path) -> list[str]:
    """A line for each thing that is wrong with a wheel's files or metadata."""
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
        (place,) = {name for name in names if name.endswith(".dist-info/METADATA")}
        metadata = email.message_from_bytes(file.read(place))
        licence = file.read(place.replace("METADATA", "licenses/LICENSE")) if licensed(names) else b""
    packed = {name.removeprefix("keystep/") for name in names if name.startswith("keystep/")}
    there = {str(path.relative_to(ROOT / "src/keystep")) for path in (ROOT / "src/keystep").rglob("*") if ours(path)}
    lines = [f"{wheel.name}: {name} is missing" for name in sorted(there - packed)]
    lines += [f"{wheel.name}: {name} does not belong there" for name in sorted(packed - there)]
    outside = [name for name in names if not name.startswith("keystep/") and ".dist-info/" not in name]
    lines += [f"{wheel.name}: {name} is outside of the package" for name in sorted(outside)]
    if licence != (ROOT / "LICENSE").read_bytes():
        lines.append(f"{wheel.name}: LICENSE is not in it, or another one")
    return lines + metadata_problems(metadata)


def licensed(names: set[str]) -> bool:
    return any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def ours(path: Path) -> bool:
    """Whether a file of the source tree belongs into the wheel."""
    name = path.relative_to(ROOT / "src/keystep").as_posix()
    return path.is_file() and "__pycache__" not in name and (path.suffix == ".py" or name.startswith(DATA))


def metadata_problems(metadata: Message) -> list[str]:
    """A line for each field that is missing or says something else than the project does."""
    lines = [f"metadata: no {name}" for name in FIELDS if not metadata.get(name)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if set(metadata.get_all("Provides-Extra", [])) != set(project["optional-dependencies"]):
        lines.append("metadata: the extras are not those of pyproject.toml")
    lines += [f"versions differ: {versions()}"] if len(set(versions().values())) > 1 else []
    return lines + ([] if metadata.get_payload().strip() else ["metadata: no description"])


def versions() -> dict[str, str]:
    """Where the version stands, and what it is there."""
    package = (ROOT / "src/keystep/__init__.py").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = {"__init__.py": re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)}
    found["CITATION.cff"] = re.search(r"^version: (.+)$", citation, re.MULTILINE)
    return {"pyproject.toml": project, **{name: match[1] if match else "none" for name, match in found.items()}}


def sdist_problems(sdist: Path) -> list[str]:
    """A line for each file that the sdist lacks to be built again."""
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    needed = ("pyproject.toml", "README.md", "LICENSE", *(f"src/keystep/{name}" for name in DATA))
    return [f"{sdist.name}: no {name}" for name in needed if not any(each.startswith(name) for each in names)]


def try_out(wheel: Path, place: Path) -> None:
    """Install the wheel in an empty environment in ``place``, and use it from there."""
    say(f"installing {wheel.name} in an empty environment")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    (torch,) = re.findall(r"^torch==.+$", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    run(*pip, "install", "-q", "-c", CONSTRAINTS, torch)
    run(*pip, "install", "-q", "-c", CONSTRAINTS, wheel)
    run(*pip, "check")
    found = f"import importlib.util as u; print([n for n in {TRACES} if u.find_spec(n)])"
    brought = subprocess.run(
        [python, "-c", found], cwd=place, check=True, capture_output=True, text=True
    ).stdout.strip()
    if brought != "[]":
        raise SystemExit(f"dist: the wheel alone brings packages of extras: {brought}")
    say("running it there")
    keystep = python.with_name("keystep")
    for arguments in (("--version",), ("--help",), ("doctor",)):
        run(keystep, *arguments, cwd=place, quiet=True)
    run(python, "-c", DEMO, place, cwd=place)
    refused = subprocess.run([keystep, "serve", place / "data"], cwd=place, capture_output=True, text=True)
    if refused.returncode != 2 or "pip install 'keystep[serve]'" not in refused.stderr:
        raise SystemExit(f"dist: serve without its extra says {refused.stderr!r}")
    say("serving its page")
    run(*pip, "install", "-q", "-c", CONSTRAINTS, f"{wheel}[serve]")
    run(python, "-c", PAGE, place / "data", cwd=place)


def run(*command: object, cwd: Path = ROOT, quiet: bool = False) -> None:
    """A command, without this tree on Python's path; the end of everything where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.DEVNULL if quiet else None)
    if done.returncode:
        raise SystemExit(f"dist: failed with exit status {done.returncode}: {' '.join(words)[:200]}")


def say(line: str) -> None:
    print(f"dist: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
