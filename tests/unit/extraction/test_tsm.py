from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.backbones import tsm
from keystep.extraction.backbones.colours import IMAGENET
from keystep.extraction.backbones.custom import FunctionBackbone
from keystep.extraction.backbones.layers import ready
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.loading import load_extractor
from keystep.persistence import load_strict

FRAMES = 8


def random_pictures(number: int, size: int = 64) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


def random_frames(number: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (number, size, size, 3), generator=generator, dtype=torch.uint8)


def published_names(blocks: tuple[int, ...] = (3, 4, 6, 3)) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in a checkpoint of the authors' code, in which a wrapper around torchvision's network shifts."""

    def layer(convolution: str, norm: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{convolution}.weight", shape
        for kind in ("weight", "bias", "running_mean", "running_var"):
            yield f"{norm}.{kind}", shape[:1]

    yield from layer("module.base_model.conv1", "module.base_model.bn1", 64, 3, 7, 7)
    inputs = 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        for block in range(count):
            at = f"module.base_model.layer{stage + 1}.{block}"
            yield from layer(f"{at}.conv1.net", f"{at}.bn1", inner, inputs, 1, 1)
            yield from layer(f"{at}.conv2", f"{at}.bn2", inner, inner, 3, 3)
            yield from layer(f"{at}.conv3", f"{at}.bn3", inner * 4, inner, 1, 1)
            if block == 0:
                yield from layer(f"{at}.downsample.0", f"{at}.downsample.1", inner * 4, inputs, 1, 1)
            inputs = inner * 4
    yield from (("module.new_fc.weight", (400, 2048)), ("module.new_fc.bias", (400,)))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights of which features neither vanish nor explode, with random statistics in the norms."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in published_names():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            tensors[name] = noise * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            quiet = 0.3 if ".bn3." in name else 1.0  # the sum over 16 blocks must not explode
            tensors[name] = quiet * (0.8 + 0.4 * torch.rand(shape, generator=generator))
        else:
            tensors[name] = 0.1 * noise
    return tensors


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tsm") / "TSM_random_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth"
    torch.save({"epoch": 50, "arch": "resnet50", "state_dict": published, "best_prec1": 74.1}, path)
    return path


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> tsm.ResNet50:
    return tsm.network(checkpoint)


@pytest.fixture(scope="module")
def online(network: tsm.ResNet50) -> tsm.OnlineTSM:
    return tsm.OnlineTSM(network, "0" * 64)


@pytest.fixture(scope="module")
def independent(published: dict[str, Tensor]) -> nn.Module:
    """The ResNet-50 of transformers with the same weights; its own default has the stride in the 3 x 3 convolutions."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
    model = transformers.ResNetModel(transformers.ResNetConfig())
    assert not model.config.downsample_in_bottleneck
    kinds = ("weight", "bias", "running_mean", "running_var")
    tensors = {}

    def copy(theirs: str, convolution: str, norm: str) -> None:
        tensors[f"{theirs}.convolution.weight"] = published[f"module.base_model.{convolution}.weight"]
        tensors.update({f"{theirs}.normalization.{k}": published[f"module.base_model.{norm}.{k}"] for k in kinds})
        tensors[f"{theirs}.normalization.num_batches_tracked"] = torch.tensor(0)

    copy("embedder.embedder", "conv1", "bn1")
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            at, theirs = f"layer{stage + 1}.{block}", f"encoder.stages.{stage}.layers.{block}"
            for place in range(3):
                wrapped = ".net" if place == 0 else ""
                copy(f"{theirs}.layer.{place}", f"{at}.conv{place + 1}{wrapped}", f"{at}.bn{place + 1}")
            if block == 0:
                copy(f"{theirs}.shortcut", f"{at}.downsample.0", f"{at}.downsample.1")
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def by_the_letter(x: Tensor, frames: int, online: bool = False) -> Tensor:
    """The shift as the paper draws it, one channel of one frame at a time; x is (n * frames, C, H, W)."""
    out = torch.zeros_like(x)
    eighth = x.shape[1] // 8
    for row in range(len(x)):
        time = row % frames
        for channel in range(x.shape[1]):
            if online:
                offset = -1 if channel < eighth else 0
            else:
                offset = 1 if channel < eighth else -1 if channel < 2 * eighth else 0
            if 0 <= time + offset < frames:
                out[row, channel] = x[row + offset, channel]
    return out


