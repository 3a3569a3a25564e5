"""The authors' encoders as keystep models: names and settings mapped, nothing else.

A file holds a plain state dict, or one inside a bundle with an ``architecture`` or a training ``config``. The released
files are plain: what they are is known by their SHA-256. Models with ``clip_causal`` attention or two-axis positions
need true segment boundaries: ORACLE.
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
from keystep.interop.official.reading import check_file, read_payload, tensors_of
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
    """A file of the release, with what it does not say itself.

    sha256: the first eight digits, all that is published.
    """

    name: str
    size: int
    sha256: str
    architecture: Mapping[str, Any]


def _architecture_of(d_in: int, d_model: int, heads: int, attention: str, block: int, rope: str) -> dict[str, Any]:
    sizes = {"d_in": d_in, "d_model": d_model, "enc_depth": 4, "enc_heads": heads, "pred_depth": 2, "pred_heads": heads}
    modes = {"student_encoder_attention": attention, "student_encoder_block_size": block, "rope_mode": rope}
    return sizes | {"drop_path_prob": 0.0} | modes


_BLOCK_64 = ("block_causal", 64, "1d_flat")
_CLIP = ("clip_causal", 64, "2d_clip_frame")
_LEMON = _architecture_of(768, 768, 8, "block_causal", 32, "1d_flat")
RELEASED = (
    Released("lemon_plstitch_block32.pt", 172_522_460, "e15967fc", _LEMON),
    Released("assembly101_tsm_block64.pt", 583_007_046, "b8e785d1", _architecture_of(2048, 1408, 16, *_BLOCK_64)),
    Released("assembly101_tsm_clip.pt", 583_007_046, "787987c3", _architecture_of(2048, 1408, 16, *_CLIP)),
    Released("egoprocel_fact_features_clip.pt", 583_007_046, "4798a917", _architecture_of(2048, 1408, 16, *_CLIP)),
    Released("egoprocel_pooled_clip.pt", 579_397_446, "9c6cb835", _architecture_of(1408, 1408, 16, *_CLIP)),
)
"""The five encoders of the release (Hugging Face FelTris/pjepa, registry ``artifacts.json``)."""


def load(path: Path | str, architecture: Mapping[str, Any] | None = None, sha256: str | None = None) -> PJEPA:
    """A keystep model in eval mode with the weights of one of the authors' checkpoint files.

    Args:
        architecture: the ten settings of `ARCHITECTURE_KEYS`, for a bare state dict that is no released file.
        sha256: the file's expected SHA-256, or the first eight digits of it or more; another file is refused.

    Raises:
        InputError: no such file, another one than expected, a damaged one or one with more than plain tensors; an
            architecture that is missing, incomplete, or does not fit the file.
    """
    path = Path(path)
    size = next((file.size for file in RELEASED if file.name == path.name), None)
    check_file(path, size)
    if sha256 is not None:  # before anything is unpickled
        _check_hash(path, sha256)
    payload = read_payload(path, size, verify=True)
    theirs = _state_dict(path, payload)
    config = model_config(_settled(path, payload, architecture), str(path))
    _check_sizes(path, theirs, config)
    with torch.device("meta"):  # names and shapes only: the numbers come from the file
        model = PJEPA(config)
    own = {_their_name(name): tensor for name, tensor in model.state_dict().items()}
    check_fit(shapes_of(own), shapes_of(theirs), str(path))
    model.load_state_dict(rename(theirs), assign=True)
    return model.eval()


def _check_sizes(path: Path, tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Compare depths and widths before a model is built: one of absurd size would never be finished.

    Raises:
        InputError: the architecture says another number than the weights.
    """
    projection = tensors.get("student_enc.proj.1.weight")
    if projection is None or projection.ndim != 2:
        raise InputError(f"{path}: no matrix student_enc.proj.1.weight in it; this is no state dict of P-JEPA's")
    said = {
        "enc_depth": (config.depth, _blocks(tensors, "student_enc")),
        "pred_depth": (config.predictor_depth, _blocks(tensors, "predictor")),
        "d_model": (config.dim, len(projection)),
        "d_in": (config.input_dim, projection.shape[1]),
    }
    for name, (stated, held) in said.items():
        if stated != held:
            raise InputError(f"{path}: the architecture says {name} {stated}, the weights {held}; they do not fit")


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks the names tell."""
    found = (re.match(rf"{prefix}\.blocks\.(\d+)\.", name) for name in tensors)
    return len({match[1] for match in found if match})


def _their_name(name: str) -> str:
    return f"student_enc.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their names -> ours: the student encoder is our context encoder, the rest keeps its name. float32 copies."""
    return {
        name.replace("student_enc.", "encoder.", 1): tensor.to(torch.float32, copy=True)
        for name, tensor in tensors.items()
    }


