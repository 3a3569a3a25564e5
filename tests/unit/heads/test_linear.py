from pathlib import Path

import pytest
import torch

from keystep.errors import InputError
from keystep.heads import Affine, linear_head, load_head
from keystep.persistence import save_tensors


def affine(out: int) -> Affine:
    return Affine(torch.randn(out, 6), torch.randn(out))


@pytest.mark.parametrize("activity", [False, True])
def test_a_saved_head_is_the_same_head(tmp_path: Path, activity: bool) -> None:
    names = ("wait", "cut", "tie a knot", "ナイフ")[: 3 + activity]
    head = linear_head(
        affine(3), affine(2) if activity else None, 1 if activity else None, names, {"rate": "15/4", "mode": "causal"}
    )
    head.save(tmp_path / "heads" / "head.safetensors")
    again = load_head(tmp_path / "heads" / "head.safetensors")
    latents = torch.randn(2, 9, 6)
    assert torch.equal(again.probabilities(latents), head.probabilities(latents))
    assert torch.equal(again.predict(latents), head.predict(latents))
    assert (again.names, again.origin, again.background) == (names, head.origin, head.background)
    assert again.name(2) == "tie a knot"


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(InputError, match="no such file"):
        load_head(path)
    save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(InputError, match="not a head that keystep wrote"):
        load_head(path)
    save_tensors(path, {"x": torch.zeros(1)}, {"format": "keystep-head", "version": "7"})
    with pytest.raises(InputError, match="format version 7; this keystep reads 2"):
        load_head(path)