@pytest.mark.parametrize("channels", [8, 20, 64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_shift_is_its_definition(channels: int, layout: torch.memory_format) -> None:
    x = torch.randn(3 * 5, channels, 4, 3).to(memory_format=layout)
    before = x.clone()
    assert torch.equal(tsm.shifted(x, 5), by_the_letter(x, 5))
    assert torch.equal(tsm.shifted_online(x, 5), by_the_letter(x, 5, online=True))
    assert torch.equal(x, before), "the shortcut must see what was not shifted"


def test_without_the_shift_it_is_the_resnet_of_another_library(network: nn.Module, independent: nn.Module) -> None:
    pictures = random_pictures(3, 96)
    expected = independent(pictures).pooler_output.flatten(1)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(pictures), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("one_way", [False, True])
def test_with_the_shift_it_is_that_resnet_shifted_before_each_residual_branch(
    checkpoint: Path, independent: nn.Module, one_way: bool
) -> None:
    frames = random_frames(2 * FRAMES)
    branches = [block.layer for stage in independent.encoder.stages for block in stage.layers]
    assert len(branches) == 16
    hooks = [
        branch.register_forward_pre_hook(lambda _, x: (by_the_letter(x[0], FRAMES, online=one_way),))
        for branch in branches
    ]
    try:
        pictures = IMAGENET(frames[:, None])[:, 0]
        expected = independent(pictures).pooler_output.reshape(2, FRAMES, 2048).mean(1)
    finally:
        for hook in hooks:
            hook.remove()
    clips = frames.view(2, FRAMES, 64, 64, 3)
    if one_way:
        network = tsm.load_online(checkpoint)
        found = torch.stack([network.sequence(clip).mean(0) for clip in clips])[:, None]
    else:
        found = small(tsm.load(checkpoint))(clips)
    assert found.shape == (2, 1, 2048)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-4, rtol=1e-4)


def small(backbone: FunctionBackbone) -> FunctionBackbone:
    """Pictures of 64 x 64: the network takes any size, and tests are quicker."""
    backbone.picture = Picture(height=64, width=64)
    return backbone


def test_without_the_shift_a_vector_sees_one_picture(checkpoint: Path, independent: nn.Module) -> None:
    """As Assembly101's features were made: a TSM's weights in the 2-D network."""
    settings = {"backbone": "tsm", "shift": "none", "rate": Fraction(15, 4)}
    extractor = load_extractor(ExtractionConfig(**settings), checkpoint, "cpu")
    assert (extractor.pictures, extractor.width, extractor.timeline.look_ahead) == (1, 2048, 0)
    frames = random_frames(3, 224)
    expected = independent(IMAGENET(frames[:, None])[:, 0]).pooler_output.flatten(1)
    with torch.no_grad():
        found = tsm.load_unshifted(checkpoint)(frames[:, None])
    torch.testing.assert_close(found[:, 0], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="frames: without shift, tsm takes single pictures; omit it"):
        load_extractor(ExtractionConfig(frames=8, **settings), checkpoint, "cpu")
    with pytest.raises(InputError, match="shift none: tsm-online has no such setting"):
        load_extractor(ExtractionConfig(backbone="tsm-online", shift="none", window="right"), checkpoint, "cpu")


def test_a_clip_does_not_depend_on_the_clips_beside_it(checkpoint: Path) -> None:
    backbone = small(tsm.load(checkpoint))
    clips = random_frames(2 * FRAMES).view(2, FRAMES, 64, 64, 3)
    torch.testing.assert_close(backbone(clips)[1:], backbone(clips[1:]), atol=1e-4, rtol=1e-4)


def test_the_order_of_frames_matters(checkpoint: Path) -> None:
    backbone = small(tsm.load(checkpoint))
    clips = random_frames(FRAMES)[None]
    assert (backbone(clips) - backbone(clips.flip(1))).abs().max() > 0.01


def test_streaming_equals_the_one_way_shift_over_the_whole_sequence(online: tsm.OnlineTSM) -> None:
    videos = random_frames(2 * 7).view(2, 7, 64, 64, 3)
    state, found = tsm.OnlineState(), []
    for time in range(7):
        features, state = online.step(videos[:, time], state)
        found.append(features)
    offline = torch.stack([online.sequence(video) for video in videos])
    torch.testing.assert_close(torch.stack(found, dim=1), offline, atol=1e-4, rtol=1e-4)
    assert len(state.kept) == 16
    assert all(kept.untyped_storage().nbytes() == kept.numel() * 4 for kept in state.kept), "only what is shifted"


def test_future_frames_never_change_past_features_and_past_ones_matter(online: tsm.OnlineTSM) -> None:
    frames = random_frames(6)
    features = online.sequence(frames)
    changed = frames.clone()
    changed[3] = 255 - changed[3]
    difference = (online.sequence(changed) - features).abs().amax(1)
    assert torch.equal(difference[:3], torch.zeros(3))
    assert (difference[3:] > 1e-4).all()


def test_a_state_can_be_gone_on_from_twice(online: tsm.OnlineTSM) -> None:
    frames = random_frames(3)
    _, state = online.step(frames[:1], tsm.OnlineState())
    first, _ = online.step(frames[1:2], state)
    online.step(frames[2:], state)
    again, _ = online.step(frames[1:2], state)
    assert torch.equal(first, again)


def test_a_state_of_other_streams_or_sizes_is_refused(online: tsm.OnlineTSM) -> None:
    _, state = online.step(random_frames(2), tsm.OnlineState())
    with pytest.raises(InputError, match=r"for 2 streams with feature maps of \(16, 16\), the frames are 1"):
        online.step(random_frames(1), state)
    with pytest.raises(InputError, match=r"the frames are 2 with \(8, 8\)"):
        online.step(random_frames(2, 32), state)


def test_the_published_layout_loads_with_and_without_its_prefix_and_counters(
    published: dict[str, Tensor], network: nn.Module
) -> None:
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for name in published
        if name.endswith("running_mean")
    }
    bare = {name.removeprefix("module."): tensor for name, tensor in (published | counters).items()}
    model = tsm.ResNet50()
    load_strict(model, tsm.adapted(bare, "a test"), "a test")
    pictures = random_pictures(1)
    assert torch.equal(model.eval()(pictures), network(pictures))


