"""The evaluation protocol: raw features, controls and learned representations under the same linear probe.

Every row is a linear probe on a frozen representation (`keystep.evals.judge`). Control parameters and probe
hyperparameters are selected on the validation videos; the test videos are used for scoring only. A learned row has to
beat raw features and every control, and to add information to the best control (`keystep.evals.gate`). There is one
exception: the gate's rival is the strongest control on the test videos, so that an unlucky choice on the validation
videos cannot favour a learned row. This biases the comparison against the learned row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import Field

from keystep.config import Config
from keystep.config.base import build
from keystep.errors import InputError
from keystep.evals.bootstrap import Difference
from keystep.evals.controls import Control
from keystep.evals.geometry import Geometry
from keystep.evals.judge import Judge
from keystep.evals.probe import ProbeConfig
from keystep.evals.published import PUBLISHED
from keystep.evals.representation import Representation
from keystep.evals.rows import PROBE, HeadRow, Mode, Row
from keystep.heads import HeadConfig, TrainingConfig, head_config
from keystep.heads.registry import check_head_name
from keystep.metrics import PROTOCOLS
from keystep.pjepa import PJEPA

if TYPE_CHECKING:
    from keystep.evals.task import TaskTable

SEEDS_FOR_A_CLAIM = 3
SELECTION = (
    "widths, reaches and penalties on the validation videos; the test videos are used for scoring, and to select the "
    "rival in each line of the gate (the strongest control of its kind), which biases it against the learned row"
)
"""How parameters are selected, for the result file."""
PAIR = "against "
"""Prefix of claims that compare given models with raw features and with each other, which are not part of the gate."""
QUICK_NOTE = "a quick look (--quick): fewer widths and rows, probes on fewer frames; not sufficient for claims"
BEST_ON_TEST = ", best on test"
"""Suffix of the name of a control selected on the test videos, which only serves as a rival in the gate."""
TOKENS_NOTE = "{} tokens per slot: raw features and controls use their mean"

Question = Literal["raw", "control", "adds", "adds to smoothing", "untrained", "reconstruction", "pair", "head", "task"]
ASKS: dict[Question, str] = {
    "raw": "Do the latents predict the steps better than the input features?",
    "control": "Do they beat every control without learning: moving averages, temporal offsets, histories, the clock, "
    "and all of these combined?",
    "adds": "Do they add information to the best control?",
    "adds to smoothing": "Do they add information to a moving average of the features?",
    "untrained": "Does training help, or do random weights do as well?",
    "reconstruction": "Does this objective help, or does masked reconstruction do as well?",
    "pair": "Is one better than the other?",
    "head": "Do the latents still help a head that models time itself?",
    "task": "Are the latents better at this task than the strongest control?",
}
"""Question -> its wording in the report."""
Verdict = Literal["holds", "fails", "not enough seeds", "answers later", "quick look"]


SUITES: Mapping[str, Mapping[str, Any]] = {"paper": {"heads": ["linear", "mstcn", "context"]}}
"""Named settings for ``keystep eval --suite``."""


class EvalConfig(Config):
    """Settings of an evaluation."""

    heads: tuple[str, ...] = (PROBE,)
    """``linear`` is the probe of the tables and the gate. Presets of temporal heads (mstcn, context, attentive,
    mstcn-small, context-small) and heads of your own (``keystep plugins``) are trained in addition.
    """
    modes: tuple[Mode, ...] = get_args(Mode)
    """``offline`` uses the whole video, ``causal`` only the past."""

    probe: ProbeConfig = ProbeConfig()
    background: tuple[str, ...] = ()
    """Classes excluded from edit, F1 and the foreground accuracy."""
    protocol: str = "pooled"
    """Convention of the metrics: pooled, video-mean, fact or official."""
    label_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training and validation videos whose labels are used. Smaller shares are subsets of larger ones."""
    label_seed: int = Field(default=0, ge=0)
    """Selects which videos keep their labels."""
    tau: float | None = Field(default=None, gt=0)
    """Decorrelation time of the features in seconds, which is the unit of the controls' widths and reaches. None:
    measured on the training videos.
    """
    head_settings: dict[str, dict[str, Any]] = Field(default={})
    """Changes to presets, such as {mstcn: {maps: 32}}."""
    training: TrainingConfig = TrainingConfig(patience=10)
    """How temporal heads are trained."""
    seeds: int = Field(default=3, ge=0)
    """Seeds of temporal heads on raw features and controls, which have no seed of their own (0: skip these rows). For
    models, each run is a seed.
    """
    by_segments: bool = False
    """Also score one prediction for each true segment, as in EgoProceL's streaming evaluation (ORACLE)."""
    data_set: str | None = None
    """A name as for ``keystep prepare``: its published results are shown next to those of temporal heads. None: as
    stored in the folder.
    """

    @property
    def temporal_heads(self) -> tuple[str, ...]:
        """The heads other than the linear probe."""
        return tuple(name for name in self.heads if name != PROBE)

    def head(self, preset: str, mode: Mode) -> HeadConfig:
        """The config of a preset with `head_settings` applied. In causal mode it is causal, if the kind supports that.

        Raises:
            InputError: unknown settings or values that are not allowed.
        """
        changes = self.head_settings.get(preset, {})
        if "causal" in changes:
            raise InputError(f"head_settings of {preset}: causal is set by the mode; remove it")
        try:
            settings = head_config(preset, changes)
            causal = {"causal": mode == "causal"} if "causal" in type(settings).model_fields else {}
            return head_config(preset, {**changes, **causal})
        except InputError as error:
            raise InputError(f"head {preset}: {str(error).lstrip(': ')}") from error

    def checked(self, heads: Sequence[str] | None = None, modes: Sequence[Mode] | None = None) -> EvalConfig:
        """Validate the config.

        Args:
            heads, modes: replace those of the config if given.

        Returns:
            The config with these heads and modes.

        Raises:
            InputError: unknown or repeated names, or settings of heads that are not evaluated.
        """
        asked = {"heads": self.heads if heads is None else heads, "modes": self.modes if modes is None else modes}
        for what, names in asked.items():
            if not names or len(set(names)) < len(names):
                raise InputError(f"{what} {', '.join(names) or 'none'}: give at least one, without repetition")
        unknown_modes = [mode for mode in asked["modes"] if mode not in get_args(Mode)]
        if unknown_modes:
            raise InputError(f"unknown mode {unknown_modes[0]!r}; expected {' or '.join(get_args(Mode))}")
        for name in asked["heads"]:
            check_head_name(name)
        found = self.model_copy(update={what: tuple(names) for what, names in asked.items()})
        unknown = sorted(set(found.head_settings) - set(found.temporal_heads))
        if unknown:
            raise InputError(f"head_settings of {unknown[0]}, which is not a temporal head in {', '.join(found.heads)}")
        if found.protocol not in PROTOCOLS:
            raise InputError(f"unknown protocol {found.protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        if found.data_set is not None and found.data_set not in PUBLISHED:
            raise InputError(f"no published results of data_set {found.data_set!r}; expected {', '.join(PUBLISHED)}")
        for mode in found.modes:
            for preset in found.temporal_heads:
                found.head(preset, mode)
        return found

    def check_quick(self, quick: bool) -> None:
        """Refuse temporal heads in a quick look.

        Raises:
            InputError: it is one, and there are heads other than the linear probe.
        """
        if quick and self.temporal_heads:
            heads = ", ".join(self.temporal_heads)
            raise InputError(f"a quick look has linear probes only; leave out --quick, or heads {heads}")


def eval_config(settings: Mapping[str, Any], suite: str | None = None) -> EvalConfig:
    """Build and validate an evaluation config.

    Args:
        settings: as parsed from ``--set``.
        suite: a key of `SUITES` to start from.

    Raises:
        InputError: an unknown suite, setting, head or data set, or an invalid value.
    """
    if suite is not None and suite not in SUITES:
        raise InputError(f"unknown --suite {suite!r}; expected one of {', '.join(SUITES)}")
    return build(EvalConfig, SUITES[suite] if suite else {}, settings).checked()


@dataclass
class ClipRow:
    """Linear probes on the trimmed clips of a representation.

    top1: context -> the top-1 accuracy of each seed. Each probe is trained and tested with the same context.
    """

    name: str
    clips: int
    top1: dict[str, list[float]]


@dataclass(frozen=True)
class Entrant:
    """A trained model to evaluate. Models with the same name are the seeds of one row."""

    name: str
    seed: int
    model: PJEPA
    reconstruction: bool = False
    """Whether it was trained to reconstruct its input, which makes it a control."""


class Simple(NamedTuple):
    """A control's row and the control."""

    row: Row
    control: Control


class Pair(NamedTuple):
    """A row of the gate and the rival that it has to beat."""

    question: Question
    claim: str
    row: Row
    rival: Row


@dataclass(frozen=True)
class Comparison:
    """A comparison of two rows.

    first, second: names of the rows. difference: first minus second.
    """

    question: Question
    claim: str
    mode: Mode
    first: str
    second: str
    difference: Difference
    later: bool = False
    """The first row's answers are final later than the second's, so it has seen more of the future."""
    quick: bool = False
    """Part of a quick look, which supports no claims."""
    drawn_rival: bool = False
    """The second row depends on a seed too, so it needs as many seeds as the first."""
    stronger: str = ""
    """A control that scores higher than the second row on the test videos and is not beaten by the first."""
    head: str = PROBE
    metric: str = "accuracy"

    @property
    def verdict(self) -> Verdict:
        """``holds`` if the first row is better with an interval above 0, over enough seeds and without a longer delay.

        With too few seeds the comparison is undecided.
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
        """Whether the claim is supported."""
        return self.verdict == "holds"

    @property
    def asks(self) -> str:
        """The question in the report."""
        return ASKS[self.question]

    def to_json(self) -> dict[str, Any]:
        """The comparison as in the result file."""
        facts = ("question", "asks", "claim", "mode", "head", "metric", "first", "second")
        verdicts = ("verdict", "holds", "later", "stronger", "quick")
        return {**{fact: getattr(self, fact) for fact in (*facts, *verdicts)}, **asdict(self.difference)}


@dataclass
class Evaluation:
    """The result of an evaluation in memory: rows, gate, geometry, and the representations that pictures need."""

    judge: Judge
    rows: list[Row] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    gate: list[Comparison] = field(default_factory=list)
    """A comparison for each pair; empty if there are too few test videos for an interval."""
    best_control: dict[Mode, Simple] = field(default_factory=dict)
    """Mode -> the best of raw features and controls on the validation videos."""
    geometry: dict[str, Geometry] = field(default_factory=dict)
    shown: dict[str, Representation] = field(default_factory=dict)
    """Name -> representation of the test videos to draw: raw features and the first learned latents."""
    head_rows: list[HeadRow] = field(default_factory=list)
    head_gains: list[Comparison] = field(default_factory=list)
    """Differences between learned representations and controls under temporal heads, in three metrics."""
    clip_rows: list[ClipRow] = field(default_factory=list)
    segment_scores: list[dict[str, Any]] = field(default_factory=list)
    """Scores of one prediction for each true segment (ORACLE), if requested."""
    task_tables: list[TaskTable] = field(default_factory=list)
    """The table of another task, if requested."""
    leaks: list[str] = field(default_factory=list)
    """Models that were pretrained on test videos, one line each. Their scores are not reliable."""
    quick: bool = False
    fits: int = 0
    """Number of probes fitted, each over all penalties."""

    def find(self, name: str, mode: Mode) -> Row | None:
        """The row with a name and mode, or None."""
        return next((row for row in self.rows if row.name == name and row.mode == mode), None)
