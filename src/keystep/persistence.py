"""Models on disk: ``config.json`` + ``model.safetensors``, loaded strictly, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from keystep.card import MARK
from keystep.config import ModelConfig
from keystep.config.base import build
from keystep.errors import InputError, named, one_line, quoted
from keystep.files import replacing, write_json, write_lines
from keystep.reading import Record, checked, read_header, read_json

if TYPE_CHECKING:
    from keystep.pjepa import PJEPA

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = "keystep-pjepa"
FORMAT_VERSION = 4
MOST_CONFIG = 1 << 20
DIGEST = "sha256"
"""Name of the hash in the header of what keystep writes."""

Shapes = Mapping[str, tuple[int, ...]]


class _ModelRecord(Record):
    format: Any = None
    version: Any = None
    model: dict[str, Any] = Field(default_factory=dict)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file in one piece; ``record`` goes into its header, with a hash of all of it."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = dict(record or {})
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's files get; safetensors makes its own private
        save_file(plain, temporary, header | {DIGEST: _digest(plain, header)})
        temporary.chmod(mode)


def load_tensors(path: Path, *, hashed: bool = False) -> dict[str, Tensor]:
    """Read one safetensors file; what keystep wrote is compared with its hash.

    Args:
        hashed: whether a file without a hash, as others write them, is refused.

    Raises:
        InputError: missing, cut off, no safetensors file, or one that was changed since it was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    record = dict(read_header(path).metadata)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError) as error:  # such as a type torch lacks
        raise InputError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
    stated = record.pop(DIGEST, None)  # foreign files have none
    if stated is None and any(_is_damaged_digest(name) for name in record):
        raise InputError(f"{path}: damaged: the name of its hash is; take a copy, or make it again")
    if (hashed or stated is not None) and stated != _digest(tensors, record):
        raise InputError(f"{path}: damaged: its content does not fit its hash; take a copy, or make it again")
    return tensors


def _is_damaged_digest(name: str) -> bool:
    """Whether a name is that of the hash but for one letter or two."""
    return len(name) == len(DIGEST) and sum(found != own for found, own in zip(name, DIGEST, strict=True)) <= 2


def read_metadata(path: Path) -> dict[str, str]:
    """The record in the header of a safetensors file.

    Raises:
        InputError: missing, cut off or no safetensors file.
    """
    return {name: value for name, value in read_header(path).metadata.items() if name != DIGEST}


