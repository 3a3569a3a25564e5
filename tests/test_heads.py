from pathlib import Path

import pytest
import torch

from keystep.errors import InputError
from keystep.heads import Affine, LinearHead
from keystep.persistence import save_tensors


def affine(out: int) -> Affine:
    return Affine(torch.randn(out, 6), torch.randn(out))


@pytest.mark.parametrize("activity", [False, True])
def test_a_saved_head_is_the_same_head(tmp_path: Path, activity: bool) -> None:
    names = ("wait", "cut", "tie a knot", "ナイフ")[: 3 + activity]
    head = LinearHead(affine(3), affine(2) if activity else None, 1, names, {"rate": "15/4", "mode": "causal"})
    head.save(tmp_path / "heads" / "head.safetensors")
    again = LinearHead.load(tmp_path / "heads" / "head.safetensors")
    latents = torch.randn(2, 9, 6)
    assert torch.equal(again.probabilities(latents), head.probabilities(latents))
    assert torch.equal(again.predict(latents), head.predict(latents))
    assert (again.names, again.origin, again.background) == (names, head.origin, 1)
    assert again.name(2) == "tie a knot"


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(InputError, match="no such file"):
        LinearHead.load(path)
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(InputError, match="not a head that 'keystep eval' wrote"):
        LinearHead.load(path)
    save_tensors(path, {"x": torch.zeros(1)}, {"format": "keystep-head", "version": "7"})
    with pytest.raises(InputError, match="format version 7; this keystep reads 1"):
        LinearHead.load(path)
