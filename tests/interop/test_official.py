"""Parity with the authors' code on its golden files; issue "The authors' checkpoints ..." brings the rest."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from keystep.errors import InputError
from keystep.interop import official

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"] if GOLDEN.exists() else []


@pytest.mark.skipif(not CASES, reason="../shared/golden with the authors' reference tensors is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_encode_and_predictions_equal_the_authors(case: dict) -> None:
    model = official.load(GOLDEN / case["checkpoint"], architecture=case["architecture"])
    stored = load_file(GOLDEN / case["tensors"])
    lengths = stored["segment_lengths"] if case["segments_passed_to_model"] else None
    latents = model.encode(stored["features"], stored["valid_mask"], lengths)
    torch.testing.assert_close(latents, stored["encode"], atol=3e-4, rtol=0)
    assert not latents[~stored["valid_mask"]].any()
    if case["n_valid_neither"] == 0:
        batch = model.batch(stored["features"], stored["valid_mask"], lengths)
        with torch.no_grad():
            output = model(batch, stored["target_mask"])
        torch.testing.assert_close(output.latents, stored["student_context"], atol=3e-4, rtol=0)
        at_hidden = output.predictions[stored["target_mask"]]
        torch.testing.assert_close(at_hidden, stored["predictor_full"][stored["target_mask"]], atol=3e-4, rtol=0)


@pytest.mark.skipif(not CASES, reason="../shared/golden with the authors' reference tensors is not here")
def test_an_architecture_inside_the_file_is_found() -> None:
    for case in CASES:
        if case["checkpoint_layout"] != "bare":
            found = official.load(GOLDEN / case["checkpoint"]).config
            assert found == official.model_config(case["architecture"], "golden")


def test_a_bare_file_without_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"mask_token": torch.zeros(1, 1, 8)}, tmp_path / "bare.pt")
    with pytest.raises(InputError, match=r"bare state dict.*give its architecture"):
        official.load(tmp_path / "bare.pt")


def test_damaged_and_unsafe_files_are_refused(tmp_path: Path) -> None:
    torch.save({"mask_token": torch.zeros(1, 1, 8)}, tmp_path / "cut.pt")
    whole = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"model_state_dict": Path("code")}, tmp_path / "unsafe.pt")
    for name in ("cut.pt", "unsafe.pt", "absent.pt"):
        with pytest.raises(InputError, match=name):
            official.load(tmp_path / name)
