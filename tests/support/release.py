"""Small feature archives and manifests in the exact layouts of the authors' release: a helper of tests."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Rows = Sequence[Mapping[str, Any]]


def fact_times(count: int) -> np.ndarray:
    """(count,) float32 seconds that alternate by 0.2 and 0.3 s, as in FACT's features: 0, 0.2, 0.5, 0.7, 1.0, ..."""
    return (np.array([5 * (slot // 2) + 2 * (slot % 2) for slot in range(count)]) / 10).astype(np.float32)


def regular_times(count: int, rate: float) -> np.ndarray:
    """(count,) float32 seconds at a regular rate."""
    return (np.arange(count) / rate).astype(np.float32)


def packed(
    videos: Mapping[str, np.ndarray], width: int = 4, dtype: torch.dtype = torch.float32, **more: Any
) -> dict[str, Any]:
    """The dictionary of a packed archive; ``videos`` gives each path its (T,) times. ``more`` replaces any key.

    Column 0 of the features is the row number in the archive, column 1 the number of the video.
    """
    lengths = [len(times) for times in videos.values()]
    total = sum(lengths)
    tokens = np.random.default_rng(0).normal(size=(total, width))
    tokens[:, 0] = np.arange(total)
    tokens[:, 1] = np.repeat(np.arange(len(lengths)), lengths)
    return {
        "version": "egoprocel_fact_npy_frame_pt_v1",
        "feature_dim": width,
        "video_paths": [path.replace(".pt", ".mp4") for path in videos],
        "paths": list(videos),
        "tokens": torch.from_numpy(tokens).to(dtype),
        "times": torch.from_numpy(np.concatenate([*videos.values(), np.zeros(0)]).astype(np.float32)),
        "offsets": torch.from_numpy(np.cumsum([0, *lengths])).long(),
        **more,
    }


def surgical(videos: Mapping[str, np.ndarray], labels: Sequence[int], **more: Any) -> dict[str, Any]:
    """The dictionary of a surgical archive."""
    payload = packed({f"{name}.pt": times for name, times in videos.items()})
    del payload["version"], payload["video_paths"]
    payload |= {
        "dataset": "cholec80",
        "video_ids": list(videos),
        "source_splits": ["train"] * len(videos),
        "nominal_times": payload["times"].clone(),
        "frame_indices": torch.arange(len(payload["tokens"])),
        "phase_labels": torch.tensor(labels),
        "phase_class_names": ["Preparation", "Dissection", "Packaging"],
        "target_fps": 1.0,
    }
    return payload | more


def write_lemon(folder: Path, videos: Mapping[str, int], shard_size: int = 2, **more: Any) -> Path:
    """A sharded archive at 4 fps with ``shard_size`` videos a shard; gives the index."""
    (folder / "pretrain").mkdir(parents=True)
    names = list(videos)
    shards = [names[first : first + shard_size] for first in range(0, len(names), shard_size)]
    files = [f"pretrain/pretrain_{number:05d}.pt" for number in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        payload = packed({f"{name}.pt": regular_times(videos[name], 4) for name in shard})
        payload["tokens"][:, 1] += names.index(shard[0])
        torch.save(payload | {"video_ids": shard, "nominal_times": payload["times"].clone()}, folder / file)
    index = {
        "version": "lemon_sharded_v1",
        "shards": files,
        "shard_root": "/home/somebody/else",
        "shard_ids": torch.tensor([number for number, shard in enumerate(shards) for _ in shard]),
        "local_indices": torch.tensor([place for shard in shards for place in range(len(shard))]),
        "num_tokens": torch.tensor([videos[name] for name in names]),
        "video_ids": names,
        "paths": [f"{name}.pt" for name in names],
        "splits": ["pretrain"] * len(names),
        "durations_sec": torch.tensor([videos[name] / 4 for name in names], dtype=torch.float64),
        "feature_dim": 4,
        "target_fps": 4.0,
    }
    torch.save(index | more, folder / "index.pt")
    return folder / "index.pt"


def write_csv(path: Path, rows: Rows) -> Path:
    """A manifest; the columns are those of the first row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def egoprocel_row(path: str, start: float, end: float, label: int, name: str = "", split: str = "train") -> dict:
    """One row of an EgoProceL FACT manifest, with some of its other columns."""
    return {
        "sample_uid": f"{path}_{start:.1f}_{label}",
        "video_uid": path.removesuffix(".pt"),
        "video_path": path,
        "task_name": "CMU",
        "official_split": split,
        "fact_step_id": label,
        "fact_step_name": name or ("background" if label == 0 else f"step {label}"),
        "start_sec": f"{start:.6f}",
        "end_sec": f"{end:.6f}",
        "fps": 10,
        "is_background": int(label == 0),
    }


def assembly_row(
    recording: str, view: str, start: float, end: float, label: int, kind: str = "assembly", split: str = "train"
) -> dict:
    """One row of an Assembly101 manifest."""
    return {
        "video_path": f"{recording}/{view}.mp4",
        "official_split": split,
        "action_id": label,
        "action_type": kind,
        "sample_uid": f"{recording}_{start}_{label}",
        "start_sec": start,
        "end_sec": end,
        "start_frame": round(30 * start),
        "end_frame": round(30 * end),
        "annotation_fps": 30,
    }
