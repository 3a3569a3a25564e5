"""The authors' model as slow loops in float64, written from the description in OFFICIAL.md and from nothing in keystep.

``python tests/interop/reference.py`` writes `reference.safetensors` again: random weights and inputs, and what this
file makes of them. `test_reference.py` holds keystep, and this file, to those numbers; where the authors' own golden
tensors are at hand, it holds this file to them too.
"""

from __future__ import annotations

from math import erf
from pathlib import Path

import numpy as np

STORED = Path(__file__).with_name("reference.safetensors")
Weights = dict[str, np.ndarray]
SIZES = {"d_in": 5, "d_model": 20, "enc_depth": 2, "enc_heads": 2, "pred_depth": 1, "pred_heads": 2}
"""Heads 10 wide: rotary chunks of 4 and 6."""
MODES = ("bidirectional", "causal", "block_causal", "clip_causal")
ROPES = ("1d_flat", "2d_clip_frame")
BLOCK = 4
LENGTHS = (14, 9)
SEGMENTS = ((3, 1, 6, 4), (5, 4, 0, 0))


def architecture(mode: str, rope: str) -> dict[str, object]:
    """The ten settings of one of the eight models."""
    modes = {"student_encoder_attention": mode, "student_encoder_block_size": BLOCK, "rope_mode": rope}
    return SIZES | {"drop_path_prob": 0.0} | modes


def encode(weights: Weights, video: np.ndarray, visible: np.ndarray, settings: dict, segments: tuple) -> np.ndarray:
    """(T, d_model) of one video (T, d_in) without padding; zeros where not ``visible`` (T,)."""
    x = layer_norm(video.astype(np.float64), weights, "student_enc.proj.0")
    x = linear(x, weights, "student_enc.proj.1")
    places = positions(len(video), str(settings["rope_mode"]), segments)
    mode, size = str(settings["student_encoder_attention"]), int(settings["student_encoder_block_size"])
    allowed = may_see(len(video), mode, segments, size) & visible[None] & visible[:, None]
    for index in range(int(settings["enc_depth"])):
        x = block(x, weights, f"student_enc.blocks.{index}", int(settings["enc_heads"]), places, allowed)
    return layer_norm(x, weights, "student_enc.norm") * visible[:, None]


def predict(weights: Weights, latents: np.ndarray, hidden: np.ndarray, settings: dict, segments: tuple) -> np.ndarray:
    """(T, d_model) predictions from the context's latents (T, d_model), zeros where nothing was seen."""
    x = np.where(hidden[:, None], weights["mask_token"][0], latents)
    places = positions(len(x), str(settings["rope_mode"]), segments)
    allowed = may_see(len(x), "causal", segments)
    for index in range(int(settings["pred_depth"])):
        x = block(x, weights, f"predictor.blocks.{index}", int(settings["pred_heads"]), places, allowed)
    return layer_norm(x, weights, "predictor.norm")


