"""Result files, which are sufficient for tables and pictures without the data and the models.

::

    result.json    rows, gate and geometry, with config, data fingerprint, versions and the command
    pictures.npz   a few test videos: true and predicted steps, PCA colours, self-similarity
    training.json  training curves of the evaluated runs
    heads/         heads of the models' rows, for `keystep stream` and `keystep predict`
    submissions/   predictions of causal heads for clips with hidden labels, if there are any
    foresight/     forecasters on the models' latents, for `keystep stream`, if a task fitted some
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keystep.data.annotation import PARTS
from keystep.data.folder import FeatureFolder
from keystep.data.statistics import principal_colours
from keystep.errors import InputError
from keystep.evals.bootstrap import Difference, paired_bootstrap
from keystep.evals.headline import shown_videos
from keystep.evals.judge import Judge
from keystep.evals.modes import answers_later
from keystep.evals.probe_cache import FOLDER as PROBES
from keystep.evals.protocol import SELECTION, EvalConfig, Evaluation
from keystep.evals.published import PUBLISHED
from keystep.evals.result_file import check_curves, check_pictures, check_result
from keystep.evals.rows import PROBE, HeadRun, Mode
from keystep.evals.table import find_row, strongest_control, sum_by_group
from keystep.files import replacing, write_json
from keystep.foresight import Forecaster, load_forecaster
from keystep.heads import Head, load_head
from keystep.reading import read_json, read_npz
from keystep.types import Tabular

RESULT, PICTURES, TRAINING = "result.json", "pictures.npz", "training.json"
HEADS, SUBMISSIONS, FORESIGHT = "heads", "submissions", "foresight"
OURS = (RESULT, PICTURES, TRAINING, HEADS, SUBMISSIONS, FORESIGHT, "report.html", "pictures", PROBES)
"""Entries that a result folder may contain to be overwritten by a new result."""
FORMAT = "keystep-result"
FORMAT_VERSION = 5
SHOWN_VIDEOS = 3
MOST_CURVES, MOST_PICTURES = 512 << 20, 1 << 30
SIMILARITY_SIZE = 160

Curves = dict[str, list[dict[str, Any]]]
"""Run name -> lines of its metrics.jsonl."""


@dataclass(frozen=True, repr=False)
class Results(Tabular):
    """The result of `keystep.evaluate`, independent of the data and the models.

    Attributes:
        record: the content of ``result.json``.
        pictures: arrays for the pictures.
        curves: training curves of the evaluated runs.
        heads: name -> head on a model's latents.
        submissions: head name -> predictions for clips with hidden labels.
        forecasters: name as of a head -> forecaster on a model's latents.
    """

    record: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    submissions: dict[str, Any] = field(default_factory=dict)
    forecasters: dict[str, Forecaster] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        curves: Curves | None = None,
        models: Sequence[Mapping[str, Any]] = (),
        settings: EvalConfig | None = None,
    ) -> Results:
        """Create the result of a finished evaluation.

        Args:
            models: one record for each model: name, seed, hash of the weights, settings.
        """
        config = settings or EvalConfig()
        quoted = PUBLISHED.get(config.data_set or "", ()) if evaluation.head_rows else ()
        record = {
            **result_record(evaluation),
            "models": [*models],
            "settings": config.model_dump(mode="json"),
            "quoted": [asdict(table) for table in quoted],
        }
        record = json.loads(json.dumps(record, allow_nan=False))  # lists instead of tuples, as after loading
        pictures = picture_arrays(evaluation, shown_videos(record, SHOWN_VIDEOS))
        forecasters = {name: one for table in evaluation.task_tables for name, one in table.forecasters.items()}
        heads, submissions = collect_heads(evaluation, models), collect_submissions(evaluation)
        return cls(record, pictures, curves or {}, heads, submissions, forecasters)

    @classmethod
    def load(cls, folder: Path | str) -> Results:
        """Load a folder written by `report` or ``keystep eval``.

        Raises:
            InputError: there is no valid result.
        """
        folder = Path(folder)
        heads = {path.stem: load_head(path) for path in sorted((folder / HEADS).glob("*.safetensors"))}
        submissions = {path.stem: read_json(path) for path in sorted((folder / SUBMISSIONS).glob("*.json"))}
        forecasters = {path.stem: load_forecaster(path) for path in sorted((folder / FORESIGHT).glob("*.safetensors"))}
        return cls(*load_result(folder), heads=heads, submissions=submissions, forecasters=forecasters)

    def save(self, folder: Path | str) -> None:
        """Write the result folder atomically, replacing an older result."""
        folder = Path(folder)
        with replacing(folder, OURS) as temporary:
            write_json(temporary / RESULT, self.record)
            write_json(temporary / TRAINING, self.curves)
            with (temporary / PICTURES).open("wb") as file:
                np.savez_compressed(file, **self.pictures)  # type: ignore[arg-type]  # numpy types the names of its options only
            for name, head in self.heads.items():
                head.save(temporary / HEADS / f"{name}.safetensors")
            for name, forecaster in self.forecasters.items():
                forecaster.save(temporary / FORESIGHT / f"{name}.safetensors")
            for name, submission in self.submissions.items():
                write_json(temporary / SUBMISSIONS / f"{name}.json", submission)
            if (folder / PROBES).is_dir():  # reused if models are added later
                shutil.copytree(folder / PROBES, temporary / PROBES, copy_function=_link_or_copy)

    def report(self, folder: Path | str) -> Path:
        """Save the result with its pictures and ``report.html``, and return the path of the page."""
        from keystep.evals.report import write_report

        self.save(folder)
        return write_report(Path(folder))

    def table(self) -> str:
        """The tables as Markdown, by mode, followed by those of another task."""
        from keystep.evals.head_tables import markdown_plain, task_tables
        from keystep.evals.table import markdown_table

        return "\n".join([markdown_table(self.record), *map(markdown_plain, task_tables(self.record))])

    def compare(self, first: str, second: str, mode: str | None = None, head: str = PROBE) -> Difference:
        """Difference in frame accuracy between two rows, paired by test video (or group), with its 95 % interval.

        Args:
            first, second: row names, such as ``pjepa`` and ``raw features``. For linear probes, ``best control`` is the
                strongest control on the test videos, which biases the comparison against the other row.
            mode: ``offline`` or ``causal``. None: the first mode that has both rows.
            head: ``linear`` or a temporal head.

        Raises:
            InputError: unknown rows, or too few test videos for an interval.
        """
        modes = (mode,) if mode else tuple(dict.fromkeys(row["mode"] for row in self.record["rows"]))
        for each in modes:
            rows = [self._row(name, each, head) for name in (first, second)]
            if all(row is not None for row in rows):
                right = [np.array([run["correct"] for run in row["runs"]]) for row in rows if row is not None]
                groups = self.record["data"].get("groups") or self.record["data"]["test_videos"]
                frames = np.array(self.record["data"]["test_frames"])
                return paired_bootstrap(*(sum_by_group(counts, groups) for counts in (*right, frames)))
        names = ", ".join(dict.fromkeys(row["name"] for row in self._rows() if row["head"] == head)) or "none"
        raise InputError(f"no rows {first!r} and {second!r} in mode {mode or 'offline or causal'}; expected {names}")

    def _row(self, name: str, mode: str, head: str) -> Any:
        """A row by name; ``best control`` is the strongest control on the test videos."""
        if head != PROBE:
            rows = (
                row for row in self.record["head_rows"] if (row["name"], row["mode"], row["head"]) == (name, mode, head)
            )
            return next(rows, None)
        return strongest_control(self.record, mode) if name == "best control" else find_row(self.record, name, mode)

    def _rows(self) -> list[Any]:
        """The rows of all heads."""
        return [*self.record["rows"], *self.record["head_rows"]]

    def to_records(self) -> list[dict[str, Any]]:
        """One flat dict for each row and seed, with name, head, family, mode, delay, seed and every score."""
        facts = ("name", "head", "family", "mode", "delay")
        return [
            {**{fact: row[fact] for fact in facts}, "seed": run["seed"], **run["scores"]}
            for row in self._rows()
            for run in row["runs"]
        ]

    def __repr__(self) -> str:
        data = self.record["data"]
        where = f"{data['name']!r}, split {data['split']!r}"
        return f"Results({where}: {len(self._rows())} rows, {len(data['test_videos'])} test videos)"

    def _repr_html_(self) -> str:
        from keystep.evals.report import tables_html

        return tables_html(self.record)


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the file system does not support that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def collect_heads(evaluation: Evaluation, models: Sequence[Mapping[str, Any]]) -> dict[str, Head]:
    """``<model>-<mode>-seed<N>`` -> head on a model's own latents; names of temporal heads start with their kind."""
    folder = evaluation.judge.folder
    weights = {(record["name"], record["seed"]): record["weights"] for record in models}
    heads: dict[str, Head] = {}
    for row in evaluation.rows:
        for run in row.runs:
            name = row.name.removesuffix(" (ORACLE)")
            if (name, run.seed) in weights:
                origin = head_origin(folder, str(weights[name, run.seed]), row.mode, row.oracle)
                heads[head_name(name, row.mode, run.seed)] = run.probe.head(folder.classes, origin)
    return heads | {name: run.head for name, run in _temporal_heads(evaluation)}


