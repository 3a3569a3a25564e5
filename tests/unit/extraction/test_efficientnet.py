from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, cosine_similarity, interpolate

from keystep.errors import InputError
from keystep.extraction.backbones import efficientnet
from keystep.extraction.backbones.custom import FunctionBackbone
from keystep.extraction.backbones.layers import Layer, ready
from keystep.extraction.backbones.weights import read_tensors

REFERENCE = {"mean": 0.169475, "deviation": 0.417056, "largest": 3.714439, "class": 701, "score": 5.311871}
SECOND = (0.0, 0.908474, 0.007164)


@pytest.fixture(scope="module")
def backbone() -> FunctionBackbone:
    return efficientnet.load()


def generated_pictures() -> Tensor:
    """Two pictures of stripes and slopes, (2, 1, 224, 224, 3) uint8, from whole numbers alone."""
    row, column = torch.arange(224)[:, None], torch.arange(224)[None]
    first = torch.stack([row + column, row * column // 64, (row // 16 + column // 8) % 2 * 200], dim=-1)
    return torch.stack([first, (first.flip(0) * 3 + 17)])[:, None].remainder(256).to(torch.uint8)


def by_the_letter(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A convolution of (1, 1, H, W) with TensorFlow's "SAME" padding, place by place."""
    height, width, kernel = *x.shape[-2:], weight.shape[-1]
    rows, columns = -(-height // stride), -(-width // stride)
    up = max((rows - 1) * stride + kernel - height, 0) // 2
    left = max((columns - 1) * stride + kernel - width, 0) // 2
    out = torch.zeros(1, 1, rows, columns)
    for i in range(rows):
        for j in range(columns):
            for a in range(kernel):
                for b in range(kernel):
                    y, z = i * stride + a - up, j * stride + b - left
                    if 0 <= y < height and 0 <= z < width:
                        out[0, 0, i, j] += x[0, 0, y, z] * weight[0, 0, a, b]
    return out


def test_features_and_classes_are_those_of_an_independent_implementation(backbone: FunctionBackbone) -> None:
    """Made with the package efficientnet-lite-pytorch 0.1.0 and the same weights.

    From `generated_pictures` as x: ``features = model.extract_features((x - 127) / 128).mean((2, 3))`` in float32 on
    the CPU, then `REFERENCE` from ``features[0]`` and ``model(...)[0]``,
    `SECOND` from three of ``features[1]``. On 14 frames of real videos, features and
    scores were bit for bit the same, before folding.
    """
    pictures = generated_pictures()
    features = backbone(pictures)[:, 0]
    assert features.shape == (2, 1280)
    scores = efficientnet.network().logits(efficientnet.COLOURS(pictures)[:, 0])[0]
    found = {
        "mean": features[0].mean(),
        "deviation": features[0].std(),
        "largest": features[0].max(),
        "class": scores.argmax(),
        "score": scores.max(),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(REFERENCE, abs=2e-4)
    assert features[1, [0, 639, 1279]].tolist() == pytest.approx(SECOND, abs=2e-4)


def test_shared_features_of_real_videos_are_reproduced(shared: Path, backbone: FunctionBackbone) -> None:
    """Made by somebody else: every fifth frame from the first on, 224 pixels high (bicubic), the middle 224."""
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    published = np.load(shared / "data/gtea_s2_effnet_3fps/features/S2_Cheese_C1.npy").T
    with av.open(shared / "data/gtea_s2_videos/videos/S2_Cheese_C1.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame, _ in zip(video.decode(video=0), range(21), strict=False)]
    pixels = torch.from_numpy(np.stack(frames[::5])).permute(0, 3, 1, 2)  # 720 x 405
    size = (224, round(720 * 224 / 405))
    left = (size[1] - 224) // 2
    small = interpolate(pixels, size=size, mode="bicubic", antialias=True)[..., left : left + 224]
    features = backbone(small.permute(0, 2, 3, 1)[:, None])[:, 0]
    assert cosine_similarity(features, torch.from_numpy(published[:5])).min() > 0.9999
    assert cosine_similarity(features, torch.from_numpy(published[1:6])).max() < 0.97, "this tells frames apart"


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 6), (5, 9)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_padding_is_that_of_tensorflow(height: int, width: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = Layer(1, 1, kernel=kernel, stride=stride, same=True, epsilon=1e-3)
    layer.norm = torch.nn.Identity()
    x = torch.randn(1, 1, height, width)
    torch.testing.assert_close(layer(x), by_the_letter(x, layer.convolution.weight, stride), atol=1e-5, rtol=0)


def test_one_block_is_its_published_definition() -> None:
    """The second block of the second stage, written out with the published tensors."""
    torch.manual_seed(0)
    tensors = read_tensors(efficientnet.packaged_weights())
    x = torch.randn(2, 24, 9, 9)

    def normed(y: Tensor, name: str) -> Tensor:
        mean, variance, scale, offset = (
            tensors[f"_blocks.2.{name}.{kind}"][:, None, None]
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (variance + 1e-3).sqrt() * scale + offset

    wide = normed(conv2d(x, tensors["_blocks.2._expand_conv.weight"]), "_bn0").clamp(0, 6)
    each = conv2d(wide, tensors["_blocks.2._depthwise_conv.weight"], padding=1, groups=144)
    narrow = normed(conv2d(normed(each, "_bn1").clamp(0, 6), tensors["_blocks.2._project_conv.weight"]), "_bn2")
    torch.testing.assert_close(efficientnet.network().blocks[2](x), narrow + x, atol=1e-4, rtol=1e-4)


def test_the_network_has_the_published_number_of_weights() -> None:
    assert sum(weight.numel() for weight in efficientnet.network().parameters()) == 4_652_008


def test_folding_the_norms_changes_nothing_but_rounding() -> None:
    pictures = efficientnet.COLOURS(generated_pictures())[:, 0]
    plain, folded = efficientnet.network(), ready(efficientnet.network(), "cpu")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(pictures), plain(pictures), atol=1e-4, rtol=0)


def test_a_picture_gives_the_same_features_whatever_the_others_are(backbone: FunctionBackbone) -> None:
    pictures = generated_pictures()
    torch.testing.assert_close(backbone(pictures)[1:], backbone(pictures[1:]), atol=1e-4, rtol=0)


def test_the_weights_are_told_by_their_hash(backbone: FunctionBackbone) -> None:
    assert (backbone.name, backbone.width, backbone.clip.frames) == ("efficientnet-lite0", 1280, 1)
    assert backbone.weights.startswith("57934424"), "the published file has the beginning of its hash in its name"


def test_other_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    tensors = read_tensors(efficientnet.packaged_weights())
    tensors["_blocks.3._se_reduce.weight"] = tensors.pop("_blocks.3._bn0.weight")
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(
        InputError, match=r"1 missing \(blocks\.3\.expand.*1 unexpected \(_blocks\.3\._se_reduce"
    ) as info:
        efficientnet.load(tmp_path / "other.pth")
    assert "\n" not in str(info.value)


def test_without_the_extra_the_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'keystep\[video\]'"):
        efficientnet.load()
