import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.extraction.backbone import ClipSpec, Picture
from keystep.extraction.backbones import custom
from keystep.extraction.backbones.colours import Colours
from keystep.extraction.backbones.custom import from_callable, from_name
from keystep.extraction.backbones.weights import tensors_hash
from keystep.plugins import allow, specs_in

PICTURE = Picture(height=4, width=6)


def mean_colour(clips: Tensor) -> Tensor:
    """(n, F, H, W, 3) to (n, 3)."""
    return clips.double().mean((1, 2, 3))


class Projection(nn.Module):
    """Mean colours of each of two slots, projected to 5 numbers; refuses to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, clips: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return self.linear(clips.float().mean((2, 3)).view(len(clips), 2, -1, 3).mean(2))


def random_clips(frames: int) -> Tensor:
    return torch.randint(0, 256, (3, frames, 4, 6, 3), dtype=torch.uint8)


def test_a_function_becomes_a_backbone_that_knows_its_width() -> None:
    backbone = from_callable(mean_colour, name="mean", picture=PICTURE, weights="none")
    clips = random_clips(1)
    features = backbone(clips)
    assert (backbone.width, backbone.clip, backbone.weights) == (3, ClipSpec(), "none")
    assert features.shape == (3, 1, 3) and features.dtype == torch.float32
    torch.testing.assert_close(features[:, 0], mean_colour(clips).float())
    assert custom.is_backbone(backbone)


def test_a_module_is_told_by_its_weights_alone() -> None:
    torch.manual_seed(0)
    module, clip = Projection(), ClipSpec(frames=4, slots=2)
    first = from_callable(module, name="module", picture=PICTURE, clip=clip)
    assert first(random_clips(4)).shape == (3, 2, 5)
    assert not module.training
    assert from_callable(module.forward, name="method", picture=PICTURE, clip=clip).weights == first.weights
    with torch.no_grad():
        module.linear.bias[4] += 1e-6
    assert from_callable(module, name="module", picture=PICTURE, clip=clip).weights != first.weights


def test_the_hash_tells_names_types_shapes_and_numbers_but_not_order() -> None:
    a, b = torch.arange(6.0), torch.tensor(3)
    base = tensors_hash({"a": a, "b": b})
    assert tensors_hash({"b": b, "a": a}) == base
    others = [{"a": a}, {"a": a.view(2, 3), "b": b}, {"a": a.double(), "b": b}, {"c": a, "b": b}, {"a": a + 1, "b": b}]
    assert len({base, *(tensors_hash(other) for other in others)}) == 6
    assert tensors_hash({"a": torch.arange(12.0)[::2].bfloat16()}), "any layout and type"


WRONG = [
    (lambda clips: clips.float().mean((2, 3)), {}, r"returned .*\(1, 4, 3\).*expected \(1, 2, 3\)"),
    (lambda clips: clips.float(), {}, r"returned a tensor of shape \(1, 4, 4, 6, 3\); expected features"),
    (lambda clips: [1], {}, "returned a list; expected features"),
    (lambda clips: torch.zeros(len(clips), 2, 7), {"width": 8}, r"\(1, 2, 7\) .*expected \(1, 2, 8\)"),
    (lambda clips: torch.zeros(5, 2, 7), {}, r"\(5, 2, 7\) .*expected \(1, 2, 7\)"),
]


@pytest.mark.parametrize(("function", "options", "line"), WRONG)
def test_wrong_shapes_are_refused_at_once_in_one_line(function: custom.Function, options: dict, line: str) -> None:
    clip = ClipSpec(frames=4, slots=2)
    with pytest.raises(InputError, match=line) as info:
        from_callable(function, name="mine", picture=PICTURE, clip=clip, weights="1", **options)
    assert "\n" not in str(info.value) and "mine" in str(info.value)


def test_a_shape_that_goes_wrong_later_is_refused_too() -> None:
    backbone = from_callable(lambda clips: torch.zeros(1, 7), name="mine", picture=PICTURE, weights="1")
    with pytest.raises(InputError, match=r"\(1, 1, 7\) for clips of shape \(3, 1, 4, 6, 3\); expected \(3, 1, 7\)"):
        backbone(random_clips(1))


def test_clips_of_another_kind_are_refused_before_they_reach_the_function() -> None:
    backbone = from_callable(mean_colour, name="mine", picture=PICTURE, weights="1")
    with pytest.raises(InputError, match=r"\(3, 2, 4, 6, 3\) and torch.uint8; expected \(n, 1, 4, 6, 3\)"):
        backbone(random_clips(2))
    with pytest.raises(InputError, match=r"torch.float32; expected"):
        backbone(random_clips(1).float())


def test_features_can_be_learned_from() -> None:
    features = from_callable(Projection(), name="mine", picture=PICTURE, clip=ClipSpec(frames=4, slots=2))(
        random_clips(4)
    )
    assert not features.requires_grad
    nn.Linear(5, 1)(features).sum().backward()


def test_weights_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(InputError, match="pass weights="):
        from_callable(mean_colour, name="mean", picture=PICTURE)


def test_colours_are_normalised_channel_by_channel() -> None:
    clips = torch.tensor([0, 100, 255], dtype=torch.uint8).expand(2, 4, 5, 6, 3)
    out = Colours(mean=(10.0, 20.0, 30.0), deviation=(1.0, 2.0, 5.0))(clips)
    assert out.shape == (2, 4, 3, 5, 6) and out.dtype == torch.float32
    assert out[1, 3, :, 4, 5].tolist() == [-10.0, 40.0, 45.0]


MODULE = """
import torch
from keystep.extraction.backbone import Picture
from keystep.extraction.backbones.custom import from_callable