def collect_submissions(evaluation: Evaluation) -> dict[str, Any]:
    """Head name -> predictions for clips with hidden labels."""
    return {name: run.submission for name, run in _temporal_heads(evaluation) if run.submission is not None}


def _temporal_heads(evaluation: Evaluation) -> Iterator[tuple[str, HeadRun]]:
    """The temporal heads on models by name."""
    for row in evaluation.head_rows:
        for run in row.runs if row.family not in ("raw", "control") else ():
            yield head_name(row.name, row.mode, run.seed, row.head), run


def head_name(name: str, mode: Mode, seed: int, head: str = PROBE) -> str:
    """File name of a head."""
    beginning = "" if head == PROBE else f"{head.replace(':', '.')}-"
    return f"{beginning}{name.removesuffix(' (ORACLE)')}-{mode}-seed{seed}".replace("/", "_").replace(" ", "_")


def head_origin(folder: FeatureFolder, weights: str, mode: Mode, oracle: bool) -> dict[str, str]:
    """The model and data that a head has to be used with. weights: hash of the model's weights."""
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
    """Load the result, the picture arrays and the curves of a result folder.

    Raises:
        InputError: no result, or one of another format.
    """
    for name in (RESULT, TRAINING, PICTURES):
        if folder.is_dir() and not (folder / name).exists():
            raise InputError(f"{folder}: no {name}; expected a result folder, as written by 'keystep eval'")
    result = read_json(folder / RESULT)
    if result.get("format") != FORMAT or result.get("version") != FORMAT_VERSION:
        raise InputError(f"{folder / RESULT}: not a result of format {FORMAT} {FORMAT_VERSION}")
    check_result(result, folder / RESULT)
    curves = read_json(folder / TRAINING, MOST_CURVES, nan=None)
    check_curves(curves, folder / TRAINING)
    pictures = read_npz(folder / PICTURES, MOST_PICTURES)
    check_pictures(pictures, result["data"]["test_videos"], folder / PICTURES)
    return result, pictures, curves


