"""A stream survives the end of its process, to the bit."""

import subprocess
import sys
from collections.abc import Callable, Iterator
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


SIZES = [1 + number % 7 for number in range(300)]
"""Frames of each step of two streams; the second one is reset after step `RESET`."""
RESET, ENDS = 150, (180, 300)
SAVED = {0: 180, 3: 180, 50: 180, 250: 300}
"""Steps before a stream is saved -> steps before it ends."""


def run_on(
    model: keystep.PJEPA, state: keystep.stream.StreamState, chunks: list[torch.Tensor], at: int, last: int
) -> Iterator[tuple[torch.Tensor, keystep.stream.StreamState]]:
    """The latents of steps ``at`` to ``last``, and the state after each."""
    for number in range(at, last):
        latents, state = keystep.stream.step(model, chunks[number], state)
        if number == RESET:
            state = keystep.stream.reset(state, [1])
        yield latents, state


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_restored_stream_goes_on_to_the_same_bits(make_model: MakeModel, tmp_path: Path, pattern: dict) -> None:
    """Steps of 1 to 7 frames, far beyond the buffers' first replacement, with a reset on the way."""
    model = make_model(pattern, readout_dim=24, tau=2.5)
    generator = torch.Generator().manual_seed(0)
    chunks = [torch.randn(2, size, 5, generator=generator) for size in SIZES]
    states, latents, ended = [keystep.stream.init(model, 2)], [], {}
    for end in ENDS:
        for out, state in run_on(model, states[-1], chunks, len(latents), end):
            latents.append(out)
            states.append(state)
        ended[end] = keystep.stream.finish(model, states[-1])[0]
    for at, end in SAVED.items():
        keystep.stream.save(tmp_path / "stream.safetensors", model, states[at])
        restored = keystep.stream.load(tmp_path / "stream.safetensors", model)
        again = list(run_on(model, restored, chunks, at, end))
        assert torch.equal(torch.cat([out for out, _ in again], dim=1), torch.cat(latents[at:end], dim=1))
        assert torch.equal(keystep.stream.finish(model, again[-1][1])[0], ended[end])


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
