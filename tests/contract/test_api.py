"""The public names: what Tab offers, and that importing a submodule never replaces one."""

from __future__ import annotations

import pkgutil
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.config import ModelConfig

SCRIPT = """
import importlib, random, sys
for seed in range(2):
    for name in [name for name in sys.modules if name.split(".")[0] == "keystep"]:
        del sys.modules[name]
    import keystep
    names = sys.argv[1:]
    random.Random(seed).shuffle(names)
    for name in names:
        importlib.import_module(name)
    for name in keystep.__all__:
        value = getattr(keystep, name)
        if name in keystep._HOMES:
            assert callable(value) and value.__module__ == f"keystep.{keystep._HOMES[name]}", (seed, name, value)
    assert dir(keystep) == sorted(keystep.__all__)
"""


def modules() -> list[str]:
    return [each.name for each in pkgutil.walk_packages(keystep.__path__, "keystep.") if "__main__" not in each.name]


def test_importing_every_module_in_any_order_replaces_no_public_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *sorted(modules())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_works_after_all_modules_were_imported_in_any_order(tmp_path: Path) -> None:
    names = sorted(modules())
    random.Random(2).shuffle(names)
    script = Path(__file__).parents[1] / "support" / "every_call.py"
    command = [sys.executable, str(script), str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_models_and_heads_say_what_they_are_in_one_line(model: keystep.PJEPA) -> None:
    assert repr(model) == f"PJEPA(6 -> 973, 2 blocks of 16, {model.config.attention}, from 'a model')"
    head = keystep.heads.build_head(keystep.heads.head_config("mstcn", {"causal": True}), width=8, classes=3)
    assert repr(head) == "Mstcn(8 -> 3 classes, live)"
    head.origin = {"weights": "0123456789", "mode": "causal"}
    assert repr(head) == "Mstcn(8 -> 3 classes, live, of causal latents of the model 01234567)"


def test_importing_keystep_imports_no_torch() -> None:
    code = "import sys, keystep; assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def model() -> keystep.PJEPA:
    torch.manual_seed(0)
    return keystep.PJEPA(ModelConfig(input_dim=6, dim=16, depth=2, heads=2, tau=2.5)).eval()


def test_one_video_may_be_a_matrix_and_an_array(model: keystep.PJEPA) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    expected = model.encode(torch.from_numpy(rows)[None])[0]
    assert torch.equal(model.encode(torch.from_numpy(rows)), expected)
    assert torch.equal(model.encode(rows), expected)
    latents = keystep.encode(model, rows)
    assert isinstance(latents, np.ndarray) and latents.shape == (9, 6 + 150 + 25 + 24 + 2 * 384)
    assert list(model.bands().values()) == [6, 150, 25, 24, 384, 384] and model.latent_dim() == latents.shape[1]
    assert np.array_equal(latents, expected.numpy())
    assert isinstance(keystep.encode(model, torch.from_numpy(rows)), torch.Tensor)


def _bands(model: keystep.PJEPA, latents: np.ndarray) -> list[np.ndarray]:
    return np.split(latents, np.cumsum(list(model.bands().values()))[:-1], axis=1)


def test_causal_encoding_does_not_see_the_future(model: keystep.PJEPA) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    changed = rows.copy()
    changed[12:] += 1
    causal, offline = (
        [keystep.encode(model, each, mode=mode)[:12] for each in (rows, changed)] for mode in ("causal", "offline")
    )
    np.testing.assert_allclose(*causal, atol=1e-5)
    assert causal[0].shape == (12, sum(model.bands(model.config.live_attention).values()))
    for name, before, after in zip(model.bands(), *(_bands(model, latents) for latents in offline), strict=True):
        changes = name not in ("frame", "memory")
        assert (np.abs(before - after).max() > 1e-3) == changes, name


def test_bands_can_be_encoded_alone(model: keystep.PJEPA) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    parts = dict(zip(model.bands(), _bands(model, keystep.encode(model, rows)), strict=True))
    found = keystep.encode(model, rows, bands=["context", "frame"])
    assert np.array_equal(found, np.concatenate([parts["frame"], parts["context"]], axis=1)), "in their own order"
    with pytest.raises(keystep.InputError, match="unknown band far; expected frame, around, memory, ahead"):
        keystep.encode(model, rows, bands=["far"])
    with pytest.raises(keystep.InputError, match="unknown band ahead; expected frame, around, memory, steady"):
        keystep.encode(model, rows, mode="causal", bands=["ahead"])


def test_an_unknown_mode_names_the_known_ones(model: keystep.PJEPA) -> None:
    with pytest.raises(keystep.InputError, match="unknown mode 'live'; expected one of offline, causal"):
        keystep.encode(model, np.zeros((3, 6), np.float32), mode="live")  # type: ignore[call-overload]
