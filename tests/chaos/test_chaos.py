"""A few of what ``make chaos`` does: commands that are killed, whose disks are full, that meet."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"


@pytest.mark.parametrize(("command", "kills"), [("import", 3), ("encode", 6), ("serve", 3)])
def test_whatever_ends_a_command_nothing_is_lost_or_left_behind(command: str, kills: int) -> None:
    """In a process of its own: it forks, and other tests of this one leave threads."""
    words = [sys.executable, RUN, "--kills", str(kills), "--only", command]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = next(line for line in done.stdout.splitlines() if line.startswith(f"| {command}")).split("|")
    assert counts[2].strip() == str(kills) and counts[-2].strip() == "0"
