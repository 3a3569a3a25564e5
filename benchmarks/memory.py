"""Peak memory and CPU seconds of keystep's commands on feature folders of growing size.

    python benchmarks/memory.py /tmp/growth --hours 2 4 8 16 32 --out benchmarks/results/memory.md
    python benchmarks/memory.py /tmp/growth --hours 50 100 200 400 --works inspect pretrain encode

For each size, a made-up folder is written (videos of about half an hour with labels, and a split), every command runs
on it in a process of its own, and the folder is deleted. 2,048 channels at 4 Hz in float16 take 59 MB an hour. Peak
memory is that of ``getrusage``: resident pages, those of memory-mapped files included. Model and heads are small,
because their memory does not depend on the amount of data. ``eval`` is ``keystep eval --quick``; ``heads`` trains a
temporal head on latents as ``keystep eval`` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from measure import growth, parser

CLASSES, SEGMENT_SECONDS, VIDEO_MINUTES, RATE = 20, 45, 30, 4
WORKS = ("inspect", "pretrain", "encode", "eval", "heads")
SETTINGS = (
    *("model.dim=32", "model.depth=1", "model.heads=2", "model.readout_dim=32", "model.bands=[steady,context]"),
    *("train.steps=20", "train.batch_size=8", "train.crop=256"),
)


class Usage(NamedTuple):
    """Peak memory in GiB and CPU seconds of a process."""

    peak: float
    cpu: float


def write_folder(root: Path, hours: float, width: int, kind: str) -> None:
    """A folder of features: a mean for each class, and one array of noise, rolled for each video."""
    from keystep.data.store import FeatureStore
    from keystep.data.timeline import Timeline

    random = np.random.default_rng(0)
    frames = 60 * VIDEO_MINUTES * RATE
    means = 0.3 * random.normal(size=(CLASSES, width)).astype(np.float32)
    noise = random.normal(size=(frames, width)).astype(np.float32)
    store = FeatureStore(root, Timeline(rate=Fraction(RATE))).create()
    parts: dict[str, list[str]] = {"test": [], "valid": [], "train": []}
    for number in range(max(4, round(60 * hours / VIDEO_MINUTES))):
        name, length = f"video{number:05}", frames - frames // 5 * (number % 3)
        steps = random.integers(CLASSES, size=-(-length // (RATE * SEGMENT_SECONDS)))
        labels = np.repeat(steps, RATE * SEGMENT_SECONDS)[:length]
        drawn = np.roll(noise[:length], int(random.integers(width)), axis=1) + means[labels]
        store.add(name, drawn.astype(kind), labels=[f"step{label}" for label in labels])
        parts[("test", "valid", "train", "train")[number % 4]].append(name)
    store.finish()
    (root / "mapping.txt").write_text("".join(f"{index} step{index}\n" for index in range(CLASSES)))
    (root / "splits").mkdir()
    for part, names in parts.items():
        (root / "splits" / f"{part}.split1.bundle").write_text("".join(f"{name}\n" for name in names))


def train_heads(data: Path, run: Path, out: Path) -> None:
    """Train a temporal head on latents as ``keystep eval`` does, behind the controls, which take longer."""
    from keystep.data.folder import open_dataset
    from keystep.evals.entrants import load_groups, make_entrants, open_judge
    from keystep.evals.head_rows import HeadStudy
    from keystep.evals.protocol import eval_config

    settings = {"heads": ["linear", "mstcn-small"], "modes": ["offline"], "seeds": 0, "training": {"epochs": 2}}
    config = eval_config(settings)
    judge = open_judge(open_dataset(data), "1", config, out)
    HeadStudy(judge, config, out / "heads", {}).run(make_entrants(load_groups({"model": run})))


def command(work: str, data: Path, scratch: Path) -> list[str]:
    """The command line of a piece of work; `pretrain` comes before those that need its model."""
    keystep = [sys.executable, "-c", "from keystep.cli import main; main()", work, str(data)]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    run, out = str(scratch / "run"), ["--out", str(scratch / work)]
    return {
        "inspect": [*keystep, "--picture", str(scratch / "inspect.png")],
        "pretrain": [*keystep, "--split", "1", "--out", run, *settings],
        "encode": [*keystep[:-2], "encode", run, str(data), *out],
        "eval": [*keystep, "--model", f"model={run}", "--quick", "--set", "modes=[offline]", *out],
        "heads": [sys.executable, __file__, "--heads", str(data), run, *out],
    }[work]


def measured(words: list[str]) -> Usage:
    """Run a command with one thread to its end."""
    tree = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(words)}: {said.read().decode()[-2000:]}")
    return Usage(usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime)


def table(hours: list[float], found: dict[str, list[Usage]], width: int, kind: str) -> str:
    """Markdown: a row for each piece of work, with the exponent of its CPU seconds, and peak memory by hours."""
    sizes = " | ".join(f"{each:g} h" for each in hours)
    frames = f"{max(hours) * 3600 * RATE:,.0f}"
    lines = [
        f"`{' '.join(['python', 'benchmarks/memory.py', *sys.argv[1:]])}`",
        "",
        f"{width} channels at {RATE} Hz in {kind}, up to {frames} frames; one thread.",
    ]
    for title, column, digits in (("peak memory, GiB", 0, 2), ("CPU seconds", 1, 1)):
        lines += ["", f"| {title} | {sizes} | growth |", f"|---|{'---|' * (len(hours) + 1)}"]
        for work, usages in found.items():
            cells = " | ".join(f"{usage[column]:.{digits}f}" for usage in usages)
            lines.append(f"| {work} | {cells} | h^{growth(hours, [usage[column] for usage in usages]):.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    found = parser(__doc__, width=2048)
    found.add_argument("root", type=Path, help="where folders are written and deleted")
    found.add_argument("--hours", type=float, nargs="+", default=[2.0, 4.0, 8.0, 16.0])
    found.add_argument("--works", choices=WORKS, nargs="+", default=WORKS)
    found.add_argument("--kind", choices=("float16", "float32"), default="float16")
    found.add_argument("--out", type=Path, help="Markdown file")
    given = found.parse_args()
    usages: dict[str, list[Usage]] = {work: [] for work in given.works}
    for hours in given.hours:
        scratch = given.root / f"{hours:g}h"
        measured([sys.executable, __file__, "--write", str(scratch / "data"), str(hours), str(given.width), given.kind])
        for work in WORKS:
            if work in given.works or (work == "pretrain" and {"encode", "eval", "heads"} & {*given.works}):
                usage = measured(command(work, scratch / "data", scratch))
                if work in given.works:
                    usages[work].append(usage)
                print(f"{hours:g} h, {work}: {usage.peak:.2f} GiB, {usage.cpu:.1f} CPU s", flush=True)
        shutil.rmtree(scratch)
    text = table(given.hours, usages, given.width, given.kind)
    print(text)
    if given.out is not None:
        given.out.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--heads"]:
        train_heads(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[5]))
    elif sys.argv[1:2] == ["--write"]:  # not in this process, whose peak a command that it starts would begin with
        write_folder(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        main()
