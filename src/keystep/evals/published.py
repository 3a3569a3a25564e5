"""What the paper prints, to stand beside our own rows and always marked as quoted: nobody has run these here.

Source: "P-JEPA: Procedural Video Representation Learning via Joint Embedding Predictive Architecture",
arXiv 2606.23256. Percent; accuracy, edit, F1@10, F1@25, F1@50.
"""

from __future__ import annotations

from dataclasses import dataclass

METRICS = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


@dataclass(frozen=True)
class Quoted:
    """One printed row.

    representation, head: as the paper calls them. scores: metric -> percent. note: what makes it differ from ours.
    """

    representation: str
    head: str
    scores: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class Published:
    """The paper's table of one data set. protocol: how it was measured, as far as the paper and its code tell."""

    title: str
    protocol: str
    rows: tuple[Quoted, ...]


def _row(representation: str, head: str, scores: str, note: str = "") -> Quoted:
    values = (float(score) for score in scores.split("/"))
    return Quoted(representation, head, dict(zip(METRICS, values, strict=True)), note)


_ORACLE = "ORACLE: clip-causal attention and positions by true segments, at test time too"
_FUTURE = "the head normalises over the whole sequence, so it is not causal"

PUBLISHED: dict[str, Published] = {
    "assembly101": Published(
        "Assembly101, camera C10119, 202 coarse classes, validation videos",
        "official, without background; encoder and probe epoch chosen on the same videos",
        (
            _row("V-JEPA 2.1 mean-pool", "linear", "16.1/3.3/2.7/1.9/1.1"),
            _row("V-JEPA 2.1 mean-pool + P-JEPA", "linear", "29.4/18.6/16.0/13.5/10.3", _ORACLE),
            _row("V-JEPA 2.1 action-pool", "linear", "34.0/18.5/17.8/15.5/10.2", "features made with action labels"),
            _row("V-JEPA 2.1 action-pool + P-JEPA", "linear", "40.0/27.8/26.0/23.0/16.9", _ORACLE),
            _row("TSM", "linear", "23.5/3.0/2.4/1.1/0.4"),
            _row("TSM + P-JEPA", "linear", "40.1/15.0/15.2/13.1/9.8", _ORACLE),
            _row("TSM + P-JEPA, token-causal", "linear", "35.6/7.6/7.0/5.6/1.0", "positions by true segments"),
            _row("TSM + P-JEPA, bidirectional", "linear", "37.6/12.2/12.2/9.8/7.2", "positions by true segments"),
            _row("V-JEPA 2.1 mean-pool", "LTContext", "30.6/26.2/26.0/21.7/14.3"),
            _row("V-JEPA 2.1 mean-pool + P-JEPA", "LTContext", "33.8/27.6/29.3/25.0/18.7", _ORACLE),
            _row("V-JEPA 2.1 action-pool", "LTContext", "41.6/32.7/34.4/30.1/21.9", "features made with action labels"),
            _row("V-JEPA 2.1 action-pool + P-JEPA", "LTContext", "43.0/34.2/35.9/31.5/22.3", _ORACLE),
            _row("TSM", "LTContext", "40.2/32.2/34.3/30.5/22.4"),
            _row("TSM + P-JEPA", "LTContext", "42.9/35.9/37.3/34.0/26.4", _ORACLE),
        ),
    ),
    "egoprocel": Published(
        "EgoProceL, I3D, 115 steps and background, streaming",
        "official, accuracy with background, the rest without; chosen on the test split",
        (
            _row("I3D", "FACT", "69.2/18.1/14.8/13.8/10.9", "accuracy without background 19.2"),
            _row("I3D + P-JEPA", "FACT", "76.8/28.8/26.9/25.9/24.1", f"accuracy without background 39.1; {_ORACLE}"),
            _row("I3D", "LT-Causal", "78.6/40.2/35.0/32.0/25.7", f"accuracy without background 55.3; {_FUTURE}"),
            _row(
                "I3D + P-JEPA",
                "LT-Causal",
                "80.8/48.9/42.1/40.3/34.4",
                f"accuracy without background 58.8; {_FUTURE}; {_ORACLE}",
            ),
        ),
    ),
    "egoexo4d": Published(
        "EgoExo4D keystep recognition, trimmed clips, 278 classes, top-1, validation",
        "trimmed clips; P-JEPA with causal context of the same take",
        tuple(
            Quoted(name, "", {"accuracy": score}, note)
            for name, score, note in (
                ("TimeSformer", 35.1, ""),
                ("EgoVLPv2", 39.1, ""),
                ("view-invariant encoder", 40.3, ""),
                ("VideoLLM-MoD", 42.6, ""),
                ("ProVideLLM-8B", 44.4, ""),
                ("P-JEPA + streaming probe", 56.85, "with what came before in the take"),
            )
        ),
    ),
}
"""Name of a data set, as for ``keystep prepare`` -> what was printed."""
