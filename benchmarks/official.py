"""What the authors' released architecture costs here, beside what their own code was measured to cost.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/official.py --rounds 1

Widths of `assembly101_tsm_block64.pt` (1408 wide, 4 + 2 blocks, 16 heads, blocks of 64 frames, their rotary angles),
random weights and features, one video. Encode: exact, and windowed to 4,096 frames, which the authors' code cannot do.
Training step: forward, backward and AdamW, 60 % of the frames hidden at random; targets are given.

The authors' figures are quoted: measured on such a machine on another day, 28,800 frames extrapolated from one block of
four. So compare ratios, and with care. Every row runs in a process of its own; GEMM %: useful arithmetic a CPU second,
as a share of a matrix product timed in the same process, whose GFLOP a CPU second stand behind it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field

import torch
from torch.profiler import ProfilerActivity, profile

from keystep.config import MaskingConfig, ModelConfig
from keystep.interop.official.checkpoints import RELEASED, model_config
from keystep.nn.attention import KERNEL as FLASH
from measure import parser
from model import HIDDEN, growths, in_own_process, made_work, measured

MASKING = MaskingConfig(kind="random", ratio=HIDDEN)
ENCODE = {1024: (3.1, 0.96), 3600: (15.4, 1.31), 7200: (46.4, 1.66), 14400: (161.5, 2.85), 28800: (635.0, 6.3)}
TRAIN = {1024: (13.9, 3.6), 3600: (56.0, 4.2)}


@dataclass(frozen=True)
class Table:
    """One kind of work: what the authors need, CPU seconds and peak GiB by length, and what we want to need."""

    title: str
    work: str
    authors: dict[int, tuple[float, float]]
    window: int | None = None
    targets: dict[int, float] = field(default_factory=dict)
    peak_targets: dict[int, float] = field(default_factory=dict)

    def config(self) -> ModelConfig:
        """The released architecture, perhaps with a window."""
        config = model_config(RELEASED["b8e785d1"], "the release")
        attention = config.attention.model_copy(update={"window": self.window})
        return config.model_copy(update={"attention": attention})


TABLES = {
    "exact": Table("encode, exact", "encode", ENCODE, None, {7200: 24, 14400: 70, 28800: 240}),
    "windowed": Table("encode, windowed", "encode", ENCODE, 4096, {7200: 20, 14400: 46, 28800: 95}),
    "train": Table("training step", "train", TRAIN, None, {3600: 28}, {3600: 3.0}),
}
KERNELS = {"linear": ("addmm", "mm"), "attention": (FLASH, f"{FLASH}_backward")}
"""The kernels that do the arithmetic; what is left of the time is the rest."""


def main() -> None:
    options = _options()
    if options.one:
        table, length = TABLES[options.tables[0]], options.lengths[0]
        row = measured(table.config(), table.work, length, options.threads, options.rounds, MASKING)
        print(json.dumps(row | (_shares(table, length) if options.profile else {})))
        return
    print(f"torch {torch.__version__}, {options.threads} thread(s)")
    for name in options.tables:
        _print_table(name, [n for n in TABLES[name].authors if n in options.lengths])


def _print_table(name: str, lengths: list[int]) -> None:
    table, rows = TABLES[name], []
    print(f"\n{table.title}, {table.config().attention}")
    print(f"{'':59}|{'authors, quoted':^22}| ours")
    columns = (
        ("T", 7),
        ("CPU s", 8),
        ("wall s", 8),
        ("peak GiB", 9),
        ("extra GiB", 10),
        ("GEMM %", 7),
        ("of GFLOP", 9),
    )
    quoted = (("CPU s", 8), ("peak GiB", 9), ("ratio", 6))
    print("".join(f"{text:>{width}}" for text, width in (*columns, *quoted)) + "  target")
    for length in lengths:
        rows.append(row := in_own_process(*sys.argv, "--one", "--tables", name, "--lengths", str(length)))
        seconds, peak = table.authors[length]
        print(
            f"{length:>7}{row['cpu']:8.2f}{row['wall']:8.2f}{row['peak']:9.2f}{row['extra']:10.2f}"
            f"{100 * row['share']:7.0f}{row['gemm'] / 1e9:9.0f}{seconds:8.1f}{peak:9.2f}{seconds / row['cpu']:6.1f}"
            f"  {_judged(table, length, row)}",
            flush=True,
        )
        if parts := [f"{what} {100 * row[what]:.0f} %" for what in (*KERNELS, "rest") if what in row]:
            print(f"{'':7}time: {', '.join(parts)}", flush=True)
    print(growths(lengths, rows))


def _judged(table: Table, length: int, row: dict[str, float]) -> str:
    """Each target with whether it is met."""
    wanted = (("cpu", "CPU s", table.targets.get(length)), ("peak", "GiB", table.peak_targets.get(length)))
    words = [
        f"{limit:g} {unit}: {'met' if row[what] <= limit else 'missed'}"
        for what, unit, limit in wanted
        if limit is not None
    ]
    return ", ".join(words) or "-"


def _shares(table: Table, length: int) -> dict[str, float]:
    """Shares of the wall time of one more call, by kernel."""
    work = made_work(table.config(), table.work, length, MASKING)
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    events = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = {
        what: sum(event.self_cpu_time_total for event in events if event.key.removeprefix("aten::") in names) / total
        for what, names in KERNELS.items()
    }
    return shares | {"rest": 1 - sum(shares.values())}


def _options() -> argparse.Namespace:
    found = parser(__doc__, threads=2, rounds=3)
    found.add_argument("--tables", choices=list(TABLES), nargs="+", default=list(TABLES))
    found.add_argument("--lengths", type=int, choices=list(ENCODE), nargs="+", default=list(ENCODE))
    found.add_argument("--profile", action="store_true", help="also say where the time of one more call goes")
    found.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return found.parse_args()


if __name__ == "__main__":
    main()
