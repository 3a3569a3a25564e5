"""Result files: everything a table, a picture or a doubt needs, without the data and the models.

::

    result.json    rows, gate, geometry, with config, data fingerprint, versions and the command
    pictures.npz   a few test videos: true and predicted steps, PCA colours, self-similarity
    training.json  the curves of the runs that were judged
    heads/         the linear heads of the learned rows, for `keystep stream`
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import PARTS
from keystep.data.folder import FeatureFolder
from keystep.data.statistics import principal_colours
from keystep.errors import InputError
from keystep.evals.judge import Judge, Mode
from keystep.evals.modes import answers_later
from keystep.evals.protocol import SELECTION, Evaluation
from keystep.files import replacing, write_json
from keystep.heads.linear import LinearHead

RESULT, PICTURES, TRAINING, HEADS = "result.json", "pictures.npz", "training.json", "heads"
OURS = (RESULT, PICTURES, TRAINING, HEADS, "report.html", "pictures")
"""What a result folder may hold to be replaced by a newer result."""
FORMAT = "keystep-result"
FORMAT_VERSION = 2
SHOWN_VIDEOS = 3
SIMILARITY_SIZE = 160

Curves = dict[str, list[dict[str, Any]]]
"""Run name -> lines of its metrics.jsonl."""


def save_evaluation(
    folder: Path, evaluation: Evaluation, curves: Curves, models: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the result folder, whole or not at all; an older result at that place is replaced.

    models: what was judged, one record a model (name, seed, hash of the weights, settings).
    """
    with replacing(folder, OURS) as temporary:
        write_json(temporary / RESULT, {**result_record(evaluation), "models": [*models]})
        write_json(temporary / TRAINING, curves)
        with (temporary / PICTURES).open("wb") as file:
            np.savez_compressed(file, **picture_arrays(evaluation))  # type: ignore[arg-type]  # numpy types the names of its options only
        for name, head in learned_heads(evaluation, models).items():
            head.save(temporary / HEADS / f"{name}.safetensors")


def learned_heads(evaluation: Evaluation, models: Sequence[Mapping[str, Any]]) -> dict[str, LinearHead]:
    """``<model>-<mode>-seed<N>`` -> the head of a model's own latents, with what it has to be used with."""
    folder = evaluation.judge.folder
    weights = {(record["name"], record["seed"]): record["weights"] for record in models}
    heads = {}
    for row in evaluation.rows:
        for run in row.runs:
            name = row.name.removesuffix(" (ORACLE)")
            if (name, run.seed) in weights:
                oracle = row.family == "oracle" or "ORACLE" in row.name
                origin = head_origin(folder, str(weights[name, run.seed]), row.mode, oracle)
                heads[f"{name.replace('/', '_')}-{row.mode}-seed{run.seed}"] = run.probe.head(folder.classes, origin)
    return heads


def head_origin(folder: FeatureFolder, weights: str, mode: Mode, oracle: bool) -> dict[str, str]:
    """What a head on a model's latents has to be used with. weights: the hash of the model's."""
    origin = {
        "weights": weights,
        "mode": mode,
        "rate": str(folder.timeline.rate),
        "timeline": json.dumps(folder.timeline.to_json()),
        "oracle": str(oracle),
    }
    if folder.extraction is not None:
        origin["extraction"] = json.dumps(folder.extraction)
    return origin


def load_result(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Curves]:
    """(result, picture arrays, curves) of a result folder.

    Raises:
        InputError: no result there, or one of another format.
    """
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        curves = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
        with np.load(folder / PICTURES, allow_pickle=False) as stored:
            pictures = dict(stored)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no {Path(error.filename).name}; 'keystep eval' writes result folders") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: unreadable result: {error}") from error
    if result.get("format") != FORMAT or result.get("version") != FORMAT_VERSION:
        raise InputError(f"{folder / RESULT}: not a result of format {FORMAT} {FORMAT_VERSION}")
    return result, pictures, curves