def result_record(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``result.json``, except for models and settings."""
    judge = evaluation.judge
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **provenance(),
        "data": {**data_record(judge), "leaks": evaluation.leaks},
        "protocol": {
            "metrics": judge.protocol,
            "background": [judge.folder.classes[index] for index in judge.background],
            "scored_at_hz": float(judge.folder.source.rate),
            "selection": SELECTION,
            "probe": judge.probe.model_dump(mode="json"),
            "probes_fitted": evaluation.fits,
            "clock": {**asdict(judge.time_scale), "stated": judge.tau is not None},
        },
        "rows": [row.to_json() for row in evaluation.rows],
        "pairs": [
            {
                "question": question,
                "claim": claim,
                "mode": row.mode,
                "first": row.name,
                "second": rival.name,
                "later": answers_later(row, rival),
            }
            for question, claim, row, rival in evaluation.pairs
        ],
        "gate": [line.to_json() for line in evaluation.gate],
        "head_rows": [row.to_json() for row in evaluation.head_rows],
        "head_gains": [line.to_json() for line in evaluation.head_gains],
        "clip_rows": [asdict(row) for row in evaluation.clip_rows],
        "segment_scores": evaluation.segment_scores,
        "geometry": {name: asdict(numbers) for name, numbers in evaluation.geometry.items()},
        **({"task_tables": [table.to_json() for table in evaluation.task_tables]} if evaluation.task_tables else {}),
    }


def provenance() -> dict[str, Any]:
    """When, with which command and with which software versions a result was created."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "software": {name: version(name) for name in ("keystep", "torch", "numpy")}
        | {"python": platform.python_version()},
    }


