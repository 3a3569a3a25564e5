"""I3D gives the numbers of the published network, whichever file its weights come from."""

import pickle
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keystep.errors import InputError
from keystep.extraction.backbone import Backbone, ClipSpec
from keystep.extraction.backbones.i3d import (
    I3D,
    MIXED_WIDTHS,
    I3DBackbone,
    MaxPool,
    Unit,
    load,
    load_model,
    same_padding,
)
from keystep.extraction.backbones.i3d_layouts import own_tensors
from keystep.extraction.backbones.weights import read_tensors

State = dict[str, Tensor]
JAX_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}


# -- padding ----------------------------------------------------------------------------------------------------------


def fewest_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The least padding with which whole windows, counted one by one, are as many as ceil(size / stride)."""
    wanted = len(range(0, size, stride))
    total = next(n for n in range(99) if len(range(0, size + n - kernel + 1, stride)) == wanted)
    return total // 2, total - total // 2


def windows(x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...], outside: float) -> np.ndarray:
    """(C, T, H, W) to (C, T', H', W', *kernel): every window, with ``outside`` where it hangs over."""
    pads = [fewest_zeros(*axis) for axis in zip(x.shape[1:], kernel, stride, strict=True)]
    padded = np.pad(x, [(0, 0), *pads], constant_values=outside)
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2, 3))
    return seen[:, :: stride[0], :: stride[1], :: stride[2]]


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 1), (1, 2)])
def test_same_padding_is_the_least_that_gives_every_stride_its_window(kernel: int, stride: int) -> None:
    for size in range(1, 40):
        assert same_padding(size, kernel, stride) == fewest_zeros(size, kernel, stride), size


@pytest.mark.parametrize("size", [(16, 12, 12), (5, 7, 10), (9, 8, 13), (1, 3, 2), (2, 1, 1)], ids=str)
def test_convolution_and_pooling_pad_as_tensorflow_does_at_any_size(size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *size)).astype(np.float32) - 3  # below zero, so that padding with zeros would win
    batch = torch.from_numpy(x)[None]
    for kernel, stride in ((7, 2), (3, 1), (1, 1)):
        unit = Unit(3, 4, kernel, stride)
        expected = np.einsum(
            "cthwxyz,ocxyz->othw",
            windows(x, (kernel,) * 3, (stride,) * 3, 0.0),
            unit.weight.detach().numpy(),
            dtype=np.float64,
        )
        expected = np.maximum(expected + unit.bias.detach().numpy()[:, None, None, None], 0)
        np.testing.assert_allclose(unit(batch)[0].detach().numpy(), expected, atol=1e-4)
    for kernels, strides in (
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ):
        expected = windows(x, kernels, strides, -np.inf).max(axis=(-3, -2, -1))
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            pooled = MaxPool(kernels, strides)(batch.contiguous(memory_format=layout))
            assert np.array_equal(pooled[0].numpy(), expected)


