"""The names that others rely on, reached as DESIGN.md writes them, from a fresh interpreter."""

import subprocess
import sys

NAMES = """
import keystep
assert "torch" not in __import__("sys").modules, "importing keystep costs nothing"
keystep.PJEPA.from_pretrained, keystep.PJEPA.save_pretrained, keystep.PJEPA.push_to_hub, keystep.PJEPA.encode
keystep.interop.official.load
keystep.stream.init, keystep.stream.step, keystep.stream.finish
scores = keystep.evals.metrics.segmentation_scores([[0, 0, 1]], [[0, 1, 1]])
assert set(scores) == {"accuracy", "accuracy_foreground", "edit", "f1@10", "f1@25", "f1@50"}
"""


def test_the_promised_names_are_reachable_after_one_import() -> None:
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