def result_record(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of an evaluation, and where they come from."""
    judge = evaluation.judge
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **making(),
        "data": data_record(judge),
        "protocol": {
            "metrics": judge.protocol,
            "background": [judge.folder.classes[index] for index in judge.background],
            "scored_at_hz": float(judge.folder.source.rate),
            "selection": SELECTION,
            "probe": judge.probe.model_dump(mode="json"),
            "probes_fitted": evaluation.fits,
        },
        "rows": [row.to_json() for row in evaluation.rows],
        "pairs": [
            {
                "claim": claim,
                "mode": row.mode,
                "first": row.name,
                "second": rival.name,
                "later": answers_later(row, rival),
            }
            for claim, row, rival in evaluation.pairs
        ],
        "gate": [
            {
                "claim": line.claim,
                "mode": line.mode,
                "first": line.first,
                "second": line.second,
                "holds": line.holds,
                "later": line.later,
                **asdict(line.difference),
            }
            for line in evaluation.gate
        ],
        "geometry": {name: asdict(numbers) for name, numbers in evaluation.geometry.items()},
    }


def making() -> dict[str, Any]:
    """When, by which command and with which software a result was made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "software": {name: version(name) for name in ("keystep", "torch", "numpy")}
        | {"python": platform.python_version()},
    }


def data_record(judge: Judge) -> dict[str, Any]:
    """Which data were judged, and how they were split."""
    folder, split = judge.folder, judge.split
    return {
        "name": folder.root.resolve().name,
        "fingerprint": folder.fingerprint(),
        "oracle": folder.oracle,
        "labels": folder.labels_used,
        "rate_hz": float(folder.timeline.rate),
        "width": folder.width,
        "classes": list(folder.classes),
        "split": split.name,
        "validation": split.rule,
        "label_share": judge.label_share,
        "label_seed": judge.label_seed,
        "videos": {part: len(split.part(part)) for part in PARTS},
        "slots": {part: sum(folder.length(name) for name in split.part(part)) for part in PARTS},
        "test_videos": list(split.test),
        "test_frames": [int(count) for count in judge.frames],
        "left_out": folder.problems.skipped,
        "notes": folder.problems.notes,
    }


def picture_arrays(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Small arrays for the pictures of the first test videos.

    ``names`` (V,); ``<i>/truth`` and ``<i>/prediction/<row>, <mode>`` (T,) class ids at the pooled rate;
    ``<i>/colours/<name>`` (T, 3) uint8; ``<i>/similarity/<name>`` (S, S) float16 cosine.
    """
    judge = evaluation.judge
    names = judge.split.test[:SHOWN_VIDEOS]
    arrays: dict[str, np.ndarray] = {"names": np.array(names)}
    for index, video in enumerate(names):
        arrays[f"{index}/truth"] = judge.folder.labels(video)
        for row in evaluation.rows:
            arrays[f"{index}/prediction/{row.name}, {row.mode}"] = row.runs[0].predictions[video].astype(np.int16)
    for label, representation in evaluation.shown.items():
        colours = principal_colours(representation)
        for index, name in enumerate(names):
            arrays[f"{index}/colours/{label}"] = colours[name]
            arrays[f"{index}/similarity/{label}"] = self_similarity(representation[names[index]])
    return arrays


def self_similarity(frames: np.ndarray, size: int = SIMILARITY_SIZE) -> np.ndarray:
    """(S, S) float16 cosine between frames of one video, centred and thinned to at most ``size``."""
    thinned = frames[np.linspace(0, len(frames) - 1, min(size, len(frames))).astype(int)].astype(np.float64)
    thinned = thinned - frames.mean(0)
    unit = thinned / np.maximum(np.linalg.norm(thinned, axis=1, keepdims=True), 1e-9)
    similarity: np.ndarray = (unit @ unit.T).astype(np.float16)
    return similarity


def curves_of(runs: Mapping[str, Path]) -> Curves:
    """The metrics of training runs by name; runs without a metrics file are left out."""
    from keystep.train.records import read_metrics

    paths = {name: run / "metrics.jsonl" for name, run in runs.items()}
    return {name: read_metrics(path) for name, path in paths.items() if path.exists()}
