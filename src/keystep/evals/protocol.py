"""The honest table: raw features, the controls, and learned representations, judged alike.

Every row is a linear probe on frozen representations (`keystep.evals.judge`). Widths, reaches and probe settings are
chosen on the validation videos; the test videos only score. A learned row has to beat raw features and everything that
learns nothing, and to add something to the best of it (`keystep.evals.gate`). What the gate compares with is the one
exception to the rule: the strongest control on the test videos themselves, so that no unlucky choice on validation
makes a learned row look good. That errs against the learned row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import Field

from keystep.config import Config
from keystep.config.base import build
from keystep.errors import InputError
from keystep.evals.bootstrap import Difference
from keystep.evals.controls import Control
from keystep.evals.geometry import Geometry
from keystep.evals.judge import Judge, Representation
from keystep.evals.probe import ProbeConfig
from keystep.evals.published import PUBLISHED
from keystep.evals.rows import PROBE, HeadRow, Mode, Row
from keystep.heads import HeadConfig, TrainingConfig, head_config
from keystep.heads.registry import check_head_name
from keystep.metrics import PROTOCOLS
from keystep.pjepa import PJEPA

if TYPE_CHECKING:
    from keystep.evals.task import TaskTable

SEEDS_FOR_A_CLAIM = 3
SELECTION = (
    "widths, reaches and penalties on the validation videos; test videos only score, and name the rival of each line "
    "of the gate: the strongest control of its kind on them, which errs against the learned row"
)
"""What is chosen by what, for the result file."""
PAIR = "against "
"""Beginning of claims about given models against raw features and each other, which are no part of the gate proper."""
QUICK_NOTE = "a quick look (--quick): fewer widths and rows, probes on fewer frames; nothing may be claimed of it"
BEST_ON_TEST = ", best on test"
"""End of the name of a control's row that the test videos chose: a rival for the gate."""
TOKENS_NOTE = "{} tokens a slot: raw features, and the controls made of them, are their mean"

Question = Literal["raw", "control", "adds", "adds to smoothing", "untrained", "reconstruction", "pair", "head"]
ASKS: dict[Question, str] = {
    "raw": "Do the latents tell more about the steps than the features that they are made of?",
    "control": "Do they tell more than anything that learns nothing: averages, neighbours in time, what has been, the "
    "clock, and all of these together?",
    "adds": "Do they add anything to the best of that?",
    "adds to smoothing": "Do they add anything to a moving average of the features?",
    "untrained": "Is it training that adds it, or do random weights do so too?",
    "reconstruction": "Is it this objective that adds it, or does filling in the input do so too?",
    "pair": "Is the one better than the other?",
    "head": "Do the latents serve a head better that sees neighbouring frames itself?",
}
"""What each line of the gate asks, in plain words."""
Verdict = Literal["holds", "fails", "not enough seeds", "answers later", "quick look"]


SUITES: Mapping[str, Mapping[str, Any]] = {"paper": {"heads": ["linear", "mstcn", "context"]}}
"""Names of settings that ``keystep eval --suite`` starts from."""


class EvalConfig(Config):
    """How to judge."""

    heads: tuple[str, ...] = (PROBE,)
    """``linear``, the probe of the table and of the gate, and presets of temporal heads, which are trained beside it:
    mstcn, context, attentive, mstcn-small, context-small, or heads of your own (``keystep plugins``)."""
    modes: tuple[Mode, ...] = get_args(Mode)
    """``offline`` sees whole videos, ``causal`` only the past."""

    probe: ProbeConfig = ProbeConfig()
    background: tuple[str, ...] = ()
    """Classes left out of edit, F1 and the foreground accuracy."""
    protocol: str = "pooled"
    """Convention of the metrics: pooled, video-mean, fact or official."""
    label_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training and validation videos whose labels the probes may use; fewer are a part of more."""
    label_seed: int = Field(default=0, ge=0)
    """Another number draws other videos for the share."""
    tau: float | None = Field(default=None, gt=0)
    """Seconds after which the features are half forgotten: the unit of the controls' widths and reaches. None: measured
    on the training videos."""
    head_settings: dict[str, dict[str, Any]] = Field(default={})
    """Changes of a preset, such as {mstcn: {maps: 32}}."""
    training: TrainingConfig = TrainingConfig(patience=10)
    """Of temporal heads."""
    seeds: int = Field(default=3, ge=0)
    """Seeds of temporal heads on representations that have no seed themselves (0: leave these out); a model's seeds are
    its runs."""
    by_segments: bool = False
    """Also score each true segment by one answer, as EgoProceL's streaming evaluation does (ORACLE)."""
    data_set: str | None = None
    """As for ``keystep prepare``: whose published rows stand beside those of temporal heads. None: as the folder
    says."""

    @property
    def temporal_heads(self) -> tuple[str, ...]:
        """The heads that are trained beside the probe."""
        return tuple(name for name in self.heads if name != PROBE)

    def head(self, preset: str, mode: Mode) -> HeadConfig:
        """A preset with its changes; strictly causal in causal mode, where the kind has both.

        Raises:
            InputError: settings that it does not have, or do not fit.
        """
        changes = self.head_settings.get(preset, {})
        if "causal" in changes:
            raise InputError(f"head_settings of {preset}: causal follows from the mode; leave it out")
        try:
            settings = head_config(preset, changes)
            causal = {"causal": mode == "causal"} if "causal" in type(settings).model_fields else {}
            return head_config(preset, {**changes, **causal})
        except InputError as error:
            raise InputError(f"head {preset}: {str(error).lstrip(': ')}") from error

    def checked(self, heads: Sequence[str] | None = None, modes: Sequence[Mode] | None = None) -> EvalConfig:
        """The same, with other heads and modes where they are given.

        Raises:
            InputError: names that are unknown or given twice, or settings of heads that are not judged.
        """
        asked = {"heads": self.heads if heads is None else heads, "modes": self.modes if modes is None else modes}
        for what, names in asked.items():
            if not names or len(set(names)) < len(names):
                raise InputError(f"{what} {', '.join(names) or 'none'}: give one or more, each once")
        unknown_modes = [mode for mode in asked["modes"] if mode not in get_args(Mode)]
        if unknown_modes:
            raise InputError(f"unknown mode {unknown_modes[0]!r}; expected {' or '.join(get_args(Mode))}")
        for name in asked["heads"]:
            check_head_name(name)
        found = self.model_copy(update={what: tuple(names) for what, names in asked.items()})
        unknown = sorted(set(found.head_settings) - set(found.temporal_heads))
        if unknown:
            raise InputError(f"head_settings of {unknown[0]}, which is no temporal head of {', '.join(found.heads)}")
        if found.protocol not in PROTOCOLS:
            raise InputError(f"protocol {found.protocol!r} is none of {', '.join(PROTOCOLS)}")
        if found.data_set is not None and found.data_set not in PUBLISHED:
            raise InputError(f"data_set {found.data_set!r}: no printed rows; there are {', '.join(PUBLISHED)}")
        for mode in found.modes:
            for preset in found.temporal_heads:
                found.head(preset, mode)
        return found


