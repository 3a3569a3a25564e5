"""Named presets of settings."""

from __future__ import annotations

from typing import Any

from keystep.errors import InputError

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "model": {
            "dim": 384,
            "depth": 6,
            "heads": 6,
            "attention": {"kind": "bidirectional", "window": 512},
            "live_attention": {"kind": "causal", "window": 512},
            "predictor_attention": {"kind": "causal", "window": 512},
        },
        "train": {"steps": 2000, "batch_size": 8, "learning_rate": 3e-4, "crop": 2048},
    },
    "surgical": {
        "model": {
            "dim": 768,
            "depth": 4,
            "heads": 8,
            "attention": {"kind": "block_causal", "block": 32},
            "live_attention": None,
        },
        "train": {"steps": 2000, "batch_size": 8, "learning_rate": 1e-4, "crop": 4096},
    },
    "paper": {
        "model": {
            "dim": 1408,
            "depth": 4,
            "heads": 16,
            "attention": {"kind": "block_causal", "block": 64},
            "live_attention": None,
            "input_norm": "layer",
            "centring": False,
            "visible_predictions": "predictor",
            "readout": "last",
            "readout_dim": None,
            "bands": ("context",),
        },
        "target": {"kind": "ema", "offsets": (0,), "spread": 0.0},
        "masking": {"kind": "random", "ratio": 0.6},
        "objective": {"distance": "l1", "visible_weight": 0.0, "average": "parts"},
        "train": {
            "steps": 2000,
            "batch_size": 48,
            "accumulate": 2,
            "crop": 2048,
            "learning_rate": 1e-4,
            "schedule": "drop",
            "warmup": 0,
            "decay_all": True,
        },
    },
}
"""Partial `RunConfig` settings by name; ``paper`` is the authors' recipe without true boundaries."""


def preset_settings(name: str) -> dict[str, Any]:
    """Return the settings that a preset changes.

    Raises:
        InputError: if there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