# -- the published layouts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port_state() -> State:
    """Random weights under the names of the common PyTorch port (``rgb_imagenet.pt``)."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def unit(name: str, inputs: int, outputs: int, kernel: int) -> int:
        weight = torch.randn(outputs, inputs, kernel, kernel, kernel, generator=generator)
        state[f"{name}.conv3d.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        for what in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.bn.{what}"] = 0.2 * torch.randn(outputs, generator=generator)
        state[f"{name}.bn.weight"] += 1
        state[f"{name}.bn.running_var"].add_(1).abs_()
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        return outputs

    unit("Conv3d_1a_7x7", 3, 64, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    channels = unit("Conv3d_2c_3x3", 64, 192, 3)
    for name, (b0, b1a, b1b, b2a, b2b, b3b) in MIXED_WIDTHS.items():
        unit(f"{name}.b1a", channels, b1a, 1)
        unit(f"{name}.b2a", channels, b2a, 1)
        channels = sum(
            (
                unit(f"{name}.b0", channels, b0, 1),
                unit(f"{name}.b1b", b1a, b1b, 3),
                unit(f"{name}.b2b", b2a, b2b, 3),
                unit(f"{name}.b3b", channels, b3b, 1),
            )
        )
    state["logits.conv3d.weight"] = torch.randn(400, channels, 1, 1, 1, generator=generator) / channels**0.5
    state["logits.conv3d.bias"] = torch.randn(400, generator=generator)
    return state


def jax_arrays(state: State) -> dict[str, np.ndarray]:
    """The same network under the JAX port's names: its batch norm has no scale, so that kernel and mean take it."""
    arrays = {}
    for name in (name.removesuffix(".conv3d.weight") for name in state if name.endswith(".conv3d.weight")):
        block, _, branch = name.partition(".")
        jax = "|".join([block, JAX_BRANCHES[branch]] if branch else [block])
        if name == "logits":
            arrays["params|Logits/Conv3d_0c_1x1|Conv_0|kernel"] = state["logits.conv3d.weight"].permute(2, 3, 4, 1, 0)
            arrays["params|Logits/Conv3d_0c_1x1|Conv_0|bias"] = state["logits.conv3d.bias"]
            continue
        scale = state[f"{name}.bn.weight"]
        kernel = state[f"{name}.conv3d.weight"] * scale[:, None, None, None, None]
        arrays[f"params|{jax}|Conv_0|kernel"] = kernel.permute(2, 3, 4, 1, 0)
        arrays[f"params|{jax}|BatchNorm_0|bias"] = state[f"{name}.bn.bias"]
        arrays[f"batch_stats|{jax}|BatchNorm_0|mean"] = state[f"{name}.bn.running_mean"] * scale
        arrays[f"batch_stats|{jax}|BatchNorm_0|var"] = state[f"{name}.bn.running_var"]
    return {name: np.ascontiguousarray(value.numpy()) for name, value in arrays.items()}


def published_forward(state: State, x: Tensor) -> Tensor:
    """(n, 3, T, H, W) to Mixed_5c, written from the definition: pad, convolve, normalise, rectify, each by itself."""

    def pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], outside: float = 0.0) -> Tensor:
        pads = [fewest_zeros(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
        return F.pad(x, [*pads[2], *pads[1], *pads[0]], value=outside)

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return F.max_pool3d(pad(x, kernel, stride, -torch.inf), kernel, stride)

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        y = F.conv3d(pad(x, tuple(weight.shape[2:]), (stride,) * 3), weight, stride=stride)
        statistics = [state[f"{name}.bn.{what}"] for what in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(y, *statistics, eps=1e-3))

    x = pool(unit("Conv3d_1a_7x7", x, 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    for name in MIXED_WIDTHS:
        if name == "Mixed_4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        branches = [
            unit(f"{name}.b0", x),
            unit(f"{name}.b1b", unit(f"{name}.b1a", x)),
            unit(f"{name}.b2b", unit(f"{name}.b2a", x)),
            unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1))),
        ]
        x = torch.cat(branches, dim=1)
    return x


