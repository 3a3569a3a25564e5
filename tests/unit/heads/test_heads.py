"""Heads score every frame from what they say they see, and from nothing else."""

import pytest
import torch
from torch.nn import functional

from keystep.errors import InputError
from keystep.heads import PRESETS, Head, build_head, describe, frames_per_second, head_config
from keystep.heads.layers import Dilated
from keystep.heads.mstcn import DualDilated, Mstcn
from keystep.nn.context import Whole
from keystep.nn.places import Places

WIDTH, CLASSES = 5, 3
TINY = {
    "linear": ("linear", {}),
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 4}),
    "attentive by frame": ("attentive", {"dim": 16, "heads": 2, "window": 6, "chunk": 1}),
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2}),
    "context": ("context", {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11}),
}
CAUSAL = {
    "linear": TINY["linear"],
    "attentive by frame": TINY["attentive by frame"],
    **{f"causal {name}": (name, TINY[name][1] | {"causal": True}) for name in ("mstcn", "context")},
}
ALL = TINY | CAUSAL


def make(name: str, **changes: object) -> Head:
    kind, settings = ALL[name]
    head = build_head(head_config(kind, settings | changes), WIDTH, CLASSES, seed=0).eval()
    head.standardise.mean.fill_(0.5)
    return head


def features(videos: int = 2, frames: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(videos, frames, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_scores_of_every_stage_whatever_the_length(name: str, frames: int) -> None:
    head = make(name)
    scores = head(features(2, frames))
    assert scores.shape == (head.stages, 2, frames, CLASSES)
    assert scores.isfinite().all()
    probabilities = head.probabilities(features(2, frames))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, frames))
    assert torch.equal(head.predict(features(2, frames)), scores[-1].argmax(-1))


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing_whatever_stands_there(name: str) -> None:
    head, x, lengths = make(name), features(3, 40), (40, 23, 1)
    valid = torch.arange(40) < torch.tensor(lengths)[:, None]
    x[~valid] = float("nan")
    together = head(x, valid)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(together[:, row, :length], head(x[row : row + 1, :length])[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_valid_frames_pass_by_padding(name: str) -> None:
    head, x = make(name), features(2, 20)
    valid = torch.arange(20) < torch.tensor([20, 7])[:, None]
    x[~valid] = float("nan")
    head(x, valid)[:, valid].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("name", CAUSAL)
def test_future_frames_never_change_past_outputs(name: str) -> None:
    head, x = make(name), features()
    before = head(x)
    for frame in (1, 7, 39):
        changed = x.clone()
        changed[:, frame:] = 100 * features(2, 40 - frame, seed=frame)
        torch.testing.assert_close(head(changed)[:, :, :frame], before[:, :, :frame], atol=1e-6, rtol=0)
    torch.testing.assert_close(head(x[:, :17]), before[:, :, :17], atol=1e-6, rtol=0)
    assert head.causal and head.delay == 0


def test_an_attentive_probe_sees_its_chunk_and_no_later_one() -> None:
    head, x = make("attentive"), features()
    changed = x.clone()
    changed[:, 22:] += 1  # in the middle of the chunk 20..23
    same = (head(x) - head(changed)).abs().amax((0, 1, 3)) < 1e-6
    assert same.tolist() == [True] * 20 + [False] * 20
    assert head.causal and head.delay == 3


@pytest.mark.parametrize("name", ["mstcn", "context"])
def test_offline_heads_see_the_future_and_say_so(name: str) -> None:
    head, x = make(name), features()
    changed = x.clone()
    changed[:, 20:] += 1
    assert (head(x) - head(changed))[:, :, 19].abs().max() > 1e-4
    assert not head.causal and head.delay is None


@pytest.mark.parametrize("name", ALL)
def test_no_frame_beyond_the_stated_reach_matters_and_the_edge_does(name: str) -> None:
    # float64, since the softmax between stages leaves little of the farthest frames
    head, frame = make(name).double(), 130
    x = features(1, 260).double().requires_grad_()
    head(x)[-1, 0, frame].square().sum().backward()
    touched = x.grad[0].abs().sum(-1).nonzero().flatten()
    before, after = frame - int(touched.min()), int(touched.max()) - frame
    stated = head.reach
    assert before <= stated[0] and after <= stated[1]
    assert frame - stated[0] >= 0 and frame + stated[1] < 260, "the video is long enough to tell"
    if head.config.kind in ("linear", "mstcn"):  # attention's edges depend on the frame's place in chunk and stride
        assert (before, after) == stated


def test_the_context_reaches_as_far_as_it_says_for_some_frame() -> None:
    head = make("context").double()
    reached = []
    for frame in range(120, 132):
        x = features(1, 260).double().requires_grad_()
        head(x)[-1, 0, frame].square().sum().backward()
        touched = x.grad[0].abs().sum(-1).nonzero().flatten()
        reached.append((frame - int(touched.min()), int(touched.max()) - frame))
    assert max(a for a, _ in reached) <= head.reach[0] and max(b for _, b in reached) <= head.reach[1]
    assert max(a for a, _ in reached) >= head.reach[0] - 2 * 2 * 3, "but for the strides of two stages of two layers"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dilation", [1, 4])
def test_a_dilated_layer_is_torchs_convolution(causal: bool, dilation: int) -> None:
    torch.manual_seed(0)
    layer, x = Dilated(6, dilation, causal), torch.randn(2, 15, 6)
    kernel = layer.weight.view(6, 3, 6).transpose(1, 2)  # (out, in, taps)
    sides = (2 * dilation, 0) if causal else (dilation, dilation)
    expected = functional.conv1d(functional.pad(x.mT, sides), kernel, layer.bias, dilation=dilation).mT
    found = layer.convolve(x, Whole(Places(torch.arange(15)[None])), "")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dilations", [(1, 8), (4, 4), (1, 2)])
def test_a_dual_dilated_layer_is_the_published_one_though_folded(causal: bool, dilations: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, x = DualDilated(6, dilations, causal, 0.0), torch.randn(2, 20, 6)
    context = Whole(Places(torch.arange(20)[None]))
    both = torch.cat([branch.convolve(x, context, "") for branch in layer.branches], dim=-1)
    torch.testing.assert_close(layer(x, context, ""), x + layer.fuse(both).relu(), atol=1e-5, rtol=0)


def test_the_published_mstcn_has_its_parameters() -> None:
    """50 classes on 2048 channels: 11 dual layers of 2 x (3 x 64 x 64 + 64) + 128 x 64 + 64, and so on."""
    head = build_head(head_config("mstcn"), 2048, 50)
    generation = 2048 * 64 + 64 + 11 * (2 * (3 * 64 * 64 + 64) + 128 * 64 + 64) + 64 * 50 + 50
    refinement = 50 * 64 + 64 + 10 * (3 * 64 * 64 + 64 + 64 * 64 + 64) + 64 * 50 + 50
    assert describe(head).parameters == generation + 3 * refinement
    assert isinstance(head, Mstcn) and head.stages == 4


def test_no_frame_is_normalised_by_others() -> None:
    """A louder second half leaves the causal heads' first half alone even where they were trained with it."""
    for name in ("causal mstcn", "causal context"):
        head, x = make(name), features(1, 40)
        head.train()
        torch.manual_seed(1)
        before = head(x)
        louder = x.clone()
        louder[:, 20:] *= 50
        torch.manual_seed(1)
        torch.testing.assert_close(head(louder)[:, :, :20], before[:, :, :20], atol=1e-6, rtol=0)


def test_a_description_tells_what_a_head_needs() -> None:
    description = describe(make("attentive"))
    assert (description.delay, description.before, description.after) == (3, 8, 3)
    assert "answers after at most 3 frames, sees 8 frames back and 3 ahead" in str(description)
    assert "after the whole video" in str(describe(make("mstcn")))
    head = make("linear").train()
    assert frames_per_second(head, frames=10, repeats=1) > 0
    assert head.training, "left as it was"


def test_every_preset_builds() -> None:
    for preset in PRESETS:
        assert build_head(head_config(preset), WIDTH, CLASSES)(features(1, 9)).isfinite().all()


@pytest.mark.parametrize(
    ("preset", "settings", "words"),
    [
        ("lstm", {}, "unknown head 'lstm'; expected one of linear"),
        ("mstcn", {"map": 3}, "did you mean maps"),
        ("attentive", {"window": 10, "chunk": 20}, "window 10 must hold at least a chunk, 20 frames"),
        ("attentive", {"dim": 30}, "dim 30 cannot be split into 4 attention heads"),
        ("context", {"heads": 3, "dim": 48}, "heads 3 cannot be split between window and memory"),
        ("context", {"memory": 8, "stride": 16}, "memory 8 holds no frame of every 16"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(preset: str, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        head_config(preset, settings)
    assert "\n" not in str(caught.value)


def test_features_that_do_not_fit_are_refused() -> None:
    head = make("linear")
    with pytest.raises(InputError, match=r"this head reads \(B, T, 5\)"):
        head(torch.zeros(1, 4, 6))
    with pytest.raises(InputError, match="padding before real frames"):
        head(features(1, 3), torch.tensor([[False, True, True]]))
    with pytest.raises(InputError, match="expected"):
        head(features(1, 3), torch.ones(1, 3))
