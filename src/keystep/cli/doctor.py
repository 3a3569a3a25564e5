"""``keystep doctor``: check the installation."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console

from keystep.doctor import Installation


def show(found: Installation, console: Console) -> None:
    """Print versions, devices and packages, and how to install missing ones."""

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for name, version in found.versions.items():
        say(f"{name} {version}")
    for device in found.devices:
        say(device)
    for extra in dict.fromkeys(package.extra for package in found.packages):
        packages = [package for package in found.packages if package.extra == extra]
        listed = ", ".join(f"{p.name} {p.version or p.state}{' (too old)' * (p.state == 'too old')}" for p in packages)
        say(f"{f'extra {extra}' if extra else 'required'}: {listed}")
    for extra in found.lacking:
        say(f"extra {extra} is incomplete; install it with: pip install 'keystep[{extra}]'")
    for problem in found.problems:
        console.print(f"problem: {problem}", style="red", soft_wrap=True, markup=False)
    if not found.problems:
        say("keystep has everything it needs")


def as_json(found: Installation) -> str:
    """Return the same information as JSON."""
    return json.dumps({**asdict(found), "lacking": found.lacking}, indent=2)
