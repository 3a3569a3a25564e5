"""V-JEPA's numbers against `transformers` for 2, and against the public definition in plain loops for 2.1."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keystep.extraction.backbones.vjepa.checkpoint import from_transformers, read_encoder
from keystep.extraction.backbones.vjepa.config import Release, VJEPAConfig
from keystep.extraction.backbones.vjepa.features import VJEPA
from keystep.extraction.backbones.vjepa.model import VJEPAEncoder
from keystep.persistence import load_strict

TOLERANCE = 1e-4
"""Numbers are of size 1 to 5; 2e-5 at most is measured."""


def tiny(release: Release, *, width: int = 40, heads: int = 2, depth: int = 3, size: int = 64) -> VJEPAConfig:
    return VJEPAConfig(
        release=release,
        width=width,
        depth=depth,
        heads=heads,
        hidden=2 * width,
        size=size,
        levels=(depth - 1,) if release == "2" else (0, 2, 3, 4),
        file="none.pt",
        keys=("target_encoder",),
    )


def shaken(module: nn.Module) -> nn.Module:
    """Weights large enough that positions and norms matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.25 * noise)
    return module.eval()


def random_clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def theirs(config: VJEPAConfig, frames: int) -> nn.Module:
    """Their model at our size, with random weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'; make test-all has it")
    settings = transformers.VJEPA2Config(
        crop_size=config.size,
        frames_per_clip=frames,
        hidden_size=config.width,
        num_attention_heads=config.heads,
        num_hidden_layers=config.depth,
        mlp_ratio=2.0,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return shaken(transformers.VJEPA2Model(settings))


def by_transformers(model: nn.Module, clips: Tensor) -> Tensor:
    """(B, N, D)"""
    with torch.no_grad():
        return model(pixel_values_videos=clips.permute(0, 1, 4, 2, 3), skip_predictor=True).last_hidden_state


@pytest.mark.parametrize(("width", "heads", "size"), [(40, 2, 64), (52, 2, 48), (64, 1, 96)])
def test_features_of_2_are_those_of_transformers(tmp_path: Path, width: int, heads: int, size: int) -> None:
    config = tiny("2", width=width, heads=heads, size=size)
    model = theirs(config, 6)
    model.save_pretrained(tmp_path)
    encoder = VJEPAEncoder(config)
    load_strict(encoder, read_encoder(tmp_path, config), str(tmp_path))
    clips = random_clips(2, 6, size, size, 3)
    with torch.no_grad():
        ours = encoder(clips).flatten(1, 3)
    assert (ours - by_transformers(model, clips)).abs().max() < TOLERANCE


def test_their_model_with_our_weights_gives_our_features() -> None:
    config = tiny("2")
    encoder, model = shaken(VJEPAEncoder(config)), theirs(config, 4)
    renamed = {}
    for name, value in encoder.state_dict().items():
        name = name.replace("blocks.", "encoder.layer.").replace(".attn.", ".attention.")
        name = name.replace("patch_embed.", "encoder.embeddings.patch_embeddings.")
        name = f"encoder.layernorm{name.removeprefix('norm')}" if name.startswith("norm.") else name
        parts = ("query", "key", "value")
        pieces = value.chunk(3) if "qkv" in name else (value,)
        for part, piece in zip(parts, pieces, strict=False):
            renamed[name.replace("qkv", part)] = piece
    own = {name: value for name, value in model.state_dict().items() if name.startswith("predictor.")}
    model.load_state_dict(renamed | own)
    assert from_transformers(renamed | own).keys() == encoder.state_dict().keys()
    clips = random_clips(1, 4, 64, 64, 3)
    with torch.no_grad():
        assert (encoder(clips).flatten(1, 3) - by_transformers(model, clips)).abs().max() < TOLERANCE


def test_the_two_kinds_of_rotation_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, clips = shaken(VJEPAEncoder(tiny("2"))), random_clips(1, 4, 64, 64, 3)
    with torch.no_grad():
        tiled = encoder(clips)
        monkeypatch.setattr(VJEPAConfig, "rotary", "relative")
        assert (encoder(clips) - tiled).abs().max() > 0.05


def turned(vector: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    """One head of one token: pair after pair of three chunks, turned by slot, row and column."""
    out = vector.copy()
    width = 2 * (len(vector) // 3 // 2)
    for axis in range(3):
        for pair in range(width // 2):
            angle = place[axis] / 10000 ** (pair / (width / 2))
            at = axis * width + 2 * pair
            a, b = vector[at], vector[at + 1]
            out[at] = a * math.cos(angle) - b * math.sin(angle)
            out[at + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


def normed(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mapped(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attended(x: np.ndarray, places: list, weights: dict[str, np.ndarray], name: str, heads: int) -> np.ndarray:
    """(N, D): softmax over all tokens, one query at a time."""
    query, key, value = np.split(mapped(x, weights, f"{name}.qkv"), 3, axis=1)
    out = np.zeros_like(x)
    for columns in np.split(np.arange(x.shape[1]), heads):
        keys = [turned(key[n, columns], place) for n, place in enumerate(places)]
        for n, place in enumerate(places):
            own = turned(query[n, columns], place)
            powers = [math.exp(float(own @ other) / math.sqrt(len(columns))) for other in keys]
            for power, other in zip(powers, value, strict=True):
                out[n, columns] += power / sum(powers) * other[columns]
    return mapped(out, weights, f"{name}.proj")


def by_the_definition(weights: dict[str, np.ndarray], config: VJEPAConfig, clip: np.ndarray) -> np.ndarray:
    """V-JEPA 2.1 in float64 for one clip (F, H, W, 3): (T, h, w, L * D), all levels' normed outputs."""
    picture = len(clip) == 1
    embedding, modality = ("patch_embed_img", "img_mod_embed") if picture else ("patch_embed", "video_mod_embed")
    tube = 1 if picture else 2
    slots, rows, columns = len(clip) // tube, clip.shape[1] // 16, clip.shape[2] // 16
    tokens, places = [], []
    for slot in range(slots):
        for row in range(rows):
            for column in range(columns):
                pixels = clip[tube * slot :, 16 * row :, 16 * column :][:tube, :16, :16]
                token = np.einsum("dcfhw,fhwc->d", weights[f"{embedding}.proj.weight"], pixels)
                tokens.append(token + weights[f"{embedding}.proj.bias"] + weights[modality][0, 0])
                places.append((slot, row * 15 / (rows - 1), column * 15 / (columns - 1)))
    x, levels = np.stack(tokens), []
    erf = np.vectorize(math.erf)
    for number in range(config.depth):
        name = f"blocks.{number}"
        x = x + attended(normed(x, weights, f"{name}.norm1"), places, weights, f"{name}.attn", config.heads)
        inside = mapped(normed(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
        x = x + mapped(inside * (1 + erf(inside / math.sqrt(2))) / 2, weights, f"{name}.mlp.fc2")
        if number in config.levels:
            levels.append(normed(x, weights, f"norms_block.{config.levels.index(number)}"))
    return np.concatenate(levels, axis=1).reshape(slots, rows, columns, -1)


@pytest.mark.parametrize("shape", [(4, 48, 64), (1, 64, 48)], ids=["video", "picture"])
def test_features_of_2_1_are_those_of_its_definition(shape: tuple[int, int, int]) -> None:
    config = tiny("2.1", depth=5)
    encoder = shaken(VJEPAEncoder(config))
    for name, parameter in encoder.named_parameters():
        if "embed" in name:
            parameter.data *= 0.01  # tokens so faint that the norms' epsilon counts
    clips = random_clips(1, *shape, 3)
    weights = {name: value.double().numpy() for name, value in encoder.state_dict().items()}
    expected = torch.from_numpy(by_the_definition(weights, config, clips[0].double().numpy()))
    with torch.no_grad():
        levels, last = encoder(clips, every_level=True)[0], encoder(clips)[0]
    assert (levels - expected).abs().max() < TOLERANCE
    assert torch.equal(last, levels[..., -config.width :])


@pytest.mark.parametrize("release", ["2", "2.1"])
def test_half_precision_stays_near(release: Release) -> None:
    config = tiny(release, depth=3 if release == "2" else 5)
    encoder = shaken(VJEPAEncoder(config))
    clips = torch.randint(0, 256, (1, 4, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    exact = VJEPA("tiny", "", encoder, frames=4)(clips)
    rough = VJEPA("tiny", "", encoder.bfloat16(), frames=4)(clips)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact, dim=-1).min() > 0.999
