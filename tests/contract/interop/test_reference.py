"""keystep and the slow reference on stored numbers, where the authors' golden tensors are not at hand."""

import numpy as np
import pytest
import reference
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from keystep.interop import official
from keystep.interop.official.checkpoints import rename
from keystep.pjepa import PJEPA

STORED = load_file(reference.STORED)
WEIGHTS = {name.removeprefix("weights/"): value for name, value in STORED.items() if name.startswith("weights/")}
FEATURES, HIDDEN = STORED["features"], STORED["hidden"]
VALID = np.arange(FEATURES.shape[1]) < np.array(reference.LENGTHS)[:, None]


@pytest.mark.parametrize("rope", reference.ROPES)
@pytest.mark.parametrize("mode", reference.MODES)
def test_keystep_equals_the_stored_values_of_every_mode(mode: str, rope: str) -> None:
    model = PJEPA(official.model_config(reference.architecture(mode, rope), "reference")).eval()
    model.load_state_dict(rename({name: torch.from_numpy(value) for name, value in WEIGHTS.items()}))
    segments = torch.tensor(reference.SEGMENTS)
    batch = model.batch(torch.from_numpy(FEATURES), torch.from_numpy(VALID), segments)
    with torch.no_grad():
        output = model(batch, torch.from_numpy(HIDDEN))
    found = {
        "encode": model.encode(batch.features, batch.valid, segments),
        "context": output.latents,
        "predictions": output.predictions,
    }
    for part, value in found.items():
        expected = torch.from_numpy(STORED[f"{mode}/{rope}/{part}"])
        torch.testing.assert_close(value, expected, atol=2e-5, rtol=0, msg=lambda text, part=part: f"{part}: {text}")


@pytest.mark.parametrize("rope", reference.ROPES)
@pytest.mark.parametrize("mode", reference.MODES)
def test_the_stored_values_are_what_the_reference_makes(mode: str, rope: str) -> None:
    for part, value in reference.outputs(WEIGHTS, FEATURES, HIDDEN, mode, rope).items():
        np.testing.assert_allclose(STORED[f"{mode}/{rope}/{part}"], value, atol=1e-5, rtol=0)


def test_the_reference_equals_the_authors(golden, case: dict) -> None:
    stored = {name: value.numpy() for name, value in load_tensors(golden / case["tensors"]).items()}
    payload = torch.load(golden / case["checkpoint"], weights_only=True)
    weights = {name: value.numpy() for name, value in payload.get("model_state_dict", payload).items()}
    settings = case["architecture"]
    for row, length in enumerate(case["valid_lengths"]):
        segments = tuple(case["segments"][row])
        video = stored["features"][row, :length]
        visible, hidden = (stored[name][row, :length] for name in ("context_mask", "target_mask"))
        everything = reference.encode(weights, video, np.ones(length, bool), settings, segments)
        np.testing.assert_allclose(everything, stored["encode"][row, :length], atol=3e-4, rtol=0)
        context = reference.encode(weights, video, visible, settings, segments)
        np.testing.assert_allclose(context, stored["student_context"][row, :length], atol=3e-4, rtol=0)
        predictions = reference.predict(weights, context, hidden, settings, segments)
        np.testing.assert_allclose(predictions, stored["predictor_full"][row, :length], atol=3e-4, rtol=0)
