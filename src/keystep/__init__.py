"""keystep: self-supervised, frame-aligned representations of long procedural videos (P-JEPA).

::

    data = keystep.open_dataset("data", rate=4)
    model = keystep.pretrain(keystep.RunConfig(data={"root": "data"}), out="runs/a")  # or keystep.load("runs/a")
    latents = keystep.encode(model, features)                                         # (T, D_in) -> (T, D)
    results = keystep.evaluate(data, {"pjepa": model}, out="results")
    stream = keystep.Stream(model, results.heads["pjepa-causal-seed0"])

All names load on first use, so that importing keystep costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keystep.errors import InputError

if TYPE_CHECKING:
    import keystep.evals as evals
    import keystep.export as export
    import keystep.foresight as foresight
    import keystep.heads as heads
    import keystep.interop as interop
    import keystep.plugins as plugins
    import keystep.progress as progress
    import keystep.stream as stream
    from keystep.config import RunConfig
    from keystep.data.folder import open_dataset
    from keystep.datasets.preparation import prepare
    from keystep.encoding import encode
    from keystep.evals.evaluate import evaluate
    from keystep.extraction.run import extract
    from keystep.heads import load_head
    from keystep.loading import load
    from keystep.pjepa import PJEPA
    from keystep.prediction import predict
    from keystep.stream.session import Stream
    from keystep.train.run import pretrain

__version__ = "0.1.0"

_PACKAGES = ("evals", "export", "foresight", "heads", "interop", "plugins", "progress", "stream")
_HOMES = {
    "PJEPA": "pjepa",
    "RunConfig": "config.run",
    "Stream": "stream.session",
    "encode": "encoding",
    "evaluate": "evals.evaluate",
    "extract": "extraction.run",
    "load": "loading",
    "load_head": "heads.registry",
    "open_dataset": "data.folder",
    "predict": "prediction",
    "prepare": "datasets.preparation",
    "pretrain": "train.run",
}
"""Public name -> the module that defines it. No name is that of a module, which importing it would put in its place."""

__all__ = [
    "PJEPA",
    "InputError",
    "RunConfig",
    "Stream",
    "__version__",
    "encode",
    "evals",
    "evaluate",
    "export",
    "extract",
    "foresight",
    "heads",
    "interop",
    "load",
    "load_head",
    "open_dataset",
    "plugins",
    "predict",
    "prepare",
    "pretrain",
    "progress",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"keystep.{name}")
    if name in _HOMES:
        return getattr(import_module(f"keystep.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'keystep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