@torch.no_grad()
def test_the_pytorch_ports_file_gives_the_network_written_from_its_definition(
    port_state: State, tmp_path: Path
) -> None:
    torch.save(port_state, tmp_path / "rgb_imagenet.pt", _use_new_zipfile_serialization=False)  # as in 2017
    model = load_model(tmp_path / "rgb_imagenet.pt")
    for size in ((9, 41, 38), (24, 32, 33)):
        x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected = published_forward(port_state, x)
        ours = model.trunk(x)
        assert ours.shape == expected.shape
        torch.testing.assert_close(ours, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@torch.no_grad()
def test_all_layouts_of_the_same_weights_give_the_same_features(port_state: State, tmp_path: Path) -> None:
    arrays = jax_arrays(port_state)
    np.savez(tmp_path / "arrays.npz", **arrays)
    nested: dict = {}
    for name, array in arrays.items():
        *folders, last = name.split("|")
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        # the checkpoint's running statistics have an axis of one for each that is averaged over
        place[last] = array.reshape(1, 1, 1, 1, -1) if name.startswith("batch_stats") else array
    (tmp_path / "arrays.ckpt").write_bytes(pickle.dumps(nested, protocol=4))
    torch.save({k: v for k, v in port_state.items() if "num_batches" not in k}, tmp_path / "old.pt")
    torch.save(load_model(tmp_path / "old.pt").state_dict(), tmp_path / "own.pt")
    x = torch.rand(1, 3, 8, 32, 32) * 2 - 1
    features = {path.name: load_model(path).features(x) for path in sorted(tmp_path.iterdir())}
    assert list(features) == ["arrays.ckpt", "arrays.npz", "old.pt", "own.pt"]
    assert torch.equal(features["arrays.ckpt"], features["arrays.npz"])
    assert torch.equal(features["own.pt"], features["old.pt"])
    torch.testing.assert_close(features["arrays.npz"], features["old.pt"], atol=1e-5, rtol=1e-4)
    assert float(features["old.pt"].std()) > 1e-3, "features that differ"


def renamed(state: State) -> None:
    state["Mixed_4c.b9.conv3d.weight"] = state.pop("Mixed_4c.b0.conv3d.weight")


def of_flow(state: State) -> None:
    state["Conv3d_1a_7x7.conv3d.weight"] = state["Conv3d_1a_7x7.conv3d.weight"][:, :2]


def short_statistics(state: State) -> None:
    state["Mixed_3b.b0.bn.running_var"] = state["Mixed_3b.b0.bn.running_var"][:5]


def without_logits(state: State) -> None:
    del state["logits.conv3d.weight"], state["logits.conv3d.bias"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (renamed, r"missing \(trunk\.Mixed_4c\.branch_0\.bias.*; 5 unexpected \(Mixed_4c\.b0\.bn\.bias"),
        (of_flow, r"trunk\.Conv3d_1a_7x7\.weight is \(64, 2, 7, 7, 7\), the model needs \(64, 3, 7, 7, 7\)"),
        (short_statistics, r"2 missing \(trunk\.Mixed_3b\.branch_0"),
        (without_logits, r"2 missing \(logits\.bias"),
    ],
)
def test_weights_that_are_not_all_there_are_refused_by_name(
    port_state: State, tmp_path: Path, spoil: Callable[[State], None], said: str
) -> None:
    state = dict(port_state)
    spoil(state)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=said):
        load_model(tmp_path / "bad.pt")


def test_fine_tuned_weights_keep_their_number_of_classes(port_state: State, tmp_path: Path) -> None:
    charades = {name: value[:157] if name.startswith("logits") else value for name, value in port_state.items()}
    torch.save(charades, tmp_path / "rgb_charades.pt")
    assert load_model(tmp_path / "rgb_charades.pt").logits.out_features == 157


# -- features ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model() -> I3D:
    torch.manual_seed(0)
    return I3D()


@torch.no_grad()
@pytest.mark.parametrize("frames", [4, 16, 17, 40])
def test_features_are_what_the_original_makes_its_logits_of(small_model: I3D, frames: int) -> None:
    x = torch.rand(1, 3, frames, 32, 32) * 2 - 1
    mixed = small_model.trunk(x)
    pooled = F.avg_pool3d(mixed, (min(2, mixed.shape[2]), *mixed.shape[3:]), stride=1)[..., 0, 0]  # (1, 1024, windows)
    logits = torch.stack([small_model.logits(window) for window in pooled.unbind(2)]).mean(0)
    torch.testing.assert_close(small_model(x), logits)
    plain = mixed.mean((2, 3, 4))
    assert torch.allclose(small_model.features(x), plain, atol=1e-7) == (frames <= 16), "the same up to 16 frames"


