"""Conversion of published V-JEPA checkpoints to the parameter names of `model.VJEPAEncoder`.

Meta's files are dicts whose ``target_encoder``, ``ema_encoder`` or ``encoder`` is a state dict, with the prefix
``module.backbone.`` of training wrappers. `transformers` has a folder with ``config.json`` and safetensors, other
names, and separate queries, keys and values.

Read in public code: all names and keys (github.com/facebookresearch/vjepa2, `src/hub/backbones.py`;
github.com/huggingface/transformers, `models/vjepa2/`); that the state dict of 2 may contain ``pos_embed`` (a comment
there), and that of 2.1 only the network (loaded strictly there).

Reported by users of the files: 2.1-B has 158 tensors, as here, and also the predictor, the optimiser and ``encoder``;
2.1-L has 302, and the norms of its first three levels are untrained (ones and zeros), as only the last level was
distilled. No published file was available when this was written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from keystep.errors import InputError, named
from keystep.extraction.backbones.vjepa.config import VJEPAConfig
from keystep.extraction.backbones.weights import file_hash, listed_files, read_tensors
from keystep.reading import read_json

UNUSED = {
    "pos_embed": "fixed position embeddings; the network uses rotary positions instead",
}
"""Tensors in files of V-JEPA 2 that the network does not use -> reason."""

UNUSED_PARTS = {
    "predictor.": "predicts hidden tokens in training",
    "pooler.": "pools tokens for the classifier of a data set",
    "classifier.": "the classifier of a data set",
}
"""Prefixes of names in folders of `transformers` that are not part of the encoder -> reason."""

RENAMED = {
    "encoder.embeddings.patch_embeddings.": "patch_embed.",
    "encoder.layernorm.": "norm.",
    "encoder.layer.": "blocks.",
}


def read_encoder(path: Path, config: VJEPAConfig) -> dict[str, Tensor]:
    """Read the encoder's tensors, renamed for `model.VJEPAEncoder`, without checking that they are complete.

    Args:
        path: a published ``.pt`` file, or a folder of `transformers` or its safetensors (2 only).
        config: of the model.

    Raises:
        InputError: an unreadable file, another key, or a folder of another model.
    """
    if path.is_dir():
        _check_folder(path, config)
        tensors = {name: tensor for file in _files(path) for name, tensor in read_tensors(file).items()}
        return from_transformers(tensors)
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
        if any("encoder.layer." in name for name in tensors):
            return from_transformers(tensors)
        return from_meta(tensors, config)
    return from_meta(read_tensors(path, inside=config.keys), config)


def weights_hash(path: Path) -> str:
    """SHA-256 in hex of a file, or of the hashes of a folder's files, ordered by name."""
    files = _files(path) if path.is_dir() else [path]
    hashes = [file_hash(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def from_meta(tensors: dict[str, Tensor], config: VJEPAConfig) -> dict[str, Tensor]:
    """Convert Meta's tensors: remove wrapper prefixes and unused tensors."""
    plain = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in tensors.items()}
    return {name: value for name, value in plain.items() if config.release != "2" or name not in UNUSED}


def from_transformers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert tensors of `transformers`: rename, merge queries, keys and values, and omit all but the encoder."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        name = name.removeprefix("vjepa2.")  # the encoder inside a classifier
        if not name.startswith(tuple(UNUSED_PARTS)):
            renamed[_renamed(name)] = value
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):  # otherwise, the names are kept and reported as unknown
            renamed[name.replace(".query.", ".qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _renamed(name: str) -> str:
    for published, own in RENAMED.items():
        if name.startswith(published):
            return own + name.removeprefix(published).replace(".attention.", ".attn.")
    return name


def _files(folder: Path) -> list[Path]:
    """List the safetensors of a folder of `transformers`: one file, or several with an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    return listed_files(index)


def _check_folder(folder: Path, config: VJEPAConfig) -> None:
    """Refuse a folder of another model where tensors alone do not tell: by type, heads and picture size."""
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json; use a published .pt file or a folder of transformers")
    said = read_json(file)
    if said.get("model_type") != "vjepa2":
        raise InputError(f"{file}: the model type is {named(str(said.get('model_type')))}, not vjepa2")
    if config.release != "2":
        raise InputError(f"{folder}: a folder of V-JEPA 2; V-JEPA {config.release} is published as {config.file}")
    defaults = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "crop_size": 256}
    wanted = (config.width, config.depth, config.heads, config.size)
    for (field, default), value in zip(defaults.items(), wanted, strict=True):
        found = said.get(field, default)
        if found != value:
            raise InputError(f"{file}: {field} is {named(str(found))}, but {value} in the requested model")
