"""Loading models and heads by the names that the command line accepts, and checking that they fit some data."""

from __future__ import annotations

from pathlib import Path

import torch

from keystep.config import RunConfig, run_config, seed_runs
from keystep.data.folder import FeatureFolder
from keystep.errors import InputError
from keystep.foresight import Forecaster
from keystep.heads import Head
from keystep.persistence import CONFIG
from keystep.pjepa import PJEPA, Origin
from keystep.reading import read_json
from keystep.train.state import STATE, Checkpoints


def load(source: Path | str, device: torch.device | str | None = None) -> PJEPA:
    """Load a model in eval mode.

    Args:
        source: a run folder (its finished model, or else its newest checkpoint), one of its checkpoints, a model
            folder, or a Hugging Face hub id.
        device: by default the GPU if there is one.

    Returns:
        The model; its `origin` says which run made it, where that is known.

    Raises:
        InputError: there is no such model, or it is damaged.
    """
    path = Path(source)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    run = _run_of(path)
    if run is None and (seeds := seed_runs(path)):
        raise InputError(f"{source}: holds {len(seeds)} models; name one of them, such as {seeds[0]}")
    if run is None:
        model = PJEPA.from_pretrained(source).to(device)
        model.origin = Origin(str(source))
        return model
    config = run_config(run)
    folder = _newest(run, config) if path == run else path
    model = PJEPA.from_pretrained(folder).to(device)
    model.origin = Origin(str(folder), run, config, *_trained_on(run))
    return model


def _run_of(path: Path) -> Path | None:
    """The run that a folder is, or is the model or a checkpoint of."""
    places = [path]
    if path.name == "model":
        places.append(path.parent)
    elif path.parent.name == "checkpoints":
        places.append(path.parent.parent)
    return next((folder for folder in places if path.is_dir() and (folder / "config.yaml").is_file()), None)


def _newest(run: Path, config: RunConfig) -> Path:
    """The finished model of a run, or else its newest checkpoint."""
    if (run / "model" / CONFIG).exists():
        return run / "model"
    checkpoints = Checkpoints(run / "checkpoints", config.train.keep)
    if not checkpoints.steps():
        raise InputError(f"{run}: this run has no model and no checkpoint yet")
    return checkpoints.path(checkpoints.steps()[-1])


def _trained_on(run: Path) -> tuple[tuple[str, ...], str]:
    """The videos that a run was trained on, and the fingerprint of their folder; empty where that is not known."""
    states = sorted(run.glob(f"checkpoints/*/{STATE}"))
    record = read_json(states[-1]) if states else {}
    videos, fingerprint = record.get("videos"), record.get("fingerprint")
    names = tuple(name for name in videos if isinstance(name, str)) if isinstance(videos, list) else ()
    return names, fingerprint if isinstance(fingerprint, str) else ""


def check_head(head: Head | Forecaster, model: PJEPA, name: str = "this head", live: bool = True) -> list[str]:
    """Check that a head, or a forecaster, can read a model's latents.

    Args:
        head: what was fitted.
        model: the model.
        name: of the head in messages, such as its file.
        live: on a stream, where nothing is known of the future.

    Returns:
        Warnings: the head was fitted on latents that see the future, or that true boundaries shaped.

    Raises:
        InputError: the head was fitted on another model or on no latents at all, or on offline latents that have other
            bands than live ones.
    """
    origin = head.origin
    if origin.get("representation") and not origin.get("weights"):
        raise InputError(f"{name}: was trained on {origin['representation']}, not on latents; take a model's head")
    if origin.get("weights") not in (None, model.fingerprint):
        raise InputError(f"{name}: was fitted on another model than {model.origin.source}; 'keystep eval' fits one")
    warnings = []
    if live and origin.get("mode") == "offline":
        line = f"{name} was fitted on offline latents, which see the future; take the causal head of the same eval"
        pattern = model.config.stream_attention
        if pattern is not None and head.width != model.latent_dim(pattern):
            raise InputError(line)
        warnings.append(line)
    if origin.get("oracle") == "True":
        warnings.append(f"ORACLE: {name} was fitted on what true boundaries shaped; a live system has none")
    return warnings


def check_features(model: PJEPA, folder: FeatureFolder) -> list[str]:
    """Check that a model can read the features of a folder.

    Returns:
        Warnings: the folder's rate is not the one that the model was trained at.

    Raises:
        InputError: features of another width or another number of tokens.
    """
    source, config = model.origin.source, model.config
    if config.input_dim != folder.width:
        raise InputError(f"{source}: reads features {config.input_dim} wide; {folder.root} has {folder.width}")
    if config.slot_tokens > 1 and folder.tokens not in (1, config.slot_tokens):  # 1: the folder may just not say
        raise InputError(f"{source}: reads {config.slot_tokens} tokens a slot; {folder.root} has {folder.tokens}")
    rate, trained = str(folder.timeline.rate), model.origin.rate
    if trained in (None, rate):
        return []
    return [f"{source} was trained at {trained} Hz and reads {rate} Hz here; give --rate {trained}"]
