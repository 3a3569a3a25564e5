"""Conversion of the authors' encoders to keystep models by mapping names and settings.

A file holds a plain state dict, or one in a bundle with an ``architecture`` or a training ``config``. The released
files are plain state dicts and identified by their SHA-256. Models with ``clip_causal`` attention or two-axis positions
need the true segment boundaries (ORACLE).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.errors import InputError, one_line, quoted
from keystep.interop.official.reading import check_file, find_state_dict, read_payload
from keystep.persistence import check_fit, shapes_of
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


@dataclass(frozen=True)
class Released:
    """A released file, with information that it does not contain.

    sha256: the first eight digits, which are all that is published.
    """

    name: str
    size: int
    sha256: str
    architecture: Mapping[str, Any]


def _architecture(d_in: int, d_model: int, heads: int, attention: str, block: int, rope: str) -> dict[str, Any]:
    sizes = {"d_in": d_in, "d_model": d_model, "enc_depth": 4, "enc_heads": heads, "pred_depth": 2, "pred_heads": heads}
    modes = {"student_encoder_attention": attention, "student_encoder_block_size": block, "rope_mode": rope}
    return sizes | {"drop_path_prob": 0.0} | modes


_BLOCK_64 = ("block_causal", 64, "1d_flat")
_CLIP = ("clip_causal", 64, "2d_clip_frame")
_LEMON = _architecture(768, 768, 8, "block_causal", 32, "1d_flat")
RELEASED = (
    Released("lemon_plstitch_block32.pt", 172_522_460, "e15967fc", _LEMON),
    Released("assembly101_tsm_block64.pt", 583_007_046, "b8e785d1", _architecture(2048, 1408, 16, *_BLOCK_64)),
    Released("assembly101_tsm_clip.pt", 583_007_046, "787987c3", _architecture(2048, 1408, 16, *_CLIP)),
    Released("egoprocel_fact_features_clip.pt", 583_007_046, "4798a917", _architecture(2048, 1408, 16, *_CLIP)),
    Released("egoprocel_pooled_clip.pt", 579_397_446, "9c6cb835", _architecture(1408, 1408, 16, *_CLIP)),
)
"""The five encoders of the release (Hugging Face FelTris/pjepa, registry ``artifacts.json``)."""


def load(path: Path | str, architecture: Mapping[str, Any] | None = None, sha256: str | None = None) -> PJEPA:
    """Load one of the authors' checkpoint files as a keystep model in eval mode.

    Args:
        path: of the file.
        architecture: the ten settings of `ARCHITECTURE_KEYS`, for a plain state dict that is not a released file.
        sha256: expected SHA-256 of the file, or at least its first eight digits.

    Raises:
        InputError: a missing, unexpected or damaged file, one with more than plain tensors, or an architecture that is
            missing, incomplete, or inconsistent with the file.
    """
    path = Path(path)
    size = next((file.size for file in RELEASED if file.name == path.name), None)
    check_file(path, size)
    if sha256 is not None:  # before anything is unpickled
        _check_hash(path, sha256)
    payload = read_payload(path, size, verify=True)
    theirs = _state_dict(path, payload)
    config = model_config(_resolve_architecture(path, payload, architecture), str(path))
    _check_sizes(path, theirs, config)
    with torch.device("meta"):  # only names and shapes; the weights are assigned from the file
        model = PJEPA(config)
    own = {_their_name(name): tensor for name, tensor in model.state_dict().items()}
    check_fit(shapes_of(own), shapes_of(theirs), str(path))
    model.load_state_dict(rename(theirs), assign=True)
    return model.eval()


def _check_sizes(path: Path, tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Check depths and widths before building the model, whose size would otherwise be unlimited.

    Raises:
        InputError: the architecture differs from the weights.
    """
    projection = tensors.get("student_enc.proj.1.weight")
    if projection is None or projection.ndim != 2:
        raise InputError(f"{path}: not a state dict of P-JEPA: the matrix student_enc.proj.1.weight is missing")
    sizes = {
        "enc_depth": (config.depth, _blocks(tensors, "student_enc")),
        "pred_depth": (config.predictor_depth, _blocks(tensors, "predictor")),
        "d_model": (config.dim, len(projection)),
        "d_in": (config.input_dim, projection.shape[1]),
    }
    for name, (stated, held) in sizes.items():
        if stated != held:
            raise InputError(f"{path}: {name} is {stated} in the architecture, but {held} in the weights")


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks, from the names."""
    found = (re.match(rf"{prefix}\.blocks\.(\d+)\.", name) for name in tensors)
    return len({match[1] for match in found if match})


def _their_name(name: str) -> str:
    return f"student_enc.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert names to ours and weights to float32. Their student encoder is our context encoder."""
    return {
        name.replace("student_enc.", "encoder.", 1): tensor.to(torch.float32, copy=True)
        for name, tensor in tensors.items()
    }