def test_folding_the_norms_changes_nothing_but_rounding(checkpoint: Path, network: nn.Module) -> None:
    pictures = random_pictures(2)
    folded = ready(tsm.network(checkpoint), "cpu")
    expected = network(pictures)
    assert (folded(pictures) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_clip_is_that_of_dense_sampling(checkpoint: Path) -> None:
    backbone = tsm.load(checkpoint)
    assert (backbone.clip.frames, backbone.clip.slots, backbone.clip.frame_rate) == (8, 1, Fraction(15, 4))
    assert backbone.name == "tsm" and backbone.width == 2048
    other = tsm.load(checkpoint, frames=16, frame_rate=Fraction(6))
    assert other.name == "tsm" and (other.clip.frames, other.clip.frame_rate) == (16, 6)
    assert other.weights == backbone.weights


REFUSED = [
    ("module.base_model.layer2.0.nl.theta.weight", None, "non-local blocks, which are not supported"),
    ("module.base_model.layer1.2.conv1.weight", "module.base_model.layer1.2.conv1.net.weight", "has no temporal shift"),
    ("module.base_model.layer1.0.net.conv1.weight", "module.base_model.layer1.0.conv1.net.weight", "no temporal shift"),
    ("module.base_model.features.0.0.weight", "module.base_model.conv1.weight", r"1 missing \(stem\.convolution"),
    ("module.base_model.layer3.22.bn1.bias", None, r"1 unexpected \(stages\.2\.22\.layers\.0\.norm\.bias"),
]


@pytest.mark.parametrize(("name", "instead_of", "line"), REFUSED)
def test_other_networks_are_refused_in_one_line(
    published: dict[str, Tensor], name: str, instead_of: str | None, line: str
) -> None:
    tensors = {key: tensor for key, tensor in published.items() if key != instead_of}
    tensors[name] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(InputError, match=rf"^other\.pth: .*{line}") as info:
        load_strict(tsm.ResNet50(), tsm.adapted(tensors, "other.pth"), "other.pth")
    assert "\n" not in str(info.value)


def test_the_online_network_is_an_extractor_that_has_seen_all_of_the_past(checkpoint: Path):
    config = ExtractionConfig(backbone="tsm-online", window="right", rate=Fraction(2))
    extractor = load_extractor(config, checkpoint, "cpu")
    frames = random_frames(7, 256).numpy()
    made = extractor(frames, [Fraction(index, 2) for index in range(7)])
    cropped = torch.from_numpy(frames[:, 16:240, 16:240])  # 224 in the middle of 256
    torch.testing.assert_close(
        torch.from_numpy(made.features), tsm.load_online(checkpoint).sequence(cropped), atol=1e-3, rtol=1e-4
    )
    assert made.seen[:, 0].tolist() == [0] * 7 and made.seen[:, 2].tolist() == list(range(7))
    assert extractor.timeline.look_ahead == 0
    with pytest.raises(InputError, match="has no look-ahead"):
        load_extractor(config.model_copy(update={"window": "center"}), checkpoint, "cpu")
