"""The authors' checkpoints (GitHub FelTris/pjepa) as keystep models: names and settings mapped, nothing else.

Their files hold a plain state dict, or one inside a bundle with an ``architecture`` or a training ``config``. Files are
read with ``weights_only=True``. Models with their ``clip_causal`` attention or two-axis positions need true segment
boundaries: ORACLE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from keystep.config import ModelConfig, build
from keystep.errors import InputError
from keystep.interop.official.reading import read_payload
from keystep.persistence import load_strict
from keystep.pjepa import PJEPA

ARCHITECTURE_KEYS = (
    "d_in",
    "d_model",
    "enc_depth",
    "enc_heads",
    "pred_depth",
    "pred_heads",
    "drop_path_prob",
    "student_encoder_attention",
    "student_encoder_block_size",
    "rope_mode",
)
_ATTENTION = {
    "bidirectional": "bidirectional",
    "noncausal": "bidirectional",
    "non_causal": "bidirectional",
    "causal": "causal",
    "full_causal": "causal",
    "block_causal": "block_causal",
    "blockcausal": "block_causal",
    "clip_causal": "segment_causal",
    "clipcausal": "segment_causal",
}
_POSITIONS = {
    "1d_flat": "frame",
    "1d": "frame",
    "flat": "frame",
    "flat_1d": "frame",
    "2d_clip_frame": "segment",
    "2d": "segment",
    "clip_frame": "segment",
}


def _released(d_in: int, d_model: int, heads: int, attention: str, block: int, rope: str) -> dict[str, Any]:
    sizes = {"d_in": d_in, "d_model": d_model, "enc_depth": 4, "enc_heads": heads, "pred_depth": 2, "pred_heads": heads}
    modes = {"student_encoder_attention": attention, "student_encoder_block_size": block, "rope_mode": rope}
    return sizes | {"drop_path_prob": 0.0} | modes


RELEASED = {
    "e15967fc": _released(768, 768, 8, "block_causal", 32, "1d_flat"),  # lemon_plstitch_block32.pt
    "b8e785d1": _released(2048, 1408, 16, "block_causal", 64, "1d_flat"),  # assembly101_tsm_block64.pt
    "787987c3": _released(2048, 1408, 16, "clip_causal", 64, "2d_clip_frame"),  # assembly101_tsm_clip.pt
    "4798a917": _released(2048, 1408, 16, "clip_causal", 64, "2d_clip_frame"),  # egoprocel_fact_features_clip.pt
    "9c6cb835": _released(1408, 1408, 16, "clip_causal", 64, "2d_clip_frame"),  # egoprocel_pooled_clip.pt
}
"""Architectures of the released files by the start of their SHA-256; the files themselves do not say them."""


def load(path: Path | str, architecture: Mapping[str, Any] | None = None) -> PJEPA:
    """A keystep model in eval mode with the weights of one of the authors' checkpoint files.

    Args:
        architecture: the ten settings of `ARCHITECTURE_KEYS`, for a bare state dict that is no released file.

    Raises:
        InputError: no such file, a damaged one or one with more than plain tensors; an architecture that is missing,
            incomplete or does not fit the weights.
    """
    path = Path(path)
    payload = read_payload(path)
    tensors = payload.get("model_state_dict", payload)
    settings = architecture or _architecture(path, payload)
    model = PJEPA(model_config(settings, str(path)))
    load_strict(model, rename(tensors, str(path)), str(path))
    return model.eval()


def rename(tensors: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Their names -> ours: the student encoder is our context encoder, the rest keeps its name."""
    other = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if other:
        raise InputError(f"{source}: {other[0]!r} is no tensor; this is no P-JEPA state dict")
    return {name.replace("student_enc.", "encoder.", 1): value.float() for name, value in tensors.items()}


def model_config(architecture: Mapping[str, Any], source: str) -> ModelConfig:
    """Our config of their architecture."""
    missing = sorted(set(ARCHITECTURE_KEYS) - set(architecture))
    unknown = sorted(set(architecture) - set(ARCHITECTURE_KEYS))
    if missing or unknown:
        problem = f"misses {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise InputError(f"{source}: the architecture {problem}; it needs exactly {', '.join(ARCHITECTURE_KEYS)}")
    kind = _mode(architecture["student_encoder_attention"], _ATTENTION, source)
    attention = {"kind": kind}
    if kind == "block_causal":
        attention["block"] = architecture["student_encoder_block_size"]
    settings = {
        "input_dim": architecture["d_in"],
        "dim": architecture["d_model"],
        "depth": architecture["enc_depth"],
        "heads": architecture["enc_heads"],
        "predictor_depth": architecture["pred_depth"],
        "predictor_heads": architecture["pred_heads"],
        "attention": attention,
        "live_attention": None,
        "rotary": "tiled",
        "positions": _mode(architecture["rope_mode"], _POSITIONS, source),
        "input_norm": "layer",
        "centring": False,
        "readout": "last",
    }
    return build(ModelConfig, settings)


def _mode(text: str, names: Mapping[str, str], source: str) -> str:
    key = str(text).lower().replace("-", "_")
    if key not in names:
        raise InputError(f"{source}: unknown mode {text!r}; known: {', '.join(names)}")
    return names[key]


def _architecture(path: Path, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """From the file itself, or by its hash."""
    if "architecture" in payload:
        given: Mapping[str, Any] = payload["architecture"]
        return given
    if "config" in payload:
        return _from_training_config(payload["config"], path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest[:8] in RELEASED:
        return RELEASED[digest[:8]]
    raise InputError(
        f"{path}: a bare state dict (SHA-256 {digest[:8]}...) that is none of the released files; give its architecture"
    )


def _from_training_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        model, ssl = config["model"], config["ssl"]
        return {
            "d_in": model["input_dim"],
            "d_model": model["dim"],
            **{key: model[key] for key in ("enc_depth", "enc_heads", "pred_depth", "pred_heads", "drop_path_prob")},
            **{key: ssl[key] for key in ("student_encoder_attention", "student_encoder_block_size", "rope_mode")},
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: its config does not describe the architecture: no {error}") from error
