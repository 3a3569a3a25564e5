"""Results written by hand in the format of `keystep.evals.results`, so that no model has to be trained for a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keystep.evals.published import PUBLISHED
from keystep.evals.results import FORMAT, FORMAT_VERSION

METRICS = ("accuracy", "accuracy_foreground", "edit", "f1@10", "f1@25", "f1@50")
STEPS = (
    "background",
    "open box",
    "take < 5 screws",
    "fasten & check",
    "add $oil$",
    "_hidden name",
    "turn",
    "close box",
)
ROWS = (  # name, family, mode, accuracy, seeds, delay
    ("raw features", "raw", "causal", 41.2, 1, 0.0),
    ("true segments' means (ORACLE)", "oracle", "offline", 91.7, 1, None),
    ("moving average", "control", "offline", 55.1, 1, None),
    ("moving average + elapsed", "control", "offline", 57.0, 1, None),
    ("moving average + progress", "control", "offline", 58.9, 1, None),
    ("offsets", "control", "offline", 56.3, 1, None),
    ("moving average", "control", "causal", 50.2, 1, 0.0),
    ("moving average + elapsed", "control", "causal", 52.6, 1, 0.0),
    ("untrained encoder", "untrained", "offline", 52.4, 3, None),
    ("untrained encoder ++ moving average", "untrained", "offline", 60.3, 3, None),
    ("reconstruction", "reconstruction", "offline", 57.7, 3, None),
    ("pjepa", "learned", "offline", 64.1, 3, None),
    ("pjepa ++ moving average", "learned", "offline", 66.8, 3, None),
    ("pjepa ++ best control", "learned", "offline", 67.9, 3, None),
    ("pjepa", "learned", "causal", 61.3, 3, 12.4),
)
Result = dict[str, Any]
MEDIAN = "P1 <left>/cam.1"
"""The test video whose gain is the median."""
VIDEOS, FRAMES = tuple(MEDIAN if index == 5 else f"video {index}" for index in range(12)), 700
NO_VIDEOS: dict[str, Any] = {"names": np.array([], dtype=str)}
NO_CURVES: dict[str, list[Result]] = {}


def made_row(name: str, family: str, mode: str, accuracy: float, seeds: int, delay: float | None) -> Result:
    """A row of a result.json; videos differ, and a learned row gains least on the first and most on the last one."""
    scores = [
        {metric: accuracy - 4 * place + 0.8 * (seed - (seeds - 1) / 2) for place, metric in enumerate(METRICS)}
        for seed in range(seeds)
    ]
    lean = np.linspace(-2, 2, len(VIDEOS)) * (family == "learned")
    return {
        "name": name,
        "head": "linear",
        "family": family,
        "mode": mode,
        "position": name.partition(" + ")[2] or "none",
        "oracle": "ORACLE" in name,
        "delay": delay,
        "detail": "",
        "width": 64,
        "beside": {"best control": "control", "moving average": "smoothing"}.get(name.partition(" ++ ")[2], ""),
        "mean": {metric: float(np.mean([run[metric] for run in scores])) for metric in METRICS},
        "spread": {
            metric: float(np.std([run[metric] for run in scores], ddof=1)) if seeds > 1 else None for metric in METRICS
        },
        "runs": [
            {
                "seed": seed,
                "scores": run,
                "valid_accuracy": run["accuracy"],
                "penalty": 0.1,
                "correct": [round(FRAMES * (run["accuracy"] + points) / 100) for points in lean],
            }
            for seed, run in enumerate(scores)
        ],
    }


def gate_line(
    claim: str, first: str, second: str, mean: float, low: float, high: float, seeds: int = 3, mode: str = "offline"
) -> Result:
    """A line of the gate with the verdict that its numbers and seeds give."""
    verdict = "not enough seeds" if seeds < 3 else "holds" if low > 0 else "fails"
    difference = {"mean": mean, "low": low, "high": high, "seeds": [seeds, 1], "videos": 12}
    names = {"claim": claim, "mode": mode, "first": first, "second": second, "verdict": verdict}
    return {
        **names,
        "asks": "Is it so?",
        "holds": verdict == "holds",
        "later": False,
        "stronger": "",
        "quick": False,
        **difference,
    }


ALONE = gate_line("alone, against the best control", "pjepa", "moving average + progress", 5.2, 3.9, 6.5)
LIVE = gate_line("alone, against the best control", "pjepa", "moving average + elapsed", 8.7, 6.9, 10.5, mode="causal")
SIDES = ("pjepa ++ moving average", "untrained encoder ++ moving average")
BESIDE = gate_line("with smoothing, against untrained encoder there", *SIDES, 6.5, 5.0, 8.1)
PAIRED = gate_line("against raw features, both alone", "reconstruction", "raw features", 16.5, 14.0, 18.1)


def made_result(rows: tuple[Any, ...] = ROWS, gate: tuple[Result, ...] = (ALONE, BESIDE)) -> Result:
    """A result.json in memory."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "created": "2025-01-01T00:00:00+00:00",
        "command": "keystep eval data --model 'pjepa=runs/a,runs/b'",
        "software": {"keystep": "0.1.0", "python": "3.11"},
        "data": {
            "name": "assembly",
            "fingerprint": "f00d",
            "rate_hz": 1.0,
            "width": 64,
            "classes": list(STEPS),
            "split": "1",
            "validation": "valid.split1.bundle",
            "videos": {"train": 30, "valid": 6, "test": 12},
            "slots": {"train": 21000, "valid": 4200, "test": 8400},
            "test_videos": list(VIDEOS),
            "test_frames": [FRAMES] * len(VIDEOS),
            "groups": None,
            "leaks": [],
            "left_out": {"broken <one>": "features/broken.npy: truncated"},
            "notes": [],
        },
        "protocol": {
            "metrics": "pooled",
            "background": [],
            "scored_at_hz": 1.0,
            "selection": "on validation videos",
            "probe": {"steps": 100},
            "probes_fitted": 60,
            "clock": {"tau": 1.25, "low": 1.1, "high": 1.4, "stated": False},
        },
        "rows": [made_row(*row) for row in rows],
        "gate": list(gate),
        "head_rows": [],
        "head_gains": [],
        "clip_rows": [],
        "segment_scores": [],
        "quoted": [],
        "geometry": {"raw features": {"straightness": 0.01, "monotonic_fraction": 0.5}},
    }


