"""An annotator simulated: minutes of video labelled until a linear head is nearly as good as it will ever be.

    python benchmarks/labelling.py WORK --data DATA --out benchmarks/results/labelling

DATA holds the folders ``vts`` and ``cholec80_tools``; what is absent is left out. The synthetic set is generated. WORK
keeps data, models and latents between calls; a model that is not given with ``--model NAME=RUN`` is pretrained there,
on split 1's training videos, without labels. ``--draw`` writes the page again from ``OUT.json``.

The annotator labels one stretch of about a minute after the other in the videos of the training and validation split,
and `keystep.serve` learns from them as it does for people (`LabelLearner`). After each round the head is scored on
all frames of the test videos, which take part in nothing else. Rows: raw features, the best control and latents, with
stretches drawn at random; and latents with the stretches that the tool suggests. All representations see the whole
video (offline).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import keystep
from keystep.config import RunConfig
from keystep.config.base import build
from keystep.data.annotation import IGNORED
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.spans import Span, spans_of
from keystep.data.synthetic import SyntheticConfig, generate
from keystep.data.time_scale import decorrelation_time
from keystep.encoding import encode
from keystep.evals.candidates import Candidates
from keystep.evals.controls import Control
from keystep.files import replacing
from keystep.progress import Lines
from keystep.serve.learning import LabelLearner, Labels
from keystep.serve.ridge import Basis, Evidence, cross_validate
from keystep.serve.survey import Choice
from labelling_page import write_page
from measure import parser

RATES = {"vts": ("30", "5"), "cholec80_tools": ("1", None), "history": (None, None)}
"""Set -> rate on disk and working rate; None: as the folder says."""
SPLIT = "1"
ENOUGH = 0.95
"""A run ends once this share of the final accuracy was reached in `ROUNDS` rounds in a row."""
ROUNDS = 3
GROWTH = 1.2
"""Stretches in all after a round, as a multiple of those before it, rounded up: at first, one a round."""
ROWS: dict[str, tuple[str, Choice]] = {
    "raw features, random": ("raw", "random"),
    "best control, random": ("control", "random"),
    "latents, random": ("latents", "random"),
    "latents, the tool's choice": ("latents", "mixed"),
}


@dataclass(frozen=True, eq=False)
class Videos:
    """A representation of all videos. bands: as in `LabelLearner`."""

    read: Callable[[str], np.ndarray]
    bands: Mapping[str, int] | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """A data set. pool: the videos that the annotator may label. test: the videos that score. labels: class ids."""

    name: str
    folder: FeatureFolder
    pool: Sequence[str]
    test: Sequence[str]
    labels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, name: str, folder: FeatureFolder) -> Setting:
        split = folder.split(SPLIT)
        labels = {video: folder.labels(video) for video in folder.videos}
        return cls(name, folder, [*split.train, *split.valid], list(split.test), labels)

    @property
    def rate(self) -> float:
        return float(self.folder.timeline.rate)


@dataclass(frozen=True)
class Round:
    """stretches, minutes: labelled. right: correct frames of each test video. cross_validated: what the tool says its
    accuracy is; None until it knows."""

    stretches: int
    minutes: float
    right: list[int]
    cross_validated: float | None


def main() -> None:
    options = _options()
    record = options.out.with_suffix(".json")
    if not options.draw:
        torch.set_num_threads(1)
        models = dict(given.split("=", 1) for given in options.model)
        kept = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"sets": {}}
        made = f"{date.today()}, one thread, Python {platform.python_version()}, torch {torch.__version__}"
        kept |= {"command": _command(options), "software": made}
        for name in options.sets:
            folder = _folder(name, options.work, options.data)
            if folder is None:
                print(f"{name}: no such folder in {options.data}; left out")
                continue
            kept["sets"][name] = simulate(Setting.of(name, folder), options, models.get(name))
            with replacing(record) as temporary:
                temporary.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    write_page(options.out, json.loads(record.read_text(encoding="utf-8")))


def simulate(setting: Setting, options: argparse.Namespace, model: str | None) -> dict[str, Any]:
    """All rows of a data set."""
    work = options.work / setting.name
    control, chosen = best_control(setting)
    videos = {"raw": raw(setting), "control": control, "latents": latents(setting, work, model)}
    found: dict[str, Any] = {
        "pool": len(setting.pool),
        "pool_minutes": sum(len(setting.labels[video]) for video in setting.pool) / setting.rate / 60,
        "test_frames": [int((setting.labels[video] != IGNORED).sum()) for video in setting.test],
        "control": chosen,
        "rows": {},
    }
    for row, (representation, choice) in ROWS.items():
        annotator = Annotator(setting, videos[representation])
        final = annotator.final()
        runs = [list(annotator.label(choice, seed, final.right)) for seed in range(options.seeds)]
        found["rows"][row] = {"final": asdict(final), "runs": [[asdict(each) for each in run] for run in runs]}
        reached = [f"{run[-1].minutes:.0f}" for run in runs]
        print(f"{setting.name}: {row}: final {sum(final.right) / sum(found['test_frames']):.3f}, to {reached} minutes")
    return found


class Annotator:
    """Somebody who knows all labels of the pool, and the learner beside them."""

    def __init__(self, setting: Setting, videos: Videos) -> None:
        self.setting, self.videos = setting, videos
        self.classes = setting.folder.classes
        self.spans: dict[str, list[Span]] = {}
        self.learner = LabelLearner(
            {video: len(setting.labels[video]) for video in setting.pool},
            cache(videos.read),
            lambda: Labels(self.classes, self.spans),
            rate=setting.rate,
            folder=Path(tempfile.mkdtemp()),
            bands=videos.bands,
        )

    def final(self) -> Round:
        """With all labels of the pool."""
        labels = self.setting.labels
        self.spans = {video: spans_of(labels[video], self.classes) for video in self.setting.pool}
        return self._learned(0)

    def label(self, choice: Choice, seed: int, final: Sequence[int]) -> Iterator[Round]:
        """Label from nothing until it is enough."""
        self.spans, enough, count = {}, 0, 0
        self._learned(0)
        while enough < ROUNDS:
            wanted = max(1, int(np.ceil(count * (GROWTH - 1))))
            now = choice if count else "random"  # the first is anywhere
            found = self.learner.suggestions(wanted, now, seed=1_000 * seed + count)
            if not found:
                return
            for each in found:
                ids = np.full(each.stop, IGNORED)
                ids[each.start :] = self.setting.labels[each.video][each.start : each.stop]
                self.spans.setdefault(each.video, []).extend(spans_of(ids, self.classes))
            count += len(found)
            learned = self._learned(count)
            enough = enough + 1 if sum(learned.right) >= ENOUGH * sum(final) else 0
            yield learned

    def _learned(self, stretches: int) -> Round:
        """Learn from what is labelled, and score."""
        self.learner.start()
        self.learner.wait()
        state, head, labels = self.learner.state, self.learner.head(), self.setting.labels
        assert state.state == "idle", state.message
        slots = sum(span.stop - span.start for spans in self.spans.values() for span in spans)
        right = []
        for video in self.setting.test:
            only = self.classes.index(next(iter(self.spans.values()))[0].label) if self.spans else -1
            said = only if head is None else head.predict(torch.from_numpy(self.videos.read(video))).numpy()
            right.append(int((said == labels[video])[labels[video] != IGNORED].sum()))
        known = None if state.accuracy is None else state.accuracy.mean
        return Round(stretches, slots / self.setting.rate / 60, right, known)


def raw(setting: Setting) -> Videos:
    return Videos(cache(setting.folder.vectors))


def latents(setting: Setting, work: Path, model: str | None) -> Videos:
    """Offline latents of a model, which is pretrained if there is none."""
    if model is None and not (work / "run" / "model").exists():
        rates = {"source_rate": setting.folder.source.rate, "rate": setting.folder.timeline.rate}
        told = {name: str(rate) for name, rate in rates.items()}
        config = build(RunConfig, {"data": {"root": setting.folder.root, "split": SPLIT, **told}})
        keystep.pretrain(config, work / "run", resume=(work / "run").exists(), progress=Lines(print))
    loaded = keystep.load(model or work / "run")
    assert not {*setting.test} & {*loaded.origin.videos}, "the model was pretrained on test videos"
    out = encode(loaded, setting.folder, out=work / "latents").root / "features"
    return Videos(lambda video: np.load(out / f"{video}.npy", mmap_mode="r+"), loaded.bands())


def best_control(setting: Setting) -> tuple[Videos, str]:
    """The control that is best with all labels of the pool, by cross-validation there, and its name.

    Nobody who begins to label has these labels: this favours the control.
    """
    read, rate = raw(setting).read, setting.rate
    train = [read(video) for video in setting.pool]
    candidates = Candidates(train, rate, decorrelation_time(train, Fraction(setting.folder.timeline.rate)).tau)

    def judged(control: Control) -> float:
        videos = applied(control, read, setting.pool[0])
        rows = {video: videos.read(video) for video in setting.pool}
        basis = Basis.fit(np.concatenate([some[:: max(1, len(some) // 240)] for some in rows.values()]), videos.bands)
        classes = len(setting.folder.classes)
        evidence = {
            video: Evidence.of(basis.apply(some), setting.labels[video], classes) for video, some in rows.items()
        }
        accuracy = cross_validate(evidence).accuracy
        assert accuracy is not None
        return accuracy.mean

    smoothing = max(candidates.smoothing(causal=False), key=judged)
    offsets = max(candidates.offsets(causal=False), key=judged)
    together = candidates.together(smoothing, offsets, causal=False)
    rivals = [offsets, together, *candidates.histories(causal=False).values()]
    best = max(rivals, key=judged)
    print(f"{setting.name}: best control {best.name}")
    return applied(best, read, setting.pool[0]), best.name


def applied(control: Control, read: Callable[[str], np.ndarray], some: str) -> Videos:
    """A control of all videos; its parts are bands."""
    frames = read(some)
    bands = {name: part.transform(frames).shape[1] for name, part in control.parts.items()}
    return Videos(cache(lambda video: control.transform(read(video))), bands or None)


def _folder(name: str, work: Path, data: Path | None) -> FeatureFolder | None:
    if name == "history":
        root = work / name / "data"
        if not root.exists():
            generate(root, SyntheticConfig.demo())
        return open_dataset(root)
    if data is None or not (data / name).is_dir():
        return None
    source, rate = RATES[name]
    return open_dataset(data / name, source_rate=source, rate=rate)


def _command(options: argparse.Namespace) -> str:
    """Without the places of a machine."""
    given = "".join(f" --model {each.split('=')[0]}=RUN" for each in options.model)
    return f"python benchmarks/labelling.py WORK --data DATA{given} --seeds {options.seeds} --out {options.out}"


def _options() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("work", type=Path)
    found.add_argument("--data", type=Path)
    found.add_argument("--sets", nargs="+", choices=tuple(RATES), default=list(RATES))
    found.add_argument("--model", action="append", default=[], metavar="NAME=RUN")
    found.add_argument("--seeds", type=int, default=3, help="of the order of labelling")
    found.add_argument("--out", type=Path, default=Path("benchmarks/results/labelling"))
    found.add_argument("--draw", action="store_true", help="only write the page and the picture again")
    return found.parse_args()


if __name__ == "__main__":
    main()