def _digest(tensors: Mapping[str, Tensor], record: Mapping[str, str]) -> str:
    """SHA-256 over a file's record, and all its names, types, shapes and numbers."""
    digest = hashlib.sha256(json.dumps(dict(sorted(record.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_format(path: Path, record: Mapping[str, str], name: str, version: str, what: str) -> None:
    """Refuse a file whose header does not say that it is of this format and version.

    Raises:
        InputError: another format (it is not ``what``), or another version.
    """
    if record.get("format") != name:
        raise InputError(f"{path}: not {what} (no format {name!r})")
    if record.get("version") != version:
        raise InputError(f"{path}: format version {named(str(record.get('version')))}; this keystep reads {version}")


def weights_signature(module: nn.Module) -> str:
    """A hash that tells models apart by the first numbers of every tensor: quick, and any training moves them all."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode() + tensor.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names and all numbers of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a module; every name and shape has to fit.

    Raises:
        InputError: names the first missing, unexpected and misshapen tensors; the module is left as it was.
    """
    check_fit(shapes_of(module.state_dict()), shapes_of(tensors), source)
    module.load_state_dict(dict(tensors))


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_fit(own: Shapes, found: Shapes, source: str) -> None:
    """Refuse tensors that differ in names or shapes from a model's own.

    Raises:
        InputError: names the first missing, unexpected and misshapen tensors.
    """
    missing = sorted(set(own) - set(found))
    unexpected = sorted(set(found) - set(own))
    shapes = [
        f"{named(name)} is {quoted(found[name])}, the model needs {own[name]}"
        for name in sorted(set(own) & set(found))
        if own[name] != found[name]
    ]
    listed = (("missing", missing), ("unexpected", [named(name) for name in unexpected]), ("misshapen", shapes))
    problems = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in listed if names]
    if problems:
        raise InputError(f"{source}: weights do not fit this model: {'; '.join(problems)}")


class _Unfilled(TorchFunctionMode):
    """Networks of names and shapes alone: what draws numbers draws none, for which torch would load a compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("randn", "rand"):
            return torch.empty(*args, **(kwargs or {}))
        if name in ("normal_", "uniform_", "trunc_normal_", "fill_", "zero_"):
            return args[0] if args else kwargs["tensor"]
        if name in ("mul", "__mul__", "__rmul__") and sum(isinstance(each, Tensor) for each in args) == 1:
            return next(each for each in args if isinstance(each, Tensor))
        return func(*args, **(kwargs or {}))


def check_size(make: Callable[[], nn.Module], weights: Path) -> None:
    """Compare the network that settings describe with the file of its weights, before memory is taken for either.

    Raises:
        InputError: they do not fit, or the file is none.
    """
    found = read_header(weights).shapes
    with torch.device("meta"), _Unfilled():
        check_fit(shapes_of(make().state_dict()), found, str(weights))


def save_model(folder: Path, model: PJEPA, card: str | None = None) -> None:
    """Write a model folder; an older one at that place is replaced once the new one is complete.

    Raises:
        InputError: the folder holds what keystep did not write, such as a card that somebody has changed.
    """
    ours = (CONFIG, WEIGHTS, CARD) if _is_ours(folder / CARD) else (CONFIG, WEIGHTS)
    with replacing(folder, ours) as temporary:
        if card is not None:
            write_lines(temporary / CARD, [card.rstrip()])
        record = {"format": FORMAT, "version": FORMAT_VERSION, "model": model.config.model_dump(mode="json")}
        write_json(temporary / CONFIG, record)
        save_tensors(temporary / WEIGHTS, model.state_dict())


def _is_ours(card: Path) -> bool:
    """Whether a model card is as keystep wrote it, as far as its first lines say."""
    return card.is_file() and MARK.encode() in card.read_bytes()[:1000]


def load_model(kind: type[PJEPA], folder_or_hub_id: Path | str) -> PJEPA:
    """A model in eval mode from a folder, or from the Hugging Face hub when there is no such folder.

    Raises:
        InputError: no such folder or hub model, another format, weights that do not fit the config.
    """
    folder = Path(folder_or_hub_id)
    if not folder.is_dir():
        folder = _download(str(folder_or_hub_id))
    config = read_config(folder / CONFIG)
    check_size(lambda: kind(config), folder / WEIGHTS)
    model = kind(config)
    load_strict(model, load_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return model.eval()


def read_config(path: Path) -> ModelConfig:
    """The model's config from a ``config.json``."""
    if not path.exists():
        raise InputError(f"{path}: no such file; a model folder has {CONFIG} and {WEIGHTS}")
    record = checked(_ModelRecord, read_json(path, MOST_CONFIG), str(path))
    if record.format != FORMAT:
        raise InputError(f"{path}: not a keystep model (no format {FORMAT!r})")
    if record.version != FORMAT_VERSION:
        raise InputError(f"{path}: format version {quoted(record.version)}; this keystep reads {FORMAT_VERSION}")
    try:
        return build(ModelConfig, record.model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def push_model(model: PJEPA, repository: str, *, private: bool, card: str) -> str:
    """Upload a model folder; returns the page's address."""
    import tempfile

    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repository, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, card)
        api.upload_folder(repo_id=repository, folder_path=Path(folder) / "model")
    return str(address)


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=[CONFIG, WEIGHTS]))
    except HFValidationError as error:
        raise InputError(f"{repository}: no such folder, and no Hugging Face id (owner/name)") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{repository}: no such folder, and not loaded from the Hugging Face hub: {line}") from error
