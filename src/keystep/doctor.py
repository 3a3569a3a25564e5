"""What this installation consists of, and what it lacks. Nothing here needs more than Python to be imported."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from typing import Literal

State = Literal["there", "missing", "too old"]


@dataclass(frozen=True)
class Package:
    """One package that keystep needs, always (``extra`` is empty) or for one of its extras.

    Attributes:
        requirement: what is asked for, such as ``torch>=2.6``.
        version: the installed one; empty if there is none.
    """

    name: str
    requirement: str
    extra: str
    version: str
    state: State


@dataclass(frozen=True)
class Installation:
    """Versions, devices and packages of this machine.

    Attributes:
        devices: the CPU and every GPU that torch sees.
        problems: what keeps keystep from working, one line each; extras are none.
    """

    versions: dict[str, str]
    devices: tuple[str, ...]
    packages: tuple[Package, ...]
    problems: tuple[str, ...]

    @property
    def lacking(self) -> dict[str, tuple[str, ...]]:
        """Extra -> its packages that are missing or too old."""
        extras = dict.fromkeys(package.extra for package in self.packages if package.extra)
        found = {
            extra: tuple(p.name for p in self.packages if p.extra == extra and p.state != "there") for extra in extras
        }
        return {extra: names for extra, names in found.items() if names}


def examine() -> Installation:
    """Look at Python, torch, devices and packages; never fails, whatever is missing."""
    from keystep import __version__

    versions = {"keystep": __version__, "python": platform.python_version(), "system": platform.platform()}
    packages, problems = _packages()
    devices = [f"CPU: {platform.machine()}, {os.cpu_count()} cores"]
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it cannot be loaded
        problems.append(f"torch cannot be imported: {' '.join(str(error).split())}")
    else:
        versions["torch"] = str(torch.__version__)
        if torch.version.cuda is not None:
            versions["cuda"] = torch.version.cuda
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            devices.append(f"cuda:{index}: {torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    for package in packages:
        if not package.extra and package.state != "there":
            problems.append(f"{package.name} is {package.state}; keystep needs {package.requirement}")
    return Installation(versions, tuple(devices), tuple(packages), tuple(problems))


def _packages() -> tuple[list[Package], list[str]]:
    """What the package's own record asks for, and what is wrong with the record."""
    try:
        asked = importlib.metadata.requires("keystep") or []
    except importlib.metadata.PackageNotFoundError:
        return [], [f"keystep is not installed in {sys.prefix}, so what it needs is not known; pip install keystep"]
    return [package for line in asked if (package := _package(line)) is not None], []


def _package(line: str) -> Package | None:
    """A requirement such as ``av>=17; extra == "video"``; None for those of developers."""
    requirement, _, marker = (part.strip() for part in line.partition(";"))
    extra = marker.partition("extra ==")[2].strip("\"' ()")
    name = requirement[: next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)]
    if extra == "dev" or name == "keystep":
        return None
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, requirement, extra, "", "missing")
    return Package(name, requirement, extra, version, "there" if _fits(requirement, version) else "too old")


def _fits(requirement: str, version: str) -> bool:
    """Whether a version satisfies ``NAME>=X``, the only form that keystep asks in."""

    def numbers(text: str) -> list[int]:
        parts = text.partition("+")[0].split(".")
        return [int("".join(c for c in part if c.isdigit()) or 0) for part in parts]

    least = requirement.partition(">=")[2]
    return not least or numbers(version) >= numbers(least.partition(",")[0])
