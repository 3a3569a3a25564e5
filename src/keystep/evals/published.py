"""Results printed in the paper, shown next to our rows and always marked as quoted. They were not reproduced here.

Source: "P-JEPA: Procedural Video Representation Learning via Joint Embedding Predictive Architecture",
arXiv 2606.23256. In percent, except for the geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

SEGMENTATION = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


@dataclass(frozen=True)
class Quoted:
    """A row of a published table.

    representation, head: the paper's names. scores: in the order of the table's metrics. note: information that the
    model used, or other caveats.
    """

    representation: str
    head: str
    scores: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A published table. protocol: how it was measured, as far as the paper and its code say."""

    title: str
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[Quoted, ...]


def _row(representation: str, head: str, scores: str, note: str = "") -> Quoted:
    return Quoted(representation, head, tuple(float(score) for score in scores.split("/")), note)


_ORACLE = "ORACLE: true segments in attention and positions, at test time too"
_POSITIONS = "ORACLE: true segments in the positions, at test time too"
_LABELS = "features made with this data set's action labels"
_FUTURE = "the head normalises over the whole sequence, so it is not causal"

ASSEMBLY101 = PublishedTable(
    "Assembly101, camera C10119, 202 coarse classes, validation videos",
    "official, no background class; encoder and probe epoch chosen on the same videos",
    SEGMENTATION,
    (
        _row("V-JEPA 2.1 mean-pool", "linear", "16.1/3.3/2.7/1.9/1.1"),
        _row("V-JEPA 2.1 mean-pool + P-JEPA", "linear", "29.4/18.6/16.0/13.5/10.3", _ORACLE),
        _row("V-JEPA 2.1 action-pool", "linear", "34.0/18.5/17.8/15.5/10.2", _LABELS),
        _row("V-JEPA 2.1 action-pool + P-JEPA", "linear", "40.0/27.8/26.0/23.0/16.9", f"{_LABELS}; {_ORACLE}"),
        _row("TSM", "linear", "23.5/3.0/2.4/1.1/0.4", _LABELS),
        _row("TSM + P-JEPA", "linear", "40.1/15.0/15.2/13.1/9.8", f"{_LABELS}; {_ORACLE}"),
        _row("TSM + P-JEPA, token-causal", "linear", "35.6/7.6/7.0/5.6/1.0", f"{_LABELS}; {_POSITIONS}"),
        _row("TSM + P-JEPA, bidirectional", "linear", "37.6/12.2/12.2/9.8/7.2", f"{_LABELS}; {_POSITIONS}"),
        _row("V-JEPA 2.1 mean-pool", "LTContext", "30.6/26.2/26.0/21.7/14.3"),
        _row("V-JEPA 2.1 mean-pool + P-JEPA", "LTContext", "33.8/27.6/29.3/25.0/18.7", _ORACLE),
        _row("V-JEPA 2.1 action-pool", "LTContext", "41.6/32.7/34.4/30.1/21.9", _LABELS),
        _row("V-JEPA 2.1 action-pool + P-JEPA", "LTContext", "43.0/34.2/35.9/31.5/22.3", f"{_LABELS}; {_ORACLE}"),
        _row("TSM", "LTContext", "40.2/32.2/34.3/30.5/22.4", _LABELS),
        _row("TSM + P-JEPA", "LTContext", "42.9/35.9/37.3/34.0/26.4", f"{_LABELS}; {_ORACLE}"),
    ),
)
EGOPROCEL = PublishedTable(
    "EgoProceL, I3D, 731/183 videos, 115 steps and background, streaming",
    "official; chosen on the test split",
    ("accuracy", "accuracy_foreground", "edit", "f1@10", "f1@25", "f1@50"),
    (
        _row("I3D", "FACT", "69.2/19.2/18.1/14.8/13.8/10.9"),
        _row("I3D + P-JEPA", "FACT", "76.8/39.1/28.8/26.9/25.9/24.1", _ORACLE),
        _row("I3D", "LT-Causal", "78.6/55.3/40.2/35.0/32.0/25.7", _FUTURE),
        _row("I3D + P-JEPA", "LT-Causal", "80.8/58.8/48.9/42.1/40.3/34.4", f"{_FUTURE}; {_ORACLE}"),
    ),
)
EGOPROCEL_FEWER_LABELS = PublishedTable(
    "EgoProceL, I3D, a share of the training labels, offline",
    "official; chosen on the test split",
    ("accuracy", "edit", "f1@50"),
    tuple(
        _row(f"I3D{added}, {share} of labels", "FACT", scores, _ORACLE if added else "")
        for share, raw, ours in (
            ("15 %", "50.8/41.8/26.3", "50.1/52.1/36.9"),
            ("33 %", "61.4/53.9/38.5", "66.1/65.2/52.2"),
            ("50 %", "67.5/64.6/48.1", "74.4/72.7/59.8"),
            ("100 %", "81.8/83.7/68.1", "81.2/81.6/69.8"),
        )
        for added, scores in (("", raw), (" + P-JEPA", ours))
    ),
)
EGOPROCEL_GEOMETRY = PublishedTable(
    "EgoProceL, geometry of the features, median over validation videos",
    "keystep eval reports the same measures for your models, under Geometry",
    ("straightness", "time Spearman", "efficiency", "monotonic", "adjacent neighbours", "adjacent cosine", "start-end"),
    (
        _row("I3D", "", ".0589/.608/.351/.587/.474/.034/.263"),
        _row("I3D + P-JEPA", "", ".0839/.935/.769/.706/.800/.338/1.136", _ORACLE),
    ),
)
EGOEXO4D = PublishedTable(
    "EgoExo4D keystep recognition, trimmed clips, 278 classes, 14,326/4,517 clips, validation",
    "top-1 of trimmed egocentric clips",
    ("clip top-1",),
    (
        _row("TimeSformer", "", "35.1"),
        _row("EgoVLPv2", "", "39.1"),
        _row("view-invariant encoder", "", "40.3"),
        _row("VideoLLM-MoD", "", "42.6"),
        _row("ProVideLLM-8B", "", "44.4"),
        _row("P-JEPA", "streaming probe", "56.85", "with the preceding part of the take"),
    ),
)

PUBLISHED: dict[str, tuple[PublishedTable, ...]] = {
    "assembly101": (ASSEMBLY101,),
    "egoprocel": (EGOPROCEL, EGOPROCEL_FEWER_LABELS, EGOPROCEL_GEOMETRY),
    "egoexo4d": (EGOEXO4D,),
}
"""Data set name, as for ``keystep prepare`` -> its published tables."""