def make(device="nowhere"):
    backbone = from_callable(
        lambda clips: clips.float().mean((1, 2, 3)), name="mine", picture=Picture(height=4, width=6), weights="1"
    )
    backbone.asked = device
    return backbone

class Makers:
    ready = make()

    @staticmethod
    def plain():
        return make()

number = 5
def refuses():
    return "text"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder."""
    (tmp_path / "keystep_test_backbones.py").write_text(MODULE)
    (tmp_path / "keystep_test_broken.py").write_text("import keystep_no_such_module")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "keystep_test_backbones", raising=False)
    return "keystep_test_backbones"


def test_a_spec_names_a_backbone_or_what_makes_one(module: str) -> None:
    allow(*(f"{module}:{name}" for name in ("make", "Makers.ready", "Makers.plain")))
    made = from_name(f"{module}:make", device="cpu")
    assert made.asked == "cpu" and made.name == "mine"  # type: ignore[attr-defined]
    assert from_name(f"{module}:Makers.ready").width == 3
    assert from_name(f"{module}:Makers.plain")(random_clips(1)).shape == (3, 1, 3)


SPECS = [
    ("{}", "unknown backbone .* or package.module:Name"),
    (":make", "unknown backbone .* or package.module:Name"),
    ("{}:", "unknown backbone .* or package.module:Name"),
    ("{}:absent", "module 'keystep_test_backbones' has no attribute 'absent'"),
    ("{}:number", "lacks a call; see keystep.extraction.backbone.BackboneMaker"),
    ("{}:refuses", "an object of type str is no"),
    (
        "keystep_no_such_module:make",
        "cannot be imported: ModuleNotFoundError: No module named 'keystep_no_such_module'",
    ),
    ("keystep_test_broken:make", "cannot be imported: ModuleNotFoundError: No module named 'keystep_no_such_module'"),
]


@pytest.mark.parametrize(("spec", "line"), SPECS)
def test_specs_that_name_nothing_usable_are_refused_in_one_line(module: str, spec: str, line: str) -> None:
    allow(*specs_in(spec.format(module)))
    with pytest.raises(InputError, match=line) as info:
        from_name(spec.format(module))
    assert "\n" not in str(info.value)
