"""The authors' release (GitHub FelTris/pjepa): checkpoints, heads and feature archives.

These adapters map names, settings and file layouts; the model code does not depend on them, except for a rotary
variant. Every file is read with ``weights_only=True``. Everything that needs true segment boundaries is marked ORACLE.
"""

from keystep.interop.official.archives import open_archive
from keystep.interop.official.checkpoints import ARCHITECTURE_KEYS, RELEASED, Released, load, model_config, rename
from keystep.interop.official.heads import load_head
from keystep.interop.official.importing import ImportOptions, import_archive

__all__ = [
    "ARCHITECTURE_KEYS",
    "RELEASED",
    "ImportOptions",
    "Released",
    "import_archive",
    "load",
    "load_head",
    "model_config",
    "open_archive",
    "rename",
]
