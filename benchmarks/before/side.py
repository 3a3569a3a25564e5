"""What one side does beyond its command line, by names that stay: it runs with that side's ``src`` on the path.

python side.py data OUT             made-up videos in the MS-TCN layout
python side.py library FIRST OUT    library calls on the models in FIRST, as OUT/*.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

REFERENCE = Path(__file__).parents[2] / "tests" / "support" / "reference.safetensors"
SIZES = {"d_in": 5, "d_model": 20, "enc_depth": 2, "enc_heads": 2, "pred_depth": 1, "pred_heads": 2}
LENGTHS, SEGMENTS = (14, 9), ((3, 1, 6, 4), (5, 4, 0, 0))
"""As in tests/support/reference.py, which wrote `REFERENCE`."""


def make_data(out: Path) -> None:
    """Twelve short videos, and a long one beside them for what is timed."""
    from keystep.data import synthetic

    small = {"train_videos": 6, "valid_videos": 2, "test_videos": 4, "min_frames": 200, "max_frames": 400}
    synthetic.generate(out, synthetic.SyntheticConfig(seed=1, feature_dim=16, **small))
    long = {"train_videos": 1, "valid_videos": 1, "test_videos": 1, "min_frames": 6000, "max_frames": 6000}
    synthetic.generate(
        out.with_name(out.name + "-long"), synthetic.SyntheticConfig(seed=2, feature_dim=16, step_seconds=20, **long)
    )


def call_library(first: Path, out: Path) -> None:
    """Whole videos, chunks of a stream, scores, and the authors' models."""
    out.mkdir()
    data = first / "data" / "features"
    videos = [np.load(path).T for path in sorted(data.glob("*.npy"))[:3]]
    features, valid = padded(videos)
    found: dict[str, Any] = {}
    with torch.no_grad():
        for name in ("tiny", "paper", "window", "segments"):
            model = load(first / f"pretrain-{name}")
            found |= {f"{name}/{key}": value for key, value in encoded(model, features, valid).items()}
            if name != "segments":
                found[f"{name}/streamed"] = streamed(model, features[:1, : len(videos[0])])
        save_file({name: value.numpy().copy() for name, value in found.items()}, out / "models.safetensors")
        save_file(authors(out), out / "authors.safetensors")
    save_file(scores(), out / "scores.safetensors")


def load(run: Path) -> Any:
    import keystep

    return keystep.PJEPA.from_pretrained(run / "model").eval()


def padded(videos: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, D_in) with zeros at padding, and (B, T) bool."""
    longest = max(len(video) for video in videos)
    features = np.stack([np.pad(video, ((0, longest - len(video)), (0, 0))) for video in videos])
    valid = np.stack([np.arange(longest) < len(video) for video in videos])
    return torch.from_numpy(features), torch.from_numpy(valid)


def encoded(model: Any, features: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Latents by every attention that such a model can be asked for."""
    own = model.config.attention
    lengths = valid.sum(1)
    segments = torch.stack([lengths // 3, lengths // 2 - lengths // 3, lengths - lengths // 2], dim=1)
    given = segments if own.kind == "segment_causal" else None
    found = {"own": model.encode(features, valid, given)}
    if given is None:
        for name, change in {
            "causal": {"kind": "causal", "block": None},
            "window": {"kind": "causal", "block": None, "window": 20},
            "blocks": {"kind": "block_causal", "block": 24},
        }.items():
            plain = type(own)(**change)
            found[name] = model.encode(features, valid, pattern=plain)
        found["stream"] = model.encode(features, valid, pattern=model.config.stream_attention)
    return found


def streamed(model: Any, features: torch.Tensor) -> torch.Tensor:
    """The latents of one video in chunks of changing length."""
    from keystep import stream

    state, parts, start = stream.init(model), [], 0
    for size in (1, 7, 64, 3, 100, 1000):
        if start < features.shape[1]:
            latents, state = stream.step(model, features[:, start : start + size], state)
            parts.append(latents)
            start += size
    last = stream.finish(model, state)
    parts.append(last[0] if isinstance(last, tuple) else last)
    return torch.cat(parts, dim=1)


def authors(scratch: Path) -> dict[str, np.ndarray]:
    """The authors' layout of weights through `interop.official.load`: latents, and how far the reference's are."""
    from keystep.interop import official

    stored = load_file(REFERENCE)
    theirs = {name.removeprefix("weights/"): torch.from_numpy(stored[name]) for name in stored if "weights/" in name}
    features = torch.from_numpy(stored["features"])
    valid = torch.arange(features.shape[1]) < torch.tensor(LENGTHS)[:, None]
    found = {}
    torch.save(theirs, scratch / "authors.pt")
    for mode in ("bidirectional", "causal", "block_causal", "clip_causal"):
        for rope in ("1d_flat", "2d_clip_frame"):
            modes = {"student_encoder_attention": mode, "student_encoder_block_size": 4, "rope_mode": rope}
            model = official.load(scratch / "authors.pt", SIZES | {"drop_path_prob": 0.0} | modes)
            latents = model.encode(features, valid, torch.tensor(SEGMENTS)).numpy()
            found[f"{mode}/{rope}"] = latents
            near = bool(np.abs(latents - stored[f"{mode}/{rope}/encode"]).max() <= 2e-5)
            found[f"claim: {mode}/{rope} within 2e-5 of the reference"] = np.array(near)
    return found


def scores() -> dict[str, np.ndarray]:
    """The metrics of made-up predictions, protocol by protocol."""
    from keystep.evals.metrics import segmentation_scores

    rng = np.random.default_rng(5)
    truths = [np.repeat(rng.integers(0, 5, 30), rng.integers(1, 20, 30)) for _ in range(4)]
    predictions = [np.where(rng.random(len(truth)) < 0.2, rng.integers(0, 5, len(truth)), truth) for truth in truths]
    found = {}
    for background in ((), (0,)):
        for name, value in segmentation_scores(predictions, truths, background=background).items():
            found[f"background {background}/{name}"] = np.array(value)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "data":
        make_data(Path(sys.argv[2]))
    else:
        call_library(Path(sys.argv[2]), Path(sys.argv[3]))
