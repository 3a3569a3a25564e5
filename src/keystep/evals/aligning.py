"""`keystep align`: frame labels of videos of which only the ordered list of steps is known.

It begins with the same share of the frames for every step of a list. Then a linear read-out is fitted to these labels,
and the frames are aligned anew to the lists by its log-probabilities, once or in turns until no label changes. It
sees the steps of all videos at once, so that frames that look alike get one name, while the lists keep the order.

A read-out that is fitted to wrong borders confirms them, and one step may swallow the others. What holds against it is
the probability of a place at a time if the borders were anywhere (`place_scores`), which is added to every frame's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from scipy.special import log_softmax

from keystep.config import Config
from keystep.data.annotation import IGNORED, UNLABELLED, composed, hold_out
from keystep.data.folder import FeatureFolder
from keystep.encoding import frame_vectors
from keystep.errors import InputError, quoted
from keystep.evals.probe import LinearProbe, fit_probe
from keystep.evals.results import head_origin
from keystep.files import check_new, check_replaceable, replacing, write_json, write_lines
from keystep.loading import check_features
from keystep.locking import owning
from keystep.pjepa import PJEPA
from keystep.procedure.alignment import NOWHERE, align, place_scores, uniform
from keystep.progress import SILENT, Progress
from keystep.reading import read_lines

LABELS, HEAD, RECORD = "labels", "head.safetensors", "alignment.json"
OURS = (LABELS, HEAD, RECORD)

Vectors = Mapping[str, np.ndarray]
"""Video -> (T, D) features or latents."""
Lists = Mapping[str, np.ndarray]
"""Video -> (K,) class ids of its steps in their order."""
Labels = dict[str, np.ndarray]
"""Video -> (T,) class ids, `IGNORED` for a frame without a step."""


class AlignmentConfig(Config):
    """What an alignment may do, and how often it is repeated."""

    skip: float | None = Field(default=None, ge=0)
    """Cost of a listed step without a frame, in nats of the frames' log-probabilities. None: all steps are shown."""
    drop: float | None = Field(default=None, gt=0, lt=1)
    """A frame whose step has a smaller probability than this may have no step. None: every frame has one."""
    anchor: float = Field(default=1.0, ge=0)
    """Weight of the log-probability of a place at a time, beside that of the read-out; 0: time does not count."""
    rounds: int = Field(default=1, ge=1)
    """Number of times that the read-out is fitted, at most. More suit steps that look different and frames that vary
    little; else the read-out confirms its own errors (docs/alignment.md)."""


@dataclass(frozen=True)
class Round:
    """The labels of a round, the read-out that it fitted to those before, and the share (0-100) that it changed."""

    labels: Labels
    probe: LinearProbe
    changed: float


def alternate(vectors: Vectors, lists: Lists, classes: int, config: AlignmentConfig) -> Iterator[Round]:
    """Fit and align in turns, until no label changes or all rounds are done.

    The penalty and the sharpness of the read-out are chosen on the labels of held-out videos of the same round.

    Raises:
        InputError: more steps than frames where none may be skipped, or vectors that cannot be fitted.
    """
    labels = uniform_labels(vectors, lists)
    kept, held = hold_out(list(vectors)) if len(vectors) > 1 else (tuple(vectors), tuple(vectors))
    for _ in range(config.rounds):
        train, train_labels = [vectors[name] for name in kept], [labels[name] for name in kept]
        valid, valid_labels = [vectors[name] for name in held], [labels[name] for name in held]
        probe = fit_probe(train, train_labels, valid, valid_labels, classes=classes)
        found = {name: _aligned(name, probe.scores(vectors[name]), lists[name], config) for name in vectors}
        changed = 100 * float(np.mean(np.concatenate([found[name] != labels[name] for name in vectors])))
        labels = found
        yield Round(labels, probe, changed)
        if not changed:
            return