def model_config(architecture: Mapping[str, Any], source: str) -> ModelConfig:
    """Our config of their architecture.

    Raises:
        InputError: a setting is missing, unknown or has a value that makes no model; names ``source``.
    """
    missing = sorted(set(ARCHITECTURE_KEYS) - set(architecture))
    unknown = sorted(quoted(key) for key in set(architecture) - set(ARCHITECTURE_KEYS))
    if missing or unknown:
        problem = f"misses {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown[:3])}"
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
        "visible_predictions": "predictor",
        "readout": "last",
        "readout_dim": None,
        "bands": ("context",),
    }
    try:
        return build(ModelConfig, settings)
    except (ValueError, RecursionError) as error:  # also what Python says of numbers and lists too large to print
        raise InputError(f"{source}: its architecture makes no model: {one_line(error)}") from error


def _mode(text: object, names: Mapping[str, str], source: str) -> str:
    key = text.lower().replace("-", "_") if isinstance(text, str) else None
    if key is None or key not in names:
        raise InputError(f"{source}: unknown mode {quoted(text)}; known: {', '.join(names)}")
    return names[key]


def _state_dict(path: Path, payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """The file's weights under their own names."""
    tensors = tensors_of(path, payload, "model_state_dict", "state_dict", "model")
    if "fc.weight" in tensors or "foreground_fc.weight" in tensors or "classifier.weight" in tensors:
        raise InputError(f"{path}: a linear head, no encoder; read it with keystep.interop.official.load_head")
    return tensors


def _settled(path: Path, payload: Mapping[str, Any], given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The architecture: as the file itself says, or its hash, or the caller, who must not contradict them."""
    known = _stated(path, payload)
    if known is None and given is None:
        raise _unknown(path)
    if known is None or given is None:
        return known or given or {}
    if model_config(known, str(path)) != model_config(given, "the given architecture"):
        apart = [key for key in ARCHITECTURE_KEYS if known[key] != given[key]]
        listed = ", ".join(f"{key} {quoted(known[key])}, not {quoted(given[key])}" for key in apart)
        raise InputError(f"{path}: has another architecture than the one given: {listed}; leave it out")
    return known


def _stated(path: Path, payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "architecture" in payload:
        stated = payload["architecture"]
        if not isinstance(stated, Mapping):
            raise InputError(f"{path}: its architecture is a {type(stated).__name__}, not names and values")
        return stated
    if "config" in payload:
        return _from_training_config(payload["config"], path)
    digest = _sha256(path)
    return next((file.architecture for file in RELEASED if digest.startswith(file.sha256)), None)


def _unknown(path: Path) -> InputError:
    """Why a bare state dict cannot be used as it is."""
    digest, size = _sha256(path), path.stat().st_size
    namesake = next((file for file in RELEASED if file.name == path.name), None)
    if namesake is not None:
        return InputError(
            f"{path}: not the released {namesake.name}: {size:,} bytes with SHA-256 {digest[:8]}..., expected "
            f"{namesake.size:,} with {namesake.sha256}...; download it again, or give its architecture"
        )
    return InputError(
        f"{path}: a bare state dict (SHA-256 {digest[:8]}...) that is none of the released files; give its "
        f"architecture: {', '.join(ARCHITECTURE_KEYS)}"
    )


def _check_hash(path: Path, expected: str) -> None:
    digest = _sha256(path)
    if len(expected) < 8 or not digest.startswith(expected.lower()):
        raise InputError(f"{path}: SHA-256 is {digest}, not {expected}; download it again (at least 8 digits count)")


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
        raise InputError(f"{path}: its config does not describe the architecture: no {one_line(error)}") from error
