"""A few of what ``make chaos`` does: commands that are killed, whose disks are full, that meet."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # as run.py finds them

from serving import Serving  # noqa: E402


@pytest.mark.parametrize(("command", "kills"), [("import", 3), ("encode", 6)])
def test_whatever_ends_a_command_it_goes_on_to_the_same_bytes_and_leaves_nothing_behind(
    command: str, kills: int
) -> None:
    """In a process of its own: it forks, which is safe only where no threads are."""
    words = [sys.executable, HERE / "run.py", "--kills", str(kills), "--only", command]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = next(line for line in done.stdout.splitlines() if line.startswith(f"| {command} |")).split("|")
    assert counts[2].strip() == str(kills) and counts[-2].strip() == "0"


def test_a_server_that_is_killed_while_labels_are_saved_loses_none_that_it_acknowledged(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "serving", seed=0)
    serving.kill(3)
    assert not serving.tally.faults and serving.tally.kills == 3
    assert serving.told.count >= 3