def test_a_clips_features_do_not_depend_on_its_neighbours(small_model: I3D) -> None:
    backbone: Backbone = I3DBackbone(small_model, "00", ClipSpec(frames=3, frame_rate=Fraction(25)))
    clips = torch.randint(0, 256, (2, 3, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    both = backbone(clips)
    assert both.shape == (2, 1, 1024) and both.dtype == torch.float32 and not both.requires_grad
    torch.testing.assert_close(both[1:], backbone(clips[1:]))
    assert backbone(clips[:0]).shape == (0, 1, 1024)
    for wrong in (clips.float(), clips[:, :2], clips[..., :100, :]):
        with pytest.raises(InputError, match="i3d takes"):
            backbone(wrong)


# -- the published weights --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared: Path) -> I3DBackbone:
    return load(shared / "data" / "i3d" / "i3d_rgb_kinetics400.npz")


@torch.no_grad()
def test_activations_and_logits_are_those_of_the_reference_network(shared: Path, published: I3DBackbone) -> None:
    folder = shared / "data" / "i3d"
    seen: State = {}
    layers = ("Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5c")
    hooks = [
        getattr(published.model.trunk, layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.__setitem__(layer, output)
        )
        for layer in layers
    ]
    with np.load(folder / "i3d_rgb_reference_cricket16.npz") as reference:
        features = published(torch.from_numpy(reference["frames_uint8"])[None])[:, 0]
        for layer in layers:
            scale = float(reference[f"{layer}_absmax"])
            means = seen[layer].mean((2, 3, 4)).numpy()
            assert np.abs(means - reference[f"{layer}_mean"]).max() < 1e-5 * scale
            assert abs(float(seen[layer].abs().max()) - scale) < 1e-5 * scale
        mixed = seen["Mixed_5c"].permute(0, 2, 3, 4, 1).numpy()
        assert np.abs(mixed - reference["Mixed_5c"]).max() < 1e-4 * scale
        assert np.abs(features.numpy() - reference["Mixed_5c_mean"]).max() < 1e-5 * scale
        logits = published.model.logits(features).numpy()
        assert np.abs(logits - reference["logits"]).max() < 1e-4 * np.abs(reference["logits"]).max()
    classes = (folder / "label_map.txt").read_text().splitlines()
    assert classes[int(logits.argmax())] == "playing cricket"
    for hook in hooks:
        hook.remove()


def test_what_the_backbone_says_of_itself(shared: Path, published: I3DBackbone) -> None:
    assert (published.name, published.width, published.clip.frame_rate) == ("i3d", 1024, 25)
    picture = published.picture
    assert (picture.height, picture.width, picture.short, picture.interpolation) == (224, 224, 256, "bilinear")
    assert len(published.weights) == 64 and int(published.weights, 16)
    with pytest.raises(InputError, match="0 frames"):
        load(shared / "data" / "i3d" / "i3d_rgb_kinetics400.npz", frames=0)


# -- pickles ----------------------------------------------------------------------------------------------------------


class Attack:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return shutil.rmtree, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_a_pickle_wants_to_run_is_not_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"params": Attack(victim)}, protocol=protocol))
    with pytest.raises(
        InputError, match=r"bad\.ckpt: not a readable pickle of arrays.*shutil\.rmtree, which is not run"
    ):
        load_model(tmp_path / "bad.ckpt")
    assert victim.is_dir()


@pytest.mark.parametrize(
    "content",
    [
        {"a": np.array([None, {}], dtype=object)},
        {"a": np.arange(6.0).reshape(2, 3).T},
        {"a": np.arange(3)},
        {"a": np.arange(3.0).astype(">f4")},
        {"a": [1.0]},
        {},
        np.float64(3),
    ],
    ids=["objects", "by column", "integers", "big-endian", "list", "nothing", "scalar"],
)
def test_a_pickle_of_anything_but_plain_arrays_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "odd.ckpt").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(InputError, match=r"odd\.ckpt: (not a readable pickle|contains no arrays)"):
        read_tensors(tmp_path / "odd.ckpt")


def test_arrays_pickled_by_an_older_numpy_are_read_and_cut_files_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.ckpt"
    content = pickle.dumps({"params": {"a": {"b": np.arange(6.0).reshape(2, 3)}}}, protocol=3)
    content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    path.write_bytes(content)
    assert torch.equal(read_tensors(path)["params|a|b"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
    for end in (0, 1, 30, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"truncated|not a complete torch file"):
            read_tensors(path)
    with pytest.raises(InputError, match="no such file"):
        read_tensors(tmp_path / "none.ckpt")


def test_foreign_names_are_left_as_they_are() -> None:
    strange = {"encoder.weight": torch.ones(2)}
    assert own_tensors(strange) == strange
