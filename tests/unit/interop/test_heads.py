"""The authors' linear heads."""

from pathlib import Path

import pytest
import torch

from keystep.errors import InputError
from keystep.interop import official

D, CLASSES = 6, 4


def layers(**sizes: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{name}.{part}": torch.randn(size, *((D,) if part == "weight" else ()), generator=generator)
        for name, size in sizes.items()
        for part in ("weight", "bias")
    }


def saved(path: Path, payload: object) -> Path:
    torch.save(payload, path / "head.pt")
    return path / "head.pt"


@pytest.mark.parametrize("name", ["fc", "classifier"])
@pytest.mark.parametrize("key", [None, "model_state_dict", "state_dict"])
def test_a_plain_head_gives_the_class_with_the_highest_score(tmp_path: Path, name: str, key: str | None) -> None:
    tensors = layers(**{name: CLASSES})
    head = official.load_head(saved(tmp_path, tensors if key is None else {key: tensors, "epoch": 3}))
    latents = torch.randn(2, 9, D)
    scores = latents @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
    assert torch.equal(head.predict(latents), scores.argmax(-1))
    torch.testing.assert_close(head.probabilities(latents), scores.softmax(-1))
    assert head.classes == CLASSES


@pytest.mark.parametrize("background", [0, 2, CLASSES])
def test_a_head_with_activity_gives_the_best_step_where_there_is_one(tmp_path: Path, background: int) -> None:
    tensors = layers(foreground_fc=CLASSES, activity_fc=2)
    head = official.load_head(saved(tmp_path, tensors), background=background)
    latents = torch.randn(50, D)
    steps = [identifier for identifier in range(CLASSES + 1) if identifier != background]
    expected = []
    for latent in latents:
        active = (tensors["activity_fc.weight"] @ latent + tensors["activity_fc.bias"]).argmax() == 1
        best = int((tensors["foreground_fc.weight"] @ latent + tensors["foreground_fc.bias"]).argmax())
        expected.append(steps[best] if active else background)
    assert head.predict(latents).tolist() == expected
    assert len(set(expected)) > 2
    probabilities = head.probabilities(latents)
    assert probabilities.shape == (50, CLASSES + 1)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(50))
    active = (latents @ tensors["activity_fc.weight"].T + tensors["activity_fc.bias"]).softmax(-1)
    torch.testing.assert_close(probabilities[:, background], active[:, 0])


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        (layers(fc=3) | {"fc.scale": torch.ones(3)}, "not a linear head"),
        (layers(fc=3, classifier=3), "layers classifier, fc; expected"),
        (layers(other=3), "layers other; expected fc or classifier"),
        (layers(**{"evil\n\x1b[31m": 3}), r"layers 'evil\\n\\x1b\[31m'; expected fc or classifier"),
        (
            layers(**{f"layer{number:04}": 1 for number in range(2000)}),
            "layers layer0000, layer0001, layer0002; expected",
        ),
        (layers(foreground_fc=3, activity_fc=3), "activity_fc is .3, 6.; expected .2, D."),
        ({"fc.weight": torch.zeros(3, 6), "fc.bias": torch.zeros(4)}, "is not affine"),
        ({"fc.weight": torch.full((3, 6), torch.inf), "fc.bias": torch.zeros(3)}, "NaN or infinite"),
    ],
)
def test_what_is_no_linear_head_is_refused_in_one_line(tmp_path: Path, tensors: dict, line: str) -> None:
    with pytest.raises(InputError, match=rf"head\.pt.*{line}"):
        official.load_head(saved(tmp_path, tensors))


def test_a_background_that_is_no_class_and_latents_of_another_width_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, layers(foreground_fc=3, activity_fc=2))
    with pytest.raises(InputError, match="background 4 is not one of its 4 classes"):
        official.load_head(path, background=4)
    with pytest.raises(InputError, match="this head reads \\(B, T, 6\\)"):
        official.load_head(path).predict(torch.zeros(2, 7))