def data_record(judge: Judge) -> dict[str, Any]:
    """The evaluated data and their split."""
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
        "groups": None if judge.groups is None else [judge.groups.get(video, video) for video in split.test],
        "drawn": {"what": "videos" if judge.groups is None else "groups", "count": len(judge.by_group(judge.frames))},
        "test_frames": [int(count) for count in judge.frames],
        "left_out": folder.problems.skipped,
        "notes": folder.problems.notes,
    }


def picture_arrays(evaluation: Evaluation, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays for the pictures of the test videos ``names``.

    ``names`` (V,); ``<i>/truth`` and ``<i>/prediction/<row>, <mode>`` (T,) class ids at the pooled rate;
    ``<i>/colours/<name>`` (T, 3) uint8; ``<i>/similarity/<name>`` (S, S) float16 cosine similarity.
    """
    judge = evaluation.judge
    arrays: dict[str, np.ndarray] = {"names": np.array(names)}
    for index, video in enumerate(names):
        arrays[f"{index}/truth"] = judge.folder.labels(video)
        for row in evaluation.rows:
            arrays[f"{index}/prediction/{row.name}, {row.mode}"] = row.runs[0].predictions[video].astype(np.int16)
        for temporal in evaluation.head_rows:
            predicted = temporal.runs[0].predictions[video].astype(np.int16)
            arrays[f"{index}/prediction/{temporal.head}: {temporal.name}, {temporal.mode}"] = predicted
    for label, representation in evaluation.shown.items():
        colours = principal_colours(representation)
        for index, name in enumerate(names):
            arrays[f"{index}/colours/{label}"] = colours[name]
            arrays[f"{index}/similarity/{label}"] = self_similarity(representation[names[index]])
    return arrays


def self_similarity(frames: np.ndarray, size: int = SIMILARITY_SIZE) -> np.ndarray:
    """(S, S) float16 cosine similarity of the centred frames of a video, subsampled to at most ``size`` frames."""
    thinned = frames[np.linspace(0, len(frames) - 1, min(size, len(frames))).astype(int)].astype(np.float64)
    thinned = thinned - frames.mean(0)
    unit = thinned / np.maximum(np.linalg.norm(thinned, axis=1, keepdims=True), 1e-9)
    similarity: np.ndarray = (unit @ unit.T).astype(np.float16)
    return similarity


def read_curves(runs: Mapping[str, Path]) -> Curves:
    """Run name -> metrics of a training run; runs without a metrics file are skipped."""
    from keystep.train.records import read_metrics

    paths = {name: run / "metrics.jsonl" for name, run in runs.items()}
    return {name: read_metrics(path) for name, path in paths.items() if path.exists()}