def eval_config(settings: Mapping[str, Any], suite: str | None = None) -> EvalConfig:
    """Settings of an evaluation, all checked. suite: a key of `SUITES`, to start from.

    Raises:
        InputError: an unknown suite, setting, head or data set, or a value that does not fit.
    """
    if suite is not None and suite not in SUITES:
        raise InputError(f"--suite {suite!r} is none of {', '.join(SUITES)}")
    return build(EvalConfig, SUITES[suite] if suite else {}, settings).checked()


@dataclass
class ClipRow:
    """Linear probes on a representation's clips, each fitted in the context that it is used in: top-1 of each seed."""

    name: str
    clips: int
    top1: dict[str, list[float]]


@dataclass(frozen=True)
class Entrant:
    """A trained model to judge; models of one name are the seeds of one row."""

    name: str
    seed: int
    model: PJEPA
    reconstruction: bool = False
    """Trained to reconstruct its input: a control, not a claim."""


class Simple(NamedTuple):
    """The row of a control, and what makes its representation of features."""

    row: Row
    control: Control


class Pair(NamedTuple):
    """What the gate compares: a row, and the row to beat."""

    question: Question
    claim: str
    row: Row
    rival: Row


@dataclass(frozen=True)
class Comparison:
    """One line of the gate: a beats b, or does not, or nobody can say."""

    question: Question
    claim: str
    mode: Mode
    first: str
    second: str
    difference: Difference
    later: bool = False
    """The first answers later than the second, so it has seen more of the future: no fair win."""
    quick: bool = False
    """Of a quick look, which claims nothing."""
    drawn_rival: bool = False
    """The second hangs on a seed, too, so that it needs as many."""
    stronger: str = ""
    """A simple control that scores higher than the second on the test videos, and that the first does not beat."""
    head: str = PROBE
    metric: str = "accuracy"

    @property
    def verdict(self) -> Verdict:
        """``holds``: better, with an interval that excludes zero, over enough seeds, not by waiting longer.

        With too few seeds nothing is known of what another seed would say, so the line neither holds nor fails.
        """
        if self.quick:
            return "quick look"
        seeds = min(self.difference.seeds) if self.drawn_rival else self.difference.seeds[0]
        if seeds < SEEDS_FOR_A_CLAIM:
            return "not enough seeds"
        if self.difference.low <= 0:
            return "fails"
        if self.later:
            return "answers later"
        return "fails" if self.stronger else "holds"

    @property
    def holds(self) -> bool:
        """Whether it may be claimed."""
        return self.verdict == "holds"

    @property
    def asks(self) -> str:
        """The question of the line in plain words."""
        return ASKS[self.question]


@dataclass
class Evaluation:
    """The table, the gate, the geometry, and the representations that pictures need."""

    judge: Judge
    rows: list[Row] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    gate: list[Comparison] = field(default_factory=list)
    """Each pair's difference; empty where there are too few test videos for an interval."""
    best_control: dict[Mode, Simple] = field(default_factory=dict)
    """Of raw features and all that learns nothing, what is best on the validation videos."""
    geometry: dict[str, Geometry] = field(default_factory=dict)
    shown: dict[str, Representation] = field(default_factory=dict)
    """Name -> representation of the test videos, for the pictures: raw features and the first learned latents."""
    head_rows: list[HeadRow] = field(default_factory=list)
    head_gains: list[Comparison] = field(default_factory=list)
    """What learned representations gain under temporal heads, in three metrics."""
    clip_rows: list[ClipRow] = field(default_factory=list)
    segment_scores: list[dict[str, Any]] = field(default_factory=list)
    """Of one answer for each true segment (ORACLE), where that was asked for."""
    task_tables: list[TaskTable] = field(default_factory=list)
    """Of a task from outside, where one was asked for."""
    leaks: list[str] = field(default_factory=list)
    """What the judged models had seen of the test videos, a line each: nothing beside it can be trusted fully."""
    quick: bool = False
    fits: int = 0
    """Probes fitted, each over its penalties: how much choosing went on (on validation videos)."""

    def find(self, name: str, mode: Mode) -> Row | None:
        """The row of that name and mode."""
        return next((row for row in self.rows if row.name == name and row.mode == mode), None)
