"""Small random models of the library, saved into folders with settings written by hand, and loaded back from there."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

from keystep.errors import InputError
from keystep.extraction.backbones import hub
from keystep.extraction.backbones.hub import from_transformers

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")

SIZE = 32
SETTINGS = {
    "size": {"shortest_edge": 40},
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}
TINY = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 16, "image_size": SIZE, "patch_size": 16}
SaveModel = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> SaveModel:
    """Writes a model and settings into a folder, as ``save_pretrained`` and a processor's do."""

    def write(model: Any, settings: dict | None = None, file: str = "preprocessor_config.json") -> Path:
        folder = tmp_path / "my-model"
        model.save_pretrained(folder)
        (folder / file).write_text(json.dumps(SETTINGS if settings is None else settings))
        return folder

    return write


def make(kind: str, layers: int = 1, **options: Any) -> Any:
    """A model by its class's name without "Model", with its configuration's class beside it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.removesuffix('Vision')}{'Vision' * kind.endswith('Vision')}Config")
    sizes = {} if kind in ("ResNet", "ConvNext") else TINY | {"num_hidden_layers": layers}
    return spread(getattr(transformers, f"{kind}Model")(config(**sizes | options)))


def spread(model: Any) -> Any:
    """Random numbers for all weights, so that no zeros and no pooled constants hide a mistake."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def random_clips(frames: int = 1, number: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, frames, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)


def normalised(clips: Tensor) -> Tensor:
    """(n, F, 3, H, W), as the settings say."""
    mean, deviation = torch.tensor(SETTINGS["image_mean"]), torch.tensor(SETTINGS["image_std"])
    return ((clips / 255 - mean) / deviation).permute(0, 1, 4, 2, 3)


def check_pictures(folder: Path, expected: Tensor) -> None:
    backbone = from_transformers(folder)
    found = backbone(random_clips())
    assert found.shape == (2, 1, backbone.width) and (found[0] - found[1]).abs().max() > 1e-3
    torch.testing.assert_close(found[:, 0], expected, atol=1e-4, rtol=1e-4)