def model_config(architecture: Mapping[str, Any], source: str) -> ModelConfig:
    """Convert an architecture to our config.

    Args:
        architecture: the settings of `ARCHITECTURE_KEYS`.
        source: for error messages.

    Raises:
        InputError: a setting is missing, unknown or invalid.
    """
    missing = sorted(set(ARCHITECTURE_KEYS) - set(architecture))
    unknown = sorted(quoted(key) for key in set(architecture) - set(ARCHITECTURE_KEYS))
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown[:3])}"
        raise InputError(f"{source}: the architecture {problem}; expected exactly {', '.join(ARCHITECTURE_KEYS)}")
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
        "visible_predictions": "predictor",
        "readout": "last",
        "readout_dim": None,
        "bands": ("context",),
    }
    try:
        return build(ModelConfig, settings)
    except (ValueError, RecursionError) as error:  # includes Python's errors for values too large to print
        raise InputError(f"{source}: invalid architecture: {one_line(error)}") from error


def _mode(text: object, names: Mapping[str, str], source: str) -> str:
    key = text.lower().replace("-", "_") if isinstance(text, str) else None
    if key is None or key not in names:
        raise InputError(f"{source}: unknown mode {quoted(text)}; expected one of {', '.join(names)}")
    return names[key]


def _state_dict(path: Path, payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights with their original names."""
    tensors = find_state_dict(path, payload, "model_state_dict", "state_dict", "model")
    if "fc.weight" in tensors or "foreground_fc.weight" in tensors or "classifier.weight" in tensors:
        raise InputError(f"{path}: a linear head, not an encoder; read it with keystep.interop.official.load_head")
    return tensors


def _resolve_architecture(path: Path, payload: Mapping[str, Any], given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The architecture given in the file or known by its hash, or that of the caller, which must not contradict it."""
    known = _known_architecture(path, payload)
    if known is None and given is None:
        raise _unknown(path)
    if known is None or given is None:
        return known or given or {}
    if model_config(known, str(path)) != model_config(given, "the given architecture"):
        apart = [key for key in ARCHITECTURE_KEYS if known[key] != given[key]]
        listed = ", ".join(f"{key} {quoted(known[key])}, not {quoted(given[key])}" for key in apart)
        raise InputError(f"{path}: the file has another architecture: {listed}; remove the given one")
    return known


def _known_architecture(path: Path, payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "architecture" in payload:
        stated = payload["architecture"]
        if not isinstance(stated, Mapping):
            raise InputError(f"{path}: its architecture is a {type(stated).__name__}; expected a dictionary")
        return stated
    if "config" in payload:
        return _from_training_config(payload["config"], path)
    digest = _sha256(path)
    return next((file.architecture for file in RELEASED if digest.startswith(file.sha256)), None)


def _unknown(path: Path) -> InputError:
    """Error for a plain state dict without a known architecture."""
    digest, size = _sha256(path), path.stat().st_size
    namesake = next((file for file in RELEASED if file.name == path.name), None)
    if namesake is not None:
        return InputError(
            f"{path}: not the released {namesake.name}: {size:,} bytes with SHA-256 {digest[:8]}..., expected "
            f"{namesake.size:,} bytes with {namesake.sha256}...; download it again, or give its architecture"
        )
    return InputError(
        f"{path}: a plain state dict (SHA-256 {digest[:8]}...) that is not a released file; give its "
        f"architecture: {', '.join(ARCHITECTURE_KEYS)}"
    )


def _check_hash(path: Path, expected: str) -> None:
    digest = _sha256(path)
    if len(expected) < 8 or not digest.startswith(expected.lower()):
        raise InputError(f"{path}: SHA-256 is {digest}, not {expected} (give at least 8 digits); download it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_training_config(config: Any, path: Path) -> dict[str, Any]:
    try:
        model, ssl = config["model"], config["ssl"]
        return {
            "d_in": model["input_dim"],
            "d_model": model["dim"],
            **{key: model[key] for key in ("enc_depth", "enc_heads", "pred_depth", "pred_heads", "drop_path_prob")},
            **{key: ssl[key] for key in ("student_encoder_attention", "student_encoder_block_size", "rope_mode")},
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: its config lacks {one_line(error)} of the architecture") from error