def _aligned(name: str, scores: np.ndarray, steps: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """(T,) labels of one video by its scores (T, C)."""
    known = log_softmax(scores.astype(np.float64), axis=1)[:, steps]
    known += config.anchor * place_scores(len(known), len(steps))
    try:
        places = align(known, skip=config.skip, drop=None if config.drop is None else float(np.log(config.drop)))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return np.where(places == NOWHERE, IGNORED, steps[places])


def uniform_labels(vectors: Vectors, lists: Lists) -> Labels:
    """Labels that give every step of a list the same share of the frames."""
    return {name: lists[name][uniform(len(frames), len(lists[name]))] for name, frames in vectors.items()}


def read_lists(steps: Path, folder: FeatureFolder) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read ``<video>.txt`` for some videos of a folder, the name of one step a line, in their order.

    Returns:
        video -> (K,) class ids, and the classes: the folder's, or without ``mapping.txt`` those of the lists, sorted.

    Raises:
        InputError: no list, one of no video, an empty one, or a step that is no class of the folder.
    """
    lines = {path.stem: [composed(line) for line in read_lines(path)] for path in sorted(steps.glob("*.txt"))}
    if not lines:
        raise InputError(f"{steps}: no VIDEO.txt with the name of one step a line")
    classes = folder.classes or tuple(sorted({step for found in lines.values() for step in found}))
    ids = {name: index for index, name in enumerate(classes)}
    lists = {}
    for video, found in lines.items():
        if video in folder.problems.skipped:
            continue
        if video not in folder.videos:
            raise InputError(f"{steps / video}.txt: {folder.root} has no video of this name")
        if not found:
            raise InputError(f"{steps / video}.txt: no step; write the name of one step a line, or remove the file")
        for number, step in enumerate(found, start=1):
            if step not in ids:
                raise InputError(f"{steps / video}.txt, line {number}: no class {quoted(step)} in mapping.txt")
        lists[video] = np.array([ids[step] for step in found])
    return lists, classes


def align_folder(
    folder: FeatureFolder,
    lists: Lists,
    classes: Sequence[str],
    out: Path,
    model: PJEPA | None = None,
    config: AlignmentConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> list[float]:
    """Align the listed videos, and write the labels of the last round, the read-out as a head, and a record.

    Args:
        folder: the data; labels are not used.
        lists, classes: as `read_lists` returns them.
        out: folder for ``labels/NAME.txt`` (a class name a slot), ``head.safetensors`` and ``alignment.json``.
        model: its offline latents are aligned. None: raw features.
        config: settings.
        overwrite: replace an alignment in ``out``.
        progress: reports the rounds.

    Returns:
        Share of the frames, 0-100, whose label each round changed.

    Raises:
        InputError: as `alternate` and `read_lists`, features of another width than the model's, or an existing ``out``.
    """
    config = config or AlignmentConfig()
    with owning(out):
        check_out(out, overwrite=overwrite)
        if model is not None:
            folder.problems.notes.extend(check_features(model, folder))
        vectors = frame_vectors(folder, list(lists), model)
        rounds = []
        with progress.task("aligning", total=config.rounds, unit="rounds") as task:
            for turn in alternate(vectors, lists, len(classes), config):
                rounds.append(turn)
                task.advance(note=f"{turn.changed:.1f} % changed")
        changed = [turn.changed for turn in rounds]
        origin = {"representation": "raw features"}
        if model is not None:
            origin = head_origin(folder, model.fingerprint, "offline", model.config.oracle)
        facts = {
            "model": None if model is None else model.origin.source,
            "settings": config.model_dump(),
            "changed": changed,
        }
        with replacing(out, OURS) as temporary:
            _write(temporary, rounds[-1], classes, origin, facts)
    return changed


def _write(
    out: Path, last: Round, classes: Sequence[str], origin: Mapping[str, str], facts: Mapping[str, object]
) -> None:
    """The files of `align_folder`, in a new folder."""
    for name, ids in last.labels.items():
        write_lines(out / LABELS / f"{name}.txt", (UNLABELLED if each == IGNORED else classes[each] for each in ids))
    last.probe.head(classes, origin).save(out / HEAD)
    write_json(out / RECORD, {"format": "keystep-alignment", "version": 1, **facts})


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check early that an alignment can be written to a folder.

    Raises:
        InputError: it cannot.
    """
    check_replaceable(out, OURS)
    check_new(out / RECORD, overwrite, "an alignment")
