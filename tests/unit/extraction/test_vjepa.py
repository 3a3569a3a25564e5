from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from keystep.errors import InputError
from keystep.extraction.backbone import Backbone, ClipSpec
from keystep.extraction.backbones import vjepa
from keystep.extraction.backbones.vjepa.config import MODELS, Release, VJEPAConfig
from keystep.extraction.backbones.vjepa.model import VJEPAEncoder
from keystep.extraction.backbones.weights import file_hash

TENSORS = {"vjepa2-l": 292, "vjepa2-g": 484, "vjepa2.1-b": 158, "vjepa2.1-l": 302, "vjepa2.1-g": 494, "vjepa2.1-G": 590}
"""Those of 2.1-b and 2.1-l were counted by others in the published files; the others follow from the definition."""

MILLIONS = {
    "vjepa2-l": 300,
    "vjepa2-h": 600,
    "vjepa2-g": 1000,
    "vjepa2-g-384": 1000,
    "vjepa2.1-b": 80,
    "vjepa2.1-l": 300,
    "vjepa2.1-g": 1000,
    "vjepa2.1-G": 2000,
}
"""Parameters, as rounded in the publication's README."""


def expected_shapes(release: Release, width: int, depth: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The published names, written down by hand."""
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (width, 3, 2, 16, 16)}
    shapes["patch_embed.proj.bias"] = (width,)
    for number in range(depth):
        for name, into, out in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, hidden),
            ("mlp.fc2", hidden, width),
        ):
            shapes[f"blocks.{number}.{name}.weight"] = (out, into)
            shapes[f"blocks.{number}.{name}.bias"] = (out,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{number}.{norm}.{part}": (width,) for part in ("weight", "bias")}
    if release == "2":
        return shapes | {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {f"norms_block.{level}.{part}": (width,) for level in range(4) for part in ("weight", "bias")}
    shapes |= {"patch_embed_img.proj.weight": (width, 3, 1, 16, 16), "patch_embed_img.proj.bias": (width,)}
    return shapes | {"img_mod_embed": (1, 1, width), "video_mod_embed": (1, 1, width)}


SIZES = {
    "vjepa2-l": ("2", 1024, 24, 4096),
    "vjepa2-h": ("2", 1280, 32, 5120),
    "vjepa2-g": ("2", 1408, 40, 6144),
    "vjepa2-g-384": ("2", 1408, 40, 6144),
    "vjepa2.1-b": ("2.1", 768, 12, 3072),
    "vjepa2.1-l": ("2.1", 1024, 24, 4096),
    "vjepa2.1-g": ("2.1", 1408, 40, int(1408 * 48 / 11)),
    "vjepa2.1-G": ("2.1", 1664, 48, int(1664 * 64 / 13)),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_published_model_has_the_published_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        own = {key: tuple(value.shape) for key, value in VJEPAEncoder(MODELS[name]).state_dict().items()}
    assert own == expected_shapes(*SIZES[name])
    assert len(own) == TENSORS.get(name, len(own))
    count = sum(torch.Size(shape).numel() for shape in own.values())
    assert count == pytest.approx(MILLIONS[name] * 1e6, rel=0.1)
    assert MODELS[name].head_dim == (80 if name == "vjepa2-h" else 64)


def tiny(release: Release) -> VJEPAConfig:
    return VJEPAConfig(
        release=release,
        width=24,
        depth=4,
        heads=1,
        hidden=32,
        size=64,
        levels=(3,) if release == "2" else (0, 1, 2, 3),
        file="tiny.pt",
        keys=("target_encoder", "encoder") if release == "2" else ("ema_encoder",),
    )


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "two", tiny("2"))
    monkeypatch.setitem(MODELS, "two-one", tiny("2.1"))


def published(release: Release, seed: int = 0) -> dict[str, Tensor]:
    """A random state dict as training wrote it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = VJEPAEncoder(tiny(release)).state_dict()
        return {f"module.backbone.{name}": value + 0.1 * torch.randn(value.shape) for name, value in tensors.items()}


def write(path: Path, release: Release, change: Callable[[dict[str, Tensor]], object] = len) -> Path:
    """A checkpoint with what stands beside the weights too."""
    wanted = published(release)
    change(wanted)
    key = tiny(release).keys[0]
    beside = {"encoder": published(release, 1), "predictor": {"module.backbone.mask": torch.ones(2)}, "epoch": 40}
    torch.save(beside | {key: wanted, "opt": {"state": {0: {"step": torch.ones(1)}}}, "loss": 0.5}, path)
    return path


def random_clips(count: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, frames, 64, 64, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("name", "release"), [("two", "2"), ("two-one", "2.1")])
def test_a_checkpoint_becomes_a_backbone_with_one_vector_for_two_frames(
    tmp_path: Path, name: str, release: Release
) -> None:
    path = write(tmp_path / "a.pt", release)
    backbone: Backbone = vjepa.load(name, path, frames=8)
    assert (backbone.name, backbone.weights, backbone.width) == (name, file_hash(path), 24)
    assert backbone.clip == ClipSpec(frames=8, slots=4)
    features = backbone(random_clips(3, 8))
    assert (features.shape, features.dtype) == ((3, 4, 24), torch.float32)
    assert bool(features.isfinite().all()) and not features.requires_grad
    own = vjepa.load(name, path, frames=8).encoder.state_dict()
    assert all(torch.equal(own[key.removeprefix("module.backbone.")], v) for key, v in published(release).items())


def test_features_are_means_of_normalised_clips_patches(tmp_path: Path) -> None:
    backbone = vjepa.load("two-one", write(tmp_path / "a.pt", "2.1"), frames=4)
    clips = random_clips(2, 4)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        dense = backbone.encoder((clips / 255 - mean) / deviation)  # (B, T, h, w, D)
    torch.testing.assert_close(backbone(clips), dense.mean(dim=(2, 3)), atol=1e-5, rtol=0)


def test_a_grid_keeps_cells_row_by_row_and_levels_stand_side_by_side(tmp_path: Path) -> None:
    path, clips = write(tmp_path / "a.pt", "2.1"), random_clips(1, 4)
    whole = vjepa.load("two-one", path, frames=4)
    cells = vjepa.load("two-one", path, frames=4, grid=2)
    levels = vjepa.load("two-one", path, frames=4, grid=2, levels="all")
    assert (cells.width, levels.width) == (4 * 24, 4 * 4 * 24)
    last = cells(clips).unflatten(2, (4, 24))
    torch.testing.assert_close(last.mean(2), whole(clips), atol=1e-5, rtol=0)
    torch.testing.assert_close(levels(clips).unflatten(2, (4, 4, 24))[:, :, :, 3], last, atol=1e-6, rtol=0)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        dense = whole.encoder((clips / 255 - mean) / deviation)
    torch.testing.assert_close(last[:, :, 1], dense[:, :, :2, 2:].mean(dim=(2, 3)), atol=1e-5, rtol=0)


def test_single_pictures_have_an_embedding_of_their_own_in_2_1(tmp_path: Path) -> None:
    backbone = vjepa.load("two-one", write(tmp_path / "a.pt", "2.1"), frames=1)
    assert backbone.clip == ClipSpec()
    assert backbone(random_clips(3, 1)).shape == (3, 1, 24)


@pytest.mark.parametrize(("name", "release"), [("two", "2"), ("two-one", "2.1")])
def test_clips_do_not_influence_each_other(tmp_path: Path, name: str, release: Release) -> None:
    backbone, clips = vjepa.load(name, write(tmp_path / "a.pt", release), frames=4), random_clips(3, 4)
    together = backbone(clips)
    alone = torch.cat([backbone(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    changed = clips.clone()
    changed[1] = 255 - changed[1]
    assert torch.equal(backbone(changed)[[0, 2]], together[[0, 2]])


class LargestResult(TorchDispatchMode):
    """Remembers the largest result of any operation."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        for result in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(result, Tensor):
                self.largest = max(self.largest, result.numel())
        return out


def test_no_matrix_of_tokens_times_tokens_is_made() -> None:
    encoder = VJEPAEncoder(replace(tiny("2.1"), size=256)).eval()
    frames, tokens = 16, 8 * 16 * 16
    with torch.no_grad(), LargestResult() as mode:
        encoder(torch.zeros(1, frames, 256, 256, 3))
    assert mode.largest <= frames * 256 * 256 * 3 < tokens**2


def test_pictures_are_prepared_as_in_the_evaluations() -> None:
    for name, short, size in (("vjepa2-l", 292, 256), ("vjepa2-g-384", 438, 384), ("vjepa2.1-b", 438, 384)):
        picture = MODELS[name].picture
        assert (picture.short, picture.height, picture.width) == (short, size, size)
        assert picture.interpolation == "bilinear"


def test_positions_that_the_network_does_not_use_are_left_out_of_2_and_refused_in_2_1(tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["module.backbone.pos_embed"] = torch.zeros(1, 16, 24)

    vjepa.load("two", write(tmp_path / "a.pt", "2", add))
    with pytest.raises(InputError, match=r"1 unexpected \(pos_embed\)"):
        vjepa.load("two-one", write(tmp_path / "b.pt", "2.1", add))


BAD_WEIGHTS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (lambda tensors: tensors.pop("module.backbone.video_mod_embed"), r"1 missing \(video_mod_embed\)"),
    (lambda tensors: tensors.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
    (lambda tensors: tensors.update({"module.backbone.img_mod_embed": torch.zeros(1, 1, 5)}), r"img_mod_embed is \(1,"),
]


@pytest.mark.parametrize(("change", "line"), BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        vjepa.load("two-one", write(tmp_path / "a.pt", "2.1", change))


def test_files_of_the_other_release_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no 'ema_encoder'"):
        vjepa.load("two-one", write(tmp_path / "a.pt", "2"))
    path = tmp_path / "b.pt"
    torch.save({"encoder": published("2.1")}, path)
    with pytest.raises(InputError, match=r"2 missing \(norm\.bias, .*; 12 unexpected"):
        vjepa.load("two", path)


BAD_SETTINGS = [
    ("three", {}, "unknown V-JEPA model 'three'; expected one of vjepa2-l, "),
    ("two", {"frames": 7}, "an even number of frames, at least 4, not 7"),
    ("two-one", {"frames": 2}, "an even number of frames, at least 4, not 2"),
    ("two", {"frames": 1}, "does not support single pictures"),
    ("two", {"levels": "all"}, "has only one level"),
    ("two-one", {"levels": "first"}, "expected 'last' or 'all'"),
    ("two-one", {"grid": 3}, r"4 x 4 patches cannot be divided into a grid of 3; choose one of \[1, 2, 4\]"),
]


@pytest.mark.parametrize(("name", "settings", "line"), BAD_SETTINGS)
def test_settings_that_a_model_has_not_are_refused_before_the_weights_are_read(
    tmp_path: Path, name: str, settings: dict, line: str
) -> None:
    with pytest.raises(InputError, match=line):
        vjepa.load(name, tmp_path / "absent.pt", **settings)


def hf_folder(path: Path, **changes: object) -> Path:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'; make test-all has it")
    sizes = {"hidden_size": 24, "num_attention_heads": 1, "num_hidden_layers": 4, "mlp_ratio": 32 / 24}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 1}
    config = transformers.VJEPA2Config(**({"crop_size": 64, **sizes, **predictor} | changes))
    transformers.VJEPA2Model(config).save_pretrained(path, max_shard_size="100KB")
    return path


def test_folders_of_transformers_load_from_several_files(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "hf")
    assert len(list(folder.glob("*.safetensors"))) > 1
    backbone = vjepa.load("two", folder, frames=4)
    assert len(backbone.weights) == 64
    assert backbone(random_clips(1, 4)).shape == (1, 2, 24)


def test_folders_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="crop_size is 48, but 64 in the requested model"):
        vjepa.load("two", hf_folder(tmp_path / "size", crop_size=48))
    with pytest.raises(InputError, match="num_attention_heads is 2, but 1"):
        vjepa.load("two", hf_folder(tmp_path / "heads", num_attention_heads=2))
    with pytest.raises(InputError, match=r"V-JEPA 2\.1 is published as tiny\.pt"):
        vjepa.load("two-one", hf_folder(tmp_path / "release"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        vjepa.load("two", tmp_path / "empty")
