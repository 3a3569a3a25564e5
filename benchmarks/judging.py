"""CPU seconds of ``keystep eval`` on demo data with six small models, for one tree or two in turn.

    python benchmarks/judging.py prepare /tmp/judging
    python benchmarks/judging.py time /tmp/judging --tree . --tree ../before --rounds 2

``prepare`` makes the demo's data, another folder with features eight times as wide (few videos, as in small data sets
with I3D features), and trains two recipes of three seeds on each, for seconds. ``time`` runs the same command on each
tree in turn (A B A B), and prints CPU seconds and every row's validation and test accuracy of the last round.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from measure import parser

DATA = ("demo", "wide")
RECIPES = {"pjepa": [], "reconstruction": ["--set", "target.offsets=[0]", "--set", "target.smooth=1"]}
WIDE = 1024


def keystep(tree: Path, *arguments: str) -> float:
    """Run the command line of a tree with one thread; CPU seconds, importing included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    code = "from keystep.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"keystep {' '.join(arguments)}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(root: Path, tree: Path) -> None:
    """Data and runs."""
    from keystep.data.synthetic import SyntheticConfig, generate

    generate(root / "demo" / "data", SyntheticConfig.demo())
    few = {"train_videos": 6, "valid_videos": 2, "test_videos": 3, "min_frames": 200, "max_frames": 400}
    generate(root / "wide" / "data", SyntheticConfig.demo().model_copy(update=few))
    for path in sorted((root / "wide" / "data" / "features").glob("*.npy")):
        narrow = np.load(path)
        mixing = np.random.default_rng(0).normal(size=(WIDE, len(narrow))) / np.sqrt(len(narrow))
        noise = np.random.default_rng(len(path.name) + narrow.shape[1]).normal(size=(WIDE, narrow.shape[1]))
        np.save(path, (mixing @ narrow + 0.5 * noise).astype(np.float32))
    for name in DATA:
        manifest = root / name / "data" / "features" / "manifest.json"
        if name == "wide" and manifest.exists():
            manifest.unlink()
        for recipe, settings in RECIPES.items():
            for seed in range(3):
                out = root / name / "runs" / f"{recipe}{seed}"
                some = ["--set", f"train.seed={seed}", "--set", "train.steps=40", "--set", "train.crop=128"]
                keystep(
                    tree, "pretrain", str(root / name / "data"), "--split", "1", "--out", str(out), *some, *settings
                )
                print(f"{name}: {out.name}")


def judge(root: Path, tree: Path, name: str, out: Path, extra: list[str]) -> float:
    """One ``keystep eval``; CPU seconds."""
    shutil.rmtree(out, ignore_errors=True)
    runs = {recipe: ",".join(str(root / name / "runs" / f"{recipe}{seed}") for seed in range(3)) for recipe in RECIPES}
    models = [argument for recipe, paths in runs.items() for argument in ("--model", f"{recipe}={paths}")]
    return keystep(tree, "eval", str(root / name / "data"), "--split", "1", *models, "--out", str(out), *extra)


def main() -> None:
    found = parser(__doc__, rounds=2)
    found.add_argument("what", choices=("prepare", "time"))
    found.add_argument("root", type=Path)
    found.add_argument("--tree", type=Path, action="append")
    found.add_argument("--data", action="append", choices=DATA)
    given = found.parse_args()
    trees = [tree.resolve() for tree in given.tree or [Path(__file__).parents[1]]]
    if given.what == "prepare":
        prepare(given.root, trees[0])
        return
    for name in given.data or DATA:
        for number in range(given.rounds):
            for index, tree in enumerate(trees):
                out = given.root / name / f"result{index}"
                print(
                    f"{name}, round {number + 1}, {tree}: {judge(given.root, tree, name, out, []):.1f} CPU s",
                    flush=True,
                )
        results = [
            json.loads((given.root / name / f"result{i}" / "result.json").read_text()) for i in range(len(trees))
        ]
        for row in results[0]["rows"]:
            cells = []
            for result in results:
                same = [r for r in result["rows"] if (r["name"], r["mode"]) == (row["name"], row["mode"])]
                valid = [np.mean([run["valid_accuracy"] for run in r["runs"]]) for r in same]
                cells += [f"{v:5.1f} / {r['mean']['accuracy']:5.1f}" for v, r in zip(valid, same, strict=True)]
            print(f"{row['name'][:44]:44} {row['mode']:8} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
