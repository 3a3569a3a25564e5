"""What others would run instead, in plain PyTorch, beside keystep: whole videos, on random features.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/peers.py --lengths 1000 7200 54000 216000

Rows of one length are measured in turn, round after round, in one process with a matrix product. ``keystep, full`` is
the same model without its window (torch's fused full attention), up to ``--full-to`` frames, as it is quadratic.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.config.presets import preset_settings
from keystep.pjepa import PJEPA
from measure import GEMM, gemm, gemm_rate, growth, interleaved, parser

CLASSES = 202


class GRU(nn.Module):
    """A gated recurrent unit 1024 wide between two linear maps, as online action detectors use."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry, self.gru, self.exit = (
            nn.Linear(width, 1024),
            nn.GRU(1024, 1024, batch_first=True),
            nn.Linear(1024, CLASSES),
        )

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(1, T, D_in) -> (1, T, classes), and the state to go on from."""
        out, state = self.gru(self.entry(x), state)
        return self.exit(out), state


class CausalTCN(nn.Module):
    """Four stages of ten causal dilated convolutions of 64 maps, as multi-stage segmentation networks have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(_Stage(width), *(_Stage(CLASSES) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """(1, T, D_in) -> (1, classes, T)"""
        out: Tensor = self.stages(x.transpose(1, 2))
        return out


class _Stage(nn.Module):
    """Ten causal dilated convolutions with a residual around each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry, self.exit = nn.Conv1d(width, 64, 1), nn.Conv1d(64, CLASSES, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(64, 64, 3, dilation=2**level) for level in range(10))
        self.pointwise = nn.ModuleList(nn.Conv1d(64, 64, 1) for _ in range(10))

    def forward(self, x: Tensor) -> Tensor:
        """(1, width, T) -> (1, classes, T)"""
        x = self.entry(x)
        for level, (dilated, pointwise) in enumerate(zip(self.dilated, self.pointwise, strict=True)):
            x = x + pointwise(functional.relu(dilated(functional.pad(x, (2 * 2**level, 0)))))
        out: Tensor = self.exit(x)
        return out


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model, full = _model(options.width, options.window), _model(options.width, None)
    gru, tcn = GRU(options.width).eval(), CausalTCN(options.width).eval()
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.width}-wide features")
    print(f"{'':30}{'T':>8}{'CPU s':>9}{'wall s':>9}{'extra GiB':>11}{'frames/CPU s':>14}")
    costs: dict[str, list[float]] = {}
    with torch.inference_mode():
        for length in options.lengths:
            features = torch.randn(1, length, options.width)
            cases: dict[str, Callable[[], object]] = {
                GEMM: gemm(),
                f"keystep, window {options.window}": lambda x=features: model.encode(x),  # type: ignore[misc]
                "GRU 1024": lambda x=features: gru(x),  # type: ignore[misc]
                "causal TCN, 4 x 10 x 64": lambda x=features: tcn(x),  # type: ignore[misc]
            }
            if length <= options.full_to:
                cases["keystep, full"] = lambda x=features: full.encode(x)  # type: ignore[misc]
            for name, cost in interleaved(cases, options.rounds).items():
                if name == GEMM:
                    print(f"{name:30}{length:8}{gemm_rate(cost) / 1e9:9.0f} GFLOP a CPU second")
                    continue
                costs.setdefault(name, []).append(cost.cpu)
                extra = (cost.extra_bytes or 0) / 2**30
                print(
                    f"{name:30}{length:8}{cost.cpu:9.2f}{cost.wall:9.2f}{extra:11.2f}{length / cost.cpu:14.0f}",
                    flush=True,
                )
    for name, seconds in costs.items():
        print(f"{name:30} CPU seconds grow as T^{growth(options.lengths[: len(seconds)], seconds):.2f}")


def _model(width: int, window: int | None) -> PJEPA:
    config = build(ModelConfig, preset_settings("small")["model"], {"input_dim": width})
    return PJEPA(config.model_copy(update={"attention": AttentionPattern(kind="causal", window=window)})).eval()


def _options() -> argparse.Namespace:
    found = parser(__doc__, lengths=[1000, 7200, 54000], width=2048, threads=2, rounds=1)
    found.add_argument("--window", type=int, default=512)
    found.add_argument("--full-to", type=int, default=16000)
    return found.parse_args()


if __name__ == "__main__":
    main()