def made_steps(random: np.random.Generator, slots: int, classes: int) -> np.ndarray:
    """(slots,) class ids in some fifteen segments."""
    lengths = random.multinomial(slots, random.dirichlet(np.full(15, 2.0)))
    return np.repeat(random.integers(0, classes, 15), lengths)


def made_arrays(result: Result, videos: tuple[str, ...] = (MEDIAN,), slots: int = FRAMES) -> dict[str, Any]:
    """A pictures.npz in memory: predictions as right as their rows say, latents that follow the true steps."""
    random, classes = np.random.default_rng(0), len(result["data"]["classes"])
    arrays: dict[str, np.ndarray] = {"names": np.array(videos)}
    for index in range(len(videos)):
        truth = made_steps(random, slots, classes)
        arrays[f"{index}/truth"] = truth
        for row in result["rows"]:
            keep = np.repeat(random.random(-(-slots // 20)) < row["mean"]["accuracy"] / 100, 20)[:slots]
            predicted = np.where(keep, truth, made_steps(random, slots, classes)).astype(np.int16)
            arrays[f"{index}/prediction/{row['name']}, {row['mode']}"] = predicted
        for name, noise in (("features", 1.5), ("latents of pjepa, offline", 0.4)):
            vectors = random.normal(size=(classes, 16))[truth] + noise * random.normal(size=(slots, 16))
            thinned = vectors[:: -(-slots // 160)] - vectors.mean(0)
            unit = thinned / np.linalg.norm(thinned, axis=1, keepdims=True)
            arrays[f"{index}/colours/{name}"] = np.clip(128 + 50 * vectors[:, :3], 0, 255).astype(np.uint8)
            arrays[f"{index}/similarity/{name}"] = (unit @ unit.T).astype(np.float16)
    return arrays


def made_curve(seed: int, start: float = 1.0) -> list[Result]:
    """Lines of a metrics.jsonl."""
    random, lines = np.random.default_rng(seed), list[Result]()
    for step in range(0, 301, 10):
        fall = start * float(np.exp(-step / 120)) + 0.02 * random.random()
        if step:
            lines.append({"step": step, "loss": 1.5 * fall, "hidden": fall, "visible": fall, "learning_rate": 1e-3})
        if step % 50 == 0:
            look = {"effective_rank": 9 - fall, "neighbour_cosine": 0.8, "hidden_loss": 0.9 * fall, "mean_loss": start}
            look |= {"copy_loss": 0.7 * start, "probe_accuracy": 40 + step / 20 + random.random()}
            lines.append({"step": step, **{f"monitor/{name}": value for name, value in look.items()}})
    return lines


def made_curves(seeds: int = 3) -> dict[str, list[Result]]:
    """A training.json in memory."""
    starts = {"pjepa": 1.0, "reconstruction": 0.6}
    return {f"{name}, seed {seed}": made_curve(seed, starts[name]) for name in starts for seed in range(seeds)}


def made_head_rows() -> list[Result]:
    """Rows of a temporal head, as ``head_rows`` of a result.json."""
    rows = [made_row(*row) for row in ROWS if row[0] in ("raw features", "pjepa") and row[2] != "offline"]
    more = {"head": "mstcn", "parameters": 12345, "frames_per_second": 1e6}
    return [
        {**row, **more, "runs": [{**run, "at_the_moment": {"accuracy": 50.0}, "clips": {}} for run in row["runs"]]}
        for row in rows
    ]


def with_heads(result: Result) -> Result:
    """The same beside all that temporal heads add: rows, gains, segments, clips and what the paper prints."""
    rows = made_head_rows()
    for run in rows[-1]["runs"]:
        run["clips"] = {"take": 45.6, "clip": 34.5}
    answer = {"name": "pjepa", "head": "mstcn", "mode": "causal", "answer": "last"}
    return result | {
        "head_rows": rows,
        "head_gains": [gate_line("edit under mstcn", "pjepa", "best control", 4.0, 1.0, 7.0, mode="causal")],
        "segment_scores": [{**answer, "mean": dict.fromkeys((*METRICS, "segments"), 12.3)}],
        "clip_rows": [{"name": "pjepa", "clips": 99, "top1": {"take": [56.7, 58.7], "clip": [43.2, 43.2]}}],
        "quoted": [asdict(table) for table in PUBLISHED["assembly101"]],
    }


def write_result(folder: Path, result: Result, arrays: dict[str, Any], curves: dict[str, list[Result]]) -> Path:
    """A result folder as `keystep.evals.results` writes it, without heads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "training.json").write_text(json.dumps(curves))
    np.savez(folder / "pictures.npz", **arrays)
    return folder
