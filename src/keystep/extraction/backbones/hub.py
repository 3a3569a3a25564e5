"""Image and video models of ``transformers``, from a folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor, nn

from keystep.errors import InputError, named, one_line
from keystep.extraction.backbone import ClipSpec
from keystep.extraction.backbones.colours import Colours
from keystep.extraction.backbones.custom import FunctionBackbone, from_callable
from keystep.extraction.backbones.preprocessing import preprocessing
from keystep.extraction.backbones.weights import tensors_hash
from keystep.reading import read_json

SETTINGS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
"""Files with preprocessing settings, by priority; they are nested in the last one."""
NESTED = ("image_processor", "video_processor")
VIDEO_MODELS = ("videomae", "timesformer", "vivit", "vjepa2")
TOWERS = {"vjepa2": "encoder"}
"""Name of the part that computes features, if not ``vision_model``. The other part of V-JEPA 2 is its predictor."""


def from_transformers(
    where: str | Path, device: torch.device | str = "cpu", *, revision: str | None = None
) -> FunctionBackbone:
    """Load a model of ``transformers`` as a backbone.

    Image models (the image tower of CLIP and SigLIP, DINOv2, DINOv3, ViT, ResNet, ConvNeXt, ...) return a vector per
    picture: the model's pooled output if it has trained weights, else its class token, else the mean of its last
    hidden state. Video models (VideoMAE, TimeSformer, ViViT, V-JEPA 2) return a vector per time step: the mean of the
    last hidden state over space.

    Args:
        where: folder of a saved model, or an id on the hub, which is downloaded.
        device: to compute on.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: ``transformers`` is not installed, no such model, missing or unsupported weights or settings, or a
            model with other inputs than pictures.
    """
    picture, colours = preprocessing(*_settings(where, revision))
    tower, untrained = _tower(where, revision)
    kind = tower.config.model_type
    clip, features = ClipSpec(), _pooled(tower, colours, pools=not untrained)
    if kind in VIDEO_MODELS:
        clip = _clip(tower.config)
        features = _dense(tower, colours, clip.slots, places_first=kind == "timesformer")
    tower.eval().requires_grad_(False).to(device)
    name = Path(where).name if Path(where).is_dir() else str(where)
    try:
        return from_callable(
            features,
            name=name,
            picture=picture,
            clip=clip,
            weights=tensors_hash(tower.state_dict()),
            device=device,
        )
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{where}: this {named(kind)} model does not take pictures of {picture.height} x {picture.width} alone: "
            f"{one_line(error)}"
        ) from error


def _pooled(tower: nn.Module, colours: Colours, pools: bool) -> Callable[[Tensor], Tensor]:
    """Function from single pictures to (n, D): pooled output, class token or mean, see `from_transformers`."""
    has_class = _has_class_token(tower)

    def features(clips: Tensor) -> Tensor:
        found = tower(pixel_values=colours(clips)[:, 0])
        pooled = getattr(found, "pooler_output", None)
        if pools and pooled is not None:
            return pooled.flatten(1)  # type: ignore[no-any-return]  # ResNet: (n, D, 1, 1)
        hidden: Tensor = found.last_hidden_state  # (n, tokens, D), or (n, D, H, W)
        if hidden.ndim == 4:
            return hidden.mean((-2, -1))
        return hidden[:, 0] if has_class else hidden.mean(1)

    return features


def _dense(tower: nn.Module, colours: Colours, slots: int, places_first: bool) -> Callable[[Tensor], Tensor]:
    """Function from clips to (n, S, D), the mean over space for each slot.

    places_first: tokens are ordered by position and then time (TimeSformer), instead of by time and then position.
    """
    has_class = _has_class_token(tower)

    def features(clips: Tensor) -> Tensor:
        hidden: Tensor = tower(colours(clips)).last_hidden_state
        tokens = hidden[:, 1:] if has_class else hidden
        rows, number, width = tokens.shape
        if places_first:
            return tokens.reshape(rows, number // slots, slots, width).mean(1)
        return tokens.reshape(rows, slots, number // slots, width).mean(2)

    return features


def _has_class_token(tower: nn.Module) -> bool:
    return any(name.endswith(("cls_token", "class_embedding")) for name, _ in tower.named_parameters())


def _clip(config: Any) -> ClipSpec:
    """Clip layout of a video model, with one slot per tubelet."""
    frames = config.frames_per_clip if config.model_type == "vjepa2" else config.num_frames
    depth = getattr(config, "tubelet_size", 1)
    return ClipSpec(frames=frames, slots=frames // (depth if isinstance(depth, int) else depth[0]))


def _tower(where: str | Path, revision: str | None) -> tuple[Any, list[str]]:
    """Load the part of a model that computes features, and list the weights of its pooling missing in the checkpoint.

    Raises:
        InputError: it cannot be loaded, or other weights are missing, which the library would initialise randomly.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise InputError(
            f"{where}: this model needs transformers; install it with: pip install 'keystep[hf]'"
        ) from error
    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                str(where),
                revision=revision or "main",
                output_loading_info=True,
                dtype=torch.float32,
                trust_remote_code=False,  # by default, it asks whether to run code of the repository
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, SafetensorError) as error:
        raise InputError(f"{where}: cannot be loaded as a model of transformers: {one_line(error)}") from error
    part = TOWERS.get(model.config.model_type, "vision_model")
    prefix = f"{part}." if hasattr(model, part) else ""
    missing = sorted(name.removeprefix(prefix) for name in info["missing_keys"] if name.startswith(prefix))
    pooling = [name for name in missing if name.startswith(("pooler.", "head."))]
    if len(pooling) < len(missing):
        name = next(name for name in missing if name not in pooling)
        raise InputError(f"{where}: {len(missing)} weights are missing, such as {named(name)}")
    return getattr(model, part) if prefix else model, pooling


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable progress bars and the report of missing weights, which `_tower` checks itself."""
    logging: Any = import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _settings(where: str | Path, revision: str | None) -> tuple[dict[str, Any], str]:
    """Preprocessing settings of a model, and the file that they are from."""
    for file in SETTINGS:
        path = Path(where) / file if Path(where).is_dir() else _downloaded(str(where), file, revision)
        if path is None or not path.is_file():
            continue
        found = read_json(path)
        inner = [found[name] for name in NESTED if isinstance(found.get(name), dict)]
        return (inner or [found])[0], f"{where}: {file}"
    raise InputError(f"{where}: no {SETTINGS[0]} with the preprocessing of pictures")


def _downloaded(where: str, file: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(where, file, revision=revision))
    except LocalEntryNotFoundError as error:
        raise InputError(f"{where}: {file} cannot be downloaded: {one_line(error)}") from error
    except EntryNotFoundError:
        return None
    except (OSError, HFValidationError) as error:
        raise InputError(f"{where}: neither a folder nor a model that can be downloaded: {one_line(error)}") from error
