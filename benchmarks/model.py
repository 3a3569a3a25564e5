"""What a whole model costs as videos grow: encode, and one training step, on random features.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/model.py --preset small --window 512 --lengths 1000 7200 54000

Every length runs in a process of its own, so that its peak memory is its own. GEMM %: useful arithmetic (linear maps,
and visible pairs only) a CPU second, as a share of a matrix product timed in the same process. A training step is
forward, backward and AdamW on one video with 60 % of its frames hidden in spans; targets are given.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch

from keystep.batch import SequenceBatch
from keystep.config import MaskingConfig, ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.config.presets import preset_settings
from keystep.masking import draw_hidden
from keystep.pjepa import PJEPA
from measure import GEMM, gemm, gemm_rate, growth, interleaved, parser

HIDDEN = 0.6
SPANS = MaskingConfig(kind="spans", ratio=HIDDEN, shortest=4, longest=32)


def main() -> None:
    options = _options()
    config = _config(options)
    if options.one:
        print(json.dumps(measured(config, options.work, options.lengths[0], options.threads, options.rounds)))
        return
    print(
        f"{options.preset}, {options.work}, {config.attention}; torch {torch.__version__}, {options.threads} thread(s)"
    )
    print(f"{'T':>8}{'CPU s':>9}{'wall s':>9}{'frames/CPU s':>14}{'extra GiB':>11}{'peak GiB':>10}{'GEMM %':>8}")
    rows = []
    for length in options.lengths:
        rows.append(row := in_own_process(*sys.argv, "--one", "--lengths", str(length)))  # options that come last win
        print(
            f"{length:>8}{row['cpu']:9.2f}{row['wall']:9.2f}{length / row['cpu']:14.0f}{row['extra']:11.2f}"
            f"{row['peak']:10.2f}{100 * row['share']:8.0f}",
            flush=True,
        )
    print(growths(options.lengths, rows))


def in_own_process(*command: str) -> dict[str, float]:
    """What a script prints as JSON, the script and its options given."""
    finished = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(finished.stdout)
    return row


def growths(lengths: list[int], rows: list[dict[str, float]]) -> str:
    """How time and memory grow with the length, in words."""
    exponents = [growth(lengths, [max(row[what], 1e-3) for row in rows]) for what in ("cpu", "extra")]
    return f"growth: CPU seconds as T^{exponents[0]:.2f}, extra memory as T^{exponents[1]:.2f}"


def measured(
    config: ModelConfig,
    work: str,
    length: int,
    threads: int,
    rounds: int,
    masking: MaskingConfig | None = None,
) -> dict[str, float]:
    """One row: ``encode`` or ``train`` on one video of random features.

    cpu, wall: seconds, median. extra, peak: GiB above what was held before the call, and of the whole process.
    share: of the FLOP per CPU second of a matrix product. gemm: that product's.
    """
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    assert config.input_dim is not None
    work_once = made_work(config, work, length, masking or SPANS)
    costs = interleaved({GEMM: gemm(), "work": work_once}, rounds)
    cost, ceiling = costs["work"], gemm_rate(costs[GEMM])
    share = 1.0 if work == "encode" else 1 - HIDDEN
    flops = forward_flops(config, config.attention, config.depth, length, share)
    flops += 2 * length * share * config.input_dim * config.dim
    if work == "train":
        flops += forward_flops(config, config.predictor_attention, config.predictor_depth, length, 1.0)
        flops *= 3  # the backward pass multiplies twice as much
    return {
        "cpu": cost.cpu,
        "wall": cost.wall,
        "extra": (cost.extra_bytes or 0) / 2**30,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "share": flops / cost.cpu / ceiling,
        "gemm": ceiling,
    }


def made_work(config: ModelConfig, work: str, length: int, masking: MaskingConfig) -> Callable[[], object]:
    """A model with random weights and a video of random features, ready to be put to work."""
    model = PJEPA(config)
    features = torch.randn(1, length, model.encoder.proj[1].in_features)
    return _encode(model, features) if work == "encode" else _training_step(model, features, masking)


def _encode(model: PJEPA, features: torch.Tensor) -> Callable[[], object]:
    model.eval()
    return lambda: model.encode(features)


def _training_step(model: PJEPA, features: torch.Tensor, masking: MaskingConfig) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    length = features.shape[1]
    batch = SequenceBatch(features, torch.ones(1, length, dtype=torch.bool))
    drawn = draw_hidden(length, masking, np.random.default_rng(0))
    hidden, targets = torch.from_numpy(drawn)[None], torch.randn(1, length, model.config.dim)

    def step() -> None:
        predictions = model(batch, hidden).predictions
        (predictions - targets)[hidden].abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_flops(config: ModelConfig, pattern: AttentionPattern, depth: int, length: int, share: float) -> float:
    """Multiplications and additions of the blocks over this share of the frames."""
    linear = 2 * length * share * config.dim**2 * (4 + 2 * config.mlp_ratio)
    return depth * (linear + 4 * config.dim * share**2 * _pairs(pattern, length))


def _pairs(pattern: AttentionPattern, length: int) -> float:
    """Visible pairs of frames when none is hidden."""
    frame = np.arange(length)
    block = pattern.block or 1
    last = np.full(length, length) if pattern.kind == "bidirectional" else (frame // block + 1) * block
    window = pattern.window or length
    pairs = np.minimum(np.minimum(last, length), frame + window) - np.maximum(frame - window + 1, 0)
    return float(pairs.sum())


def _config(options: argparse.Namespace) -> ModelConfig:
    config = build(ModelConfig, preset_settings(options.preset).get("model", {}), {"input_dim": options.width})
    pattern = config.attention
    if options.pattern is not None:
        block = (pattern.block or 64) if options.pattern == "block_causal" else None
        pattern = AttentionPattern(kind=options.pattern, block=block)
    if options.window is None:
        return config.model_copy(update={"attention": pattern})
    both = {"attention": pattern, "predictor_attention": config.predictor_attention}
    return config.model_copy(update={k: p.model_copy(update={"window": options.window}) for k, p in both.items()})


def _options() -> argparse.Namespace:
    found = parser(__doc__, preset="small", lengths=[1000, 7200, 54000], width=2048, threads=1, rounds=3)
    found.add_argument("--work", choices=["encode", "train"], default="encode")
    found.add_argument("--pattern", choices=["bidirectional", "causal", "block_causal"], help="default: the preset's")
    found.add_argument("--window", type=int, help="frames, for encoder and predictor; default: the preset's")
    found.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return found.parse_args()


if __name__ == "__main__":
    main()
