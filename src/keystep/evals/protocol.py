"""The honest table: raw features, the controls, and learned representations, judged alike.

Every row is a linear probe on frozen representations (`keystep.evals.judge`). Widths, reaches and probe settings are
chosen on the validation videos; the test videos only score. A learned row has to beat raw features and everything that
learns nothing, and to add something to the best of it (`keystep.evals.gate`). What the gate compares with is the one
exception to the rule: the strongest control on the test videos themselves, so that no unlucky choice on validation
makes a learned row look good. That errs against the learned row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import Field

from keystep.config import Config
from keystep.evals.bootstrap import Difference
from keystep.evals.controls import Control
from keystep.evals.geometry import Geometry
from keystep.evals.judge import Judge, Mode, Representation, Row
from keystep.evals.probe import ProbeConfig
from keystep.pjepa import PJEPA

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

Question = Literal["raw", "control", "adds", "adds to smoothing", "untrained", "reconstruction", "pair"]
ASKS: dict[Question, str] = {
    "raw": "Do the latents tell more about the steps than the features that they are made of?",
    "control": "Do they tell more than anything that learns nothing: averages, neighbours in time, what has been, the "
    "clock, and all of these together?",
    "adds": "Do they add anything to the best of that?",
    "adds to smoothing": "Do they add anything to a moving average of the features?",
    "untrained": "Is it training that adds it, or do random weights do so too?",
    "reconstruction": "Is it this objective that adds it, or does filling in the input do so too?",
    "pair": "Is the one better than the other?",
}
"""What each line of the gate asks, in plain words."""
Verdict = Literal["holds", "fails", "not enough seeds", "answers later", "quick look"]


class EvalConfig(Config):
    """How to judge."""

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
        return "answers later" if self.later else "holds"

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
    leaks: list[str] = field(default_factory=list)
    """What the judged models had seen of the test videos, a line each: nothing beside it can be trusted fully."""
    quick: bool = False
    fits: int = 0
    """Probes fitted, each over its penalties: how much choosing went on (on validation videos)."""

    def find(self, name: str, mode: Mode) -> Row | None:
        """The row of that name and mode."""
        return next((row for row in self.rows if row.name == name and row.mode == mode), None)
