"""The study's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from folds import Line, Score
from screening import CONTROLS, MODES, Scores


def screen_table(scores: dict[str, Scores], variants: int, fold: str) -> str:
    """The best first, by the mean over modes of what a variant reads alone."""

    def cell(name: str, mode: str, read: str) -> str:
        value = scores[name].get(mode, {}).get(read)
        return "–" if value is None else f"{value:.1f}"

    def rank(name: str) -> float:
        values = [scores[name][mode]["alone"] for mode in MODES if mode in scores[name]]
        return -sum(values) / max(1, len(values))

    heads = ["row", *(f"{mode}, {read}" for mode in MODES for read in ("alone", "beside smoothing"))]
    lines = [
        f"{variants} variants tried, one seed each, fold {fold}; frame accuracy on *validation* videos, which chose.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for name in sorted(scores, key=rank):
        marked = f"*{name}* (control)" if name in CONTROLS else name
        cells = [cell(name, mode, read) for mode in MODES for read in ("alone", "beside")]
        lines.append(f"| {' | '.join([marked, *cells])} |")
    return "\n".join(lines) + "\n"


def confirm_table(
    scores: Sequence[Score], lines: Sequence[Line], variants: Sequence[str], folds: int, seeds: int, videos: int
) -> str:
    """Rows, then the gate."""
    text = [
        f"{', '.join(variants)} over {folds} folds x {seeds} seeds, {videos} test videos. Mean over folds and seeds, "
        "± deviation",
        "over seeds. Widths and probe settings were chosen on each fold's validation videos.",
        "",
        "| representation | mode | accuracy | edit | F1@50 |",
        "|---|---|---|---|---|",
    ]
    for score in scores:
        cells = [f"{score.mean[m]:.1f}" + (f" ± {score.spread[m]:.1f}" if score.spread[m] else "") for m in score.mean]
        text.append(f"| {score.name} | {score.mode} | {' | '.join(cells)} |")
    return "\n".join([*text, "", gate_table(lines)])


def gate_table(lines: Sequence[Line]) -> str:
    """What may be claimed over all folds."""
    text = ["| mode | claim | difference | 95 % interval | |", "|---|---|---|---|---|"]
    for line in lines:
        d = line.difference
        verdict = "**holds**" if line.holds else "does not hold" + (": it answers later" if line.later else "")
        rivals = ", ".join(sorted(set(line.rivals)))
        cells = [line.mode, f"{line.first} {line.claim} ({rivals})", f"{d.mean:+.1f}", f"{d.low:+.1f} to {d.high:+.1f}"]
        text.append(f"| {' | '.join([*cells, verdict])} |")
    return "\n".join(text) + "\n"


def shares_table(by_share: Mapping[float, Sequence[Score]]) -> str:
    """Frame accuracies of every row by the share of videos that have labels."""
    shares = sorted(by_share)
    lines = [
        f"| representation | mode | {' | '.join(f'{share:.0%} labelled' for share in shares)} |",
        f"|{'---|' * (2 + len(shares))}",
    ]
    for score in by_share[shares[-1]]:
        same = {share: _found(by_share[share], score) for share in shares}
        cells = ["–" if found is None else f"{found.mean['accuracy']:.1f}" for found in same.values()]
        lines.append(f"| {score.name} | {score.mode} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _found(scores: Sequence[Score], like: Score) -> Score | None:
    return next((score for score in scores if (score.name, score.mode) == (like.name, like.mode)), None)
