"""A stream survives the end of its process, to the bit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import keystep
from keystep.errors import InputError
from keystep.persistence import save_tensors

MakeModel = Callable[..., keystep.PJEPA]
PATTERNS = [
    {"kind": "causal"},
    {"kind": "causal", "window": 7},
    {"kind": "causal", "window": 5, "stride": 3, "memory": 17},
    {"kind": "block_causal", "block": 6},
    {"kind": "block_causal", "block": 5, "window": 4, "stride": 2, "memory": 13},
]


def feed(model: keystep.PJEPA, state: keystep.stream.StreamState, chunks: list[torch.Tensor]) -> torch.Tensor:
    parts = []
    for chunk in chunks:
        latents, state = keystep.stream.step(model, chunk, state)
        parts.append(latents)
    return torch.cat([*parts, keystep.stream.finish(model, state)[0]], dim=1)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("at", [0, 3, 50, 400])
def test_a_restored_stream_goes_on_to_the_same_bits(
    make_model: MakeModel, tmp_path: Path, pattern: dict, at: int
) -> None:
    """Whole steps of 1 to 7 frames, far beyond the buffers' first replacement, with a reset on the way."""
    model = make_model(pattern, readout_dim=24, tau=2.5)
    generator = torch.Generator().manual_seed(at)
    chunks = [torch.randn(2, 1 + number % 7, 5, generator=generator) for number in range(500)]
    state = keystep.stream.init(model, 2)
    for number, chunk in enumerate(chunks[:at]):
        _, state = keystep.stream.step(model, chunk, state)
        if number == 200:
            state = keystep.stream.reset(state, [1])
    keystep.stream.save(tmp_path / "stream.safetensors", model, state)
    restored = keystep.stream.load(tmp_path / "stream.safetensors", model)
    assert torch.equal(feed(model, restored, chunks[at:]), feed(model, state, chunks[at:]))


SCRIPT = """
import sys, torch, keystep
model = keystep.PJEPA.from_pretrained(sys.argv[1])
state = keystep.stream.load(sys.argv[2], model)
latents, _ = keystep.stream.step(model, torch.load(sys.argv[3]), state)
torch.save(latents, sys.argv[4])
"""


def test_another_process_goes_on_where_a_killed_one_stopped(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model({"kind": "causal", "window": 9}, readout_dim=24, tau=2.5)
    features = torch.randn(1, 60, 5)
    _, state = keystep.stream.step(model, features[:, :33], keystep.stream.init(model))
    model.save_pretrained(tmp_path / "model")
    keystep.stream.save(tmp_path / "stream", model, state)
    torch.save(features[:, 33:], tmp_path / "rest.pt")
    names = ("model", "stream", "rest.pt", "latents.pt")
    subprocess.run([sys.executable, "-c", SCRIPT, *(str(tmp_path / name) for name in names)], check=True, timeout=120)
    latents, _ = keystep.stream.step(model, features[:, 33:], state)
    torch.testing.assert_close(torch.load(tmp_path / "latents.pt"), latents, atol=1e-6, rtol=0)


def test_the_state_of_another_model_or_version_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model({"kind": "causal"})
    path = tmp_path / "stream"
    keystep.stream.save(path, model, keystep.stream.init(model))
    with pytest.raises(InputError, match=r"stream: the state of another model"):
        keystep.stream.load(path, make_model({"kind": "causal", "window": 9}))
    trained = make_model({"kind": "causal"})
    with torch.no_grad():
        trained.encoder.norm.bias += 1e-3
    with pytest.raises(InputError, match=r"stream: the state of another model"):
        keystep.stream.load(path, trained)
    save_tensors(path, {"x": torch.zeros(1)}, {"format": "keystep-stream", "version": "99"})
    with pytest.raises(InputError, match="format version 99; this keystep reads 3"):
        keystep.stream.load(path, model)


def test_damaged_and_foreign_files_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model({"kind": "causal"})
    path = tmp_path / "stream"
    with pytest.raises(InputError, match="no such file"):
        keystep.stream.load(path, model)
    _, state = keystep.stream.step(model, torch.randn(1, 9, 5), keystep.stream.init(model))
    keystep.stream.save(path, model, state)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        keystep.stream.load(path, model)
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(InputError, match="not a stream's state"):
        keystep.stream.load(path, model)