def block(x: np.ndarray, weights: Weights, name: str, heads: int, places: list, allowed: np.ndarray) -> np.ndarray:
    normed = layer_norm(x, weights, f"{name}.norm1")
    mixed = np.zeros_like(x)
    qkv = linear(normed, weights, f"{name}.attn.qkv")
    dim = x.shape[1]
    width = dim // heads
    for head in range(heads):
        query, key, value = (qkv[:, part * dim + head * width :][:, :width] for part in range(3))
        query = np.stack([turn(row, place) for row, place in zip(query, places, strict=True)])
        key = np.stack([turn(row, place) for row, place in zip(key, places, strict=True)])
        for token in range(len(x)):
            seen = np.flatnonzero(allowed[token])
            if len(seen):
                scores = np.array([query[token] @ key[other] for other in seen]) / width**0.5
                shares = np.exp(scores - scores.max())
                mixed[token, head * width : (head + 1) * width] = shares / shares.sum() @ value[seen]
    x = x + linear(mixed, weights, f"{name}.attn.proj")
    inner = linear(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    gelu = inner * (1 + np.vectorize(erf)(inner / 2**0.5)) / 2
    return x + linear(gelu, weights, f"{name}.mlp.fc2")


def turn(row: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """One head's vector at its place: two chunks, angles tiled, partners interleaved, the rest untouched."""
    out = row.copy()
    width = len(row)
    first = 2 * (width // 2 // 2)
    second = 2 * ((width - first) // 2)
    for start, size, position in ((0, first, place[0]), (first, second, place[1])):
        for m in range(size):
            angle = position * 10000.0 ** (-2 * (m % (size // 2)) / size)
            partner = -row[start + m + 1] if m % 2 == 0 else row[start + m - 1]
            out[start + m] = row[start + m] * np.cos(angle) + partner * np.sin(angle)
    return out


def positions(length: int, rope: str, segments: tuple) -> list[tuple[int, int]]:
    if rope == "1d_flat":
        return [(index, index) for index in range(length)]
    return [(number, frame) for number, size in enumerate(segments) for frame in range(size)]


def may_see(length: int, mode: str, segments: tuple, size: int = BLOCK) -> np.ndarray:
    """(T, T) bool, queries down, keys across."""
    if mode == "clip_causal":
        ranks = np.repeat(np.arange(len(segments)), segments)
    else:
        ranks = np.arange(length) // {"bidirectional": length, "causal": 1, "block_causal": size}[mode]
    return ranks[None, :] <= ranks[:, None]


def layer_norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    scale = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def random_weights(rng: np.random.Generator) -> Weights:
    """Every tensor of the state dict, float32."""
    d_in, dim = int(SIZES["d_in"]), int(SIZES["d_model"])
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, dim)}

    def layer(name: str, out: int, width: int | None = None) -> None:
        shapes[f"{name}.weight"] = (out,) if width is None else (out, width)
        shapes[f"{name}.bias"] = (out,)

    layer("student_enc.proj.0", d_in)
    layer("student_enc.proj.1", dim, d_in)
    for trunk, depth in (("student_enc", SIZES["enc_depth"]), ("predictor", SIZES["pred_depth"])):
        for index in range(depth):
            name = f"{trunk}.blocks.{index}"
            layer(f"{name}.norm1", dim)
            layer(f"{name}.attn.qkv", 3 * dim, dim)
            layer(f"{name}.attn.proj", dim, dim)
            layer(f"{name}.norm2", dim)
            layer(f"{name}.mlp.fc1", 4 * dim, dim)
            layer(f"{name}.mlp.fc2", dim, 4 * dim)
        layer(f"{trunk}.norm", dim)
    gains = {name for name in shapes if "norm" in name or "proj.0" in name}
    return {
        name: (rng.normal(scale=0.3, size=shape) + (name in gains and name.endswith("weight"))).astype(np.float32)
        for name, shape in shapes.items()
    }


def outputs(weights: Weights, features: np.ndarray, hidden: np.ndarray, mode: str, rope: str) -> dict[str, np.ndarray]:
    """encode, context and predictions of the two videos, (2, T, d_model) each, zeros at padding."""
    settings = architecture(mode, rope)
    found = {part: np.zeros((*features.shape[:2], SIZES["d_model"])) for part in ("encode", "context", "predictions")}
    for row, (length, lengths) in enumerate(zip(LENGTHS, SEGMENTS, strict=True)):
        video, dark = features[row, :length], hidden[row, :length]
        found["encode"][row, :length] = encode(weights, video, np.ones(length, bool), settings, lengths)
        context = encode(weights, video, ~dark, settings, lengths)
        found["context"][row, :length] = context
        found["predictions"][row, :length] = predict(weights, context, dark, settings, lengths)
    return found


def main() -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(2606)
    weights = random_weights(rng)
    features = rng.normal(size=(2, max(LENGTHS), SIZES["d_in"])).astype(np.float32)
    hidden = rng.random((2, max(LENGTHS))) < 0.6
    hidden &= np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    stored = {f"weights/{name}": value for name, value in weights.items()} | {"features": features, "hidden": hidden}
    for mode in MODES:
        for rope in ROPES:
            for part, value in outputs(weights, features, hidden, mode, rope).items():
                stored[f"{mode}/{rope}/{part}"] = value.astype(np.float32)
    save_file(stored, STORED)


if __name__ == "__main__":
    main()