PARTS = {"vision_config": TINY | {"num_hidden_layers": 1}, "text_config": {"num_hidden_layers": 1, "vocab_size": 50}}
SMALL_TEXT = {**PARTS["text_config"], "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
@torch.no_grad()
def test_of_models_of_pictures_and_texts_the_picture_side_is_taken(save: SaveModel, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(vision_config=PARTS["vision_config"], text_config=SMALL_TEXT)
    model = spread(getattr(transformers, f"{kind}Model")(config))
    expected = model.vision_model(pixel_values=normalised(random_clips())[:, 0]).pooler_output
    check_pictures(save(model), expected)


@pytest.mark.parametrize("kind", ["CLIPVision", "SiglipVision", "Dinov2", "DINOv3ViT", "ViT"])
@torch.no_grad()
def test_transformers_of_pictures_give_their_pooled_output(save: SaveModel, kind: str) -> None:
    model = make(kind)
    check_pictures(save(model), model(normalised(random_clips())[:, 0]).pooler_output)


@pytest.mark.parametrize("kind", ["ResNet", "ConvNext"])
@torch.no_grad()
def test_convolutional_networks_give_their_pooled_output(save: SaveModel, kind: str) -> None:
    options: dict = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
    model = make(kind, **options | ({"embedding_size": 8} if kind == "ResNet" else {}))
    expected = model(normalised(random_clips())[:, 0]).pooler_output.flatten(1)
    assert expected.shape == (2, 12)
    check_pictures(save(model), expected)


@torch.no_grad()
def test_a_pooling_that_was_never_trained_is_not_used(save: SaveModel) -> None:
    """The library would fill it with random numbers, other ones each time."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(**TINY, num_hidden_layers=1)
    model = spread(transformers.ViTModel(config, add_pooling_layer=False))
    folder = save(model)
    check_pictures(folder, model(normalised(random_clips())[:, 0]).last_hidden_state[:, 0])
    assert torch.equal(from_transformers(folder)(random_clips()), from_transformers(folder)(random_clips()))


@torch.no_grad()
def test_without_pooling_and_class_token_it_is_the_mean(save: SaveModel) -> None:
    model = make("SiglipVision", vision_use_head=False)
    check_pictures(save(model), model(normalised(random_clips())[:, 0]).last_hidden_state.mean(1))


VIDEO_MODELS = {
    "VideoMAE": (2, {"num_frames": 6}),
    "Timesformer": (1, {"num_frames": 3}),
    "Vivit": (2, {"num_frames": 6, "tubelet_size": [2, 16, 16]}),
    "VJEPA2": (
        2,
        {
            "frames_per_clip": 6,
            "crop_size": SIZE,
            "pred_hidden_size": 12,
            "pred_num_attention_heads": 1,
            "pred_num_hidden_layers": 1,
            "pred_num_mask_tokens": 1,
        },
    ),
}


@pytest.mark.parametrize("kind", VIDEO_MODELS)
def test_a_slot_of_a_video_model_is_of_its_own_frames(save: SaveModel, kind: str) -> None:
    """Without layers nothing mixes the patches, so that a changed frame must move its own slot and no other."""
    depth, options = VIDEO_MODELS[kind]
    backbone = from_transformers(save(make(kind, layers=0, **options)))
    frames = 3 * depth
    assert (backbone.clip.frames, backbone.clip.slots, backbone.clip.frame_rate) == (frames, 3, None)
    clips = random_clips(frames)
    features = backbone(clips)
    for frame in range(frames):
        changed = clips.clone()
        changed[:, frame] = 255 - changed[:, frame]
        moved = (backbone(changed) - features).abs().amax((0, 2)) > 1e-5
        assert moved.tolist() == [slot == frame // depth for slot in range(3)]


@pytest.mark.parametrize("kind", VIDEO_MODELS)
@torch.no_grad()
def test_the_mean_over_slots_is_that_over_all_patches(save: SaveModel, kind: str) -> None:
    depth, options = VIDEO_MODELS[kind]
    model = make(kind, **options)
    clips = random_clips(3 * depth)
    inputs = normalised(clips)
    hidden = (model(inputs, skip_predictor=True) if kind == "VJEPA2" else model(inputs)).last_hidden_state
    patches = hidden[:, 1:] if kind in ("Timesformer", "Vivit") else hidden
    assert patches.shape[1] == 3 * (SIZE // 16) ** 2
    found = from_transformers(save(model))(clips)
    torch.testing.assert_close(found.mean(1), patches.mean(1), atol=1e-4, rtol=1e-4)


def test_the_folder_says_how_pictures_are_wanted(save: SaveModel) -> None:
    backbone = from_transformers(save(make("ViT")))
    picture = backbone.picture
    assert (picture.height, picture.width, picture.short, picture.interpolation) == (SIZE, SIZE, 40, "bicubic")
    assert backbone.name == "my-model" and backbone.width == 24


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("video_preprocessor_config.json", SETTINGS),
        ("processor_config.json", {"processor_class": "CLIPProcessor", "image_processor": SETTINGS}),
    ],
)
def test_settings_are_found_under_their_other_names(save: SaveModel, file: str, settings: dict) -> None:
    assert from_transformers(save(make("ViT"), settings, file)).picture.short == 40


def test_the_identity_is_that_of_the_weights_and_not_of_the_file(save: SaveModel) -> None:
    model = make("ViT")
    first = from_transformers(save(model)).weights
    path = save(model) / "model.safetensors"
    tensors = load_file(path)
    save_file(dict(reversed(tensors.items())), path, metadata={"format": "pt", "note": "written anew"})
    assert from_transformers(path.parent).weights == first
    save_file(tensors | {"layernorm.bias": tensors["layernorm.bias"] + 1e-5}, path, metadata={"format": "pt"})
    assert from_transformers(path.parent).weights != first


def test_weights_that_are_missing_are_refused_and_not_made_up(save: SaveModel) -> None:
    path = save(make("ViT")) / "model.safetensors"
    tensors = load_file(path)
    del tensors["layernorm.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, such as layernorm\.bias"):
        from_transformers(path.parent)


def one_line(folder: Path | str, line: str) -> None:
    with pytest.raises(InputError, match=line) as info:
        from_transformers(folder)
    assert "\n" not in str(info.value) and "my-model" in str(info.value)


def test_models_that_take_other_pictures_or_texts_are_refused(save: SaveModel) -> None:
    one_line(save(make("ViT"), SETTINGS | {"crop_size": 24}), "does not take pictures of 24 x 24 alone")
    torch.manual_seed(0)
    text = transformers.BertModel(transformers.BertConfig(**SMALL_TEXT))
    one_line(save(text), "this bert model does not take pictures")


def test_folders_without_settings_or_model_are_refused(save: SaveModel) -> None:
    folder = save(make("ViT"))
    (folder / "model.safetensors").write_bytes(b"cut off")
    one_line(folder, "cannot be loaded as a model of transformers")
    (folder / "config.json").unlink()
    one_line(folder, "cannot be loaded as a model of transformers")
    (folder / "preprocessor_config.json").unlink()
    one_line(folder, "no preprocessor_config.json")


def test_an_id_that_cannot_be_fetched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("no network\nand nothing in the cache")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    one_line("somebody/my-model", "cannot be downloaded: no network and nothing")
    monkeypatch.undo()
    one_line("no such/my-model at all", "neither a folder nor a model that can be downloaded")


def test_without_the_extra_the_line_names_it(save: SaveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(make("ViT"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    one_line(folder, r"pip install 'keystep\[hf\]'")
