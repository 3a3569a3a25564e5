"""The opening of a report: the main claim in one sentence, the rows it compares, and the video that illustrates it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keystep.evals.bootstrap import Difference, paired_bootstrap
from keystep.evals.protocol import PAIR, SEEDS_FOR_A_CLAIM
from keystep.evals.table import (
    Result,
    best_control,
    find_row,
    is_oracle,
    label,
    sections,
    strongest_control,
    sum_by_group,
)

HOLDS, FAILS, FEW, QUICK = "holds", "does not hold", "not enough seeds", "a quick look"
"""Labels of a gate comparison; the last two are undecided."""
KINDS = {"holds": HOLDS, "fails": FAILS, "answers later": FAILS, "not enough seeds": FEW, "quick look": QUICK}
"""Verdict in the result file -> label."""
MODE_WORDS = {"offline": "offline", "causal": "live"}
"""Mode -> adverb used in sentences."""
ALONE = "alone"
"""Prefix of claims about latents that are not concatenated with a control. The main claim is one of them."""


def claims(result: Result) -> list[Any]:
    """The comparisons of the gate."""
    return [line for line in result["gate"] if not line["claim"].startswith(PAIR)]


def pairs(result: Result) -> list[Any]:
    """Comparisons of the given models with raw features and with each other. They are not part of the gate."""
    return [line for line in result["gate"] if line["claim"].startswith(PAIR)]


def kind(line: Result) -> str:
    """The label of a comparison: `HOLDS`, `FAILS`, `FEW` or `QUICK`."""
    return KINDS[line["verdict"]]


def reasons(line: Result) -> str:
    """Why a comparison does not hold; empty if it holds."""
    if kind(line) == HOLDS:
        return ""
    found = []
    if line["high"] < 0:
        found.append("it is worse")
    elif line["low"] <= 0:
        found.append("the interval reaches 0")
    if line["later"]:
        found.append("it answers later than its rival")
    if line["stronger"]:
        found.append(f"{line['stronger']} is stronger than the rival")
    needed = line["seeds"] if kind(line) == FEW else line["seeds"][:1]
    few = [seeds for seeds in needed if seeds < SEEDS_FOR_A_CLAIM]
    if few:
        found.append(f"{_count(few[0], 'seed')}, {SEEDS_FOR_A_CLAIM} needed")
    return "; ".join(found)


def verdict(line: Result) -> str:
    """The label of a comparison, followed by the reasons if it does not hold."""
    why = reasons(line)
    return f"{kind(line)}: {why}" if why else kind(line)


def gate_counts(result: Result) -> str:
    """A summary such as ``10 comparisons: 7 hold, 2 do not hold, 1 has not enough seeds``."""
    counts = Counter(kind(line) for line in claims(result))
    words = {HOLDS: ("holds", "hold"), FAILS: ("does not hold", "do not hold")}
    words |= {FEW: ("has not enough seeds", "have not enough seeds"), QUICK: ("is a quick look", "are a quick look")}
    parts = [f"{counts[each]} {one if counts[each] == 1 else many}" for each, (one, many) in words.items()]
    shown = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"{_count(counts.total(), 'comparison')}: {shown}" if shown else "nothing was compared"


def hardest(result: Result) -> list[Any]:
    """The comparisons of the main row that the opening sentence reports, for each mode.

    These are the comparison with the best control (or, without one, the comparison with the lowest bound) and, if the
    row does not beat random weights, that comparison too. The main row is the first learned row that is not ORACLE, in
    the order in which the models were given. It is not the best one: selecting by test score would bias the claim.
    """
    alone = [line for line in claims(result) if line["claim"].startswith(ALONE)]
    if not alone:
        return []
    name = next((line for line in alone if "(ORACLE)" not in line["first"]), alone[0])["first"]
    found = []
    for mode in dict.fromkeys(line["mode"] for line in alone if line["first"] == name):
        own = [line for line in alone if line["first"] == name and line["mode"] == mode]
        main = [line for line in own if line.get("question") == "control"]
        found += main[:1] or [min(own, key=lambda line: float(line["low"]))]
        found += [line for line in own if line.get("question") == "untrained" and kind(line) == FAILS]
    return found


def main_line(result: Result) -> str:
    """One sentence that states what was found for the main row in each mode.

    Caveats (a possible leak, ORACLE, too few seeds) come first, then the comparisons that hold. If part of the gate
    does not hold, the sentence ends by saying so.
    """
    lines = sorted(hardest(result), key=lambda line: kind(line) != HOLDS)
    if not lines:
        return _without_gate(result)
    kinds = [kind(line) for line in lines]
    text = f"{lines[0]['first']} alone {_clause(result, lines[0])}"
    for before, after, line in zip(kinds, kinds[1:], lines[1:], strict=False):
        text += f"{' and' if before == after else ', but'} {_clause(result, line)}"
    text = _caveats(result, lines) + text
    total, held = len(claims(result)), sum(kind(line) == HOLDS for line in claims(result))
    rest = "" if held == total or total == len(lines) else f"; {held or 'none'} of the gate's {total} comparisons "
    return text + _seeds(result, lines) + (f"{rest}hold{'s' if held <= 1 else ''}." if rest else ".")


def _caveats(result: Result, lines: Sequence[Any]) -> str:
    """Prefix that qualifies the main claim: a leak, ORACLE, a quick look, or too few seeds."""
    found, name = [], lines[0]["first"]
    leak = leaked(result, name)
    if leak:
        found.append(f"{'A leak is possible' if leak.startswith('nothing') else 'With a leak'} ({leak})")
    if "(ORACLE)" in name:
        found.append("ORACLE, so no claim (it uses the true boundaries)")
    if any(kind(line) == QUICK for line in lines):
        found.append("No claim, a quick look")
    elif all(kind(line) == FEW for line in lines):
        found.append(f"No claim, not enough seeds ({lines[0]['seeds'][0]}, {SEEDS_FOR_A_CLAIM} needed)")
    return ": ".join(found) + (": " if found else "")


def leaked(result: Result, name: str) -> str:
    """How a model has seen the test videos, or that its training videos are unknown; empty if there is no leak."""
    name, data = name.removesuffix(" (ORACLE)"), result["data"]
    lines = [line for line in data["leaks"] if line.startswith(f"{name} (")]
    seen = [int(count) for line in lines for count in re.findall(r" on (\d+) of the test videos$", line)]
    if seen:
        total = _count(len(data["test_videos"]), "test video")
        return f"{name} was pretrained, without labels, on {max(seen)} of the {total}"
    unknown = any(note.startswith(f"nothing is known of the videos that {name} (") for note in data["notes"])
    return f"nothing is known of the videos that {name} was trained on" if unknown else ""


def _clause(result: Result, line: Result) -> str:
    """A clause such as ``beats the best control offline by 5.2 points (64.1 % frame accuracy, ...)``."""
    rival, mode = line["claim"].partition("against ")[2] or line["second"], MODE_WORDS[line["mode"]]
    points = f"by {abs(line['mean']):.1f} points"
    if kind(line) == HOLDS:
        text = f"beats {rival} {mode} {points}"
    elif line["mean"] == line["low"] == line["high"] == 0:
        text = f"equals {rival} {mode}"
    elif kind(line) in (FEW, QUICK) or line["low"] > 0:
        text = f"is {'above' if line['mean'] > 0 else 'below'} {rival} {mode} {points}"
        text += ", but answers later," if line["later"] else ""
    elif line["high"] < 0:
        text = f"is worse than {rival} {mode} {points}"
    else:
        text = f"does not beat {rival} {mode}"
    return f"{text} ({_numbers(result, line)})"


def _numbers(result: Result, line: Result) -> str:
    first, second = (_accuracy(result, line[side], line["mode"]) for side in ("first", "second"))
    pooled = "" if abs(first - second - line["mean"]) < 0.1 else f"{line['mean']:+.1f} points pooled over videos, "
    shares = f"{first:.1f} % frame accuracy, {line['second']} {second:.1f} %"
    return f"{shares}; {pooled}95 % interval {line['low']:+.1f} to {line['high']:+.1f}"


def _seeds(result: Result, lines: Sequence[Any]) -> str:
    seeds, videos = lines[0]["seeds"][0], lines[0]["videos"]
    what = "test video" if not result["data"].get("groups") else "group of test videos"
    return f", {_count(seeds, 'seed')}, {_count(videos, what)}"


def _without_gate(result: Result) -> str:
    """The opening sentence if nothing was compared: what was measured, without a claim."""
    learned = [row for row in result["rows"] if row["family"] == "learned" and not row["beside"]]
    if learned:
        row = next((row for row in learned if not is_oracle(row)), learned[0])
        return (
            f"No claim, nothing was compared: {label(row)} alone, {MODE_WORDS[row['mode']]}: "
            f"{row['mean']['accuracy']:.1f} % frame accuracy ({_count(len(row['runs']), 'seed')})."
        )
    parts = [f"{row['name']} {row['mean']['accuracy']:.1f} %" for row in result["rows"] if row["family"] == "raw"]
    for mode in sections(result):
        row = best_control(result, mode)
        parts += [f"best control, {row['name']} ({MODE_WORDS[mode]}), {row['mean']['accuracy']:.1f} %"] if row else []
    return "No learned representation was judged" + (f"; frame accuracy: {', '.join(parts)}." if parts else ".")


def _accuracy(result: Result, name: str, mode: str) -> float:
    row = find_row(result, name, mode)
    assert row is not None
    return float(row["mean"]["accuracy"])


def _count(number: int, thing: str) -> str:
    """A number with its noun: ``1 seed``, ``3 seeds``, ``2 groups of test videos``."""
    first, space, rest = thing.partition(" of ")
    return f"{number} {first}{'' if number == 1 else 's'}{space}{rest}"


def main_rows(result: Result, mode: str) -> dict[str, Any]:
    """The rows of the opening chart by role; roles without a row are left out.

    Roles: raw features, the strongest control on the test videos (the gate's rival), the strongest untrained encoder,
    the main learned row, and the main learned row concatenated with a control.
    """
    rows = [row for row in result["rows"] if row["mode"] == mode]
    lines = hardest(result)
    learned = [row for row in rows if row["family"] == "learned" and not row["beside"]]
    own = next((row for row in learned if not lines or row["name"] == lines[0]["first"]), None)
    found: dict[str, Any] = {"raw features": next((row for row in result["rows"] if row["family"] == "raw"), None)}
    control = strongest_control(result, mode)
    if control is not None and control["family"] != "raw":
        found["best control"] = control
    untrained = [row for row in rows if row["family"] == "untrained" and not row["beside"]]
    found["untrained"] = max(untrained, key=lambda row: float(row["mean"]["accuracy"]), default=None)
    found["ours"] = own
    beside = [row for row in rows if own is not None and row["name"].startswith(f"{own['name']} ++ ")]
    found["ours ++ control"] = next((row for row in beside if row["beside"] == "control"), next(iter(beside), None))
    return {role: row for role, row in found.items() if row is not None}


def interval(result: Result, row: Result) -> Difference | None:
    """A row's frame accuracy with its 95 % interval over test videos (or groups) and seeds; None for a single video."""
    groups = result["data"].get("groups") or result["data"]["test_videos"]
    frames = sum_by_group(np.array(result["data"]["test_frames"]), groups)
    right = sum_by_group(np.array([run["correct"] for run in row["runs"]]), groups)
    return paired_bootstrap(right, np.zeros((1, len(frames))), frames) if len(frames) > 1 else None


@dataclass(frozen=True)
class Gains:
    """Accuracy gain of the main row over the best control in points, for each test video, averaged over seeds."""

    mode: str
    by_video: Mapping[str, float]

    @property
    def ranked(self) -> list[str]:
        """Videos in order of increasing gain."""
        return sorted(self.by_video, key=lambda video: self.by_video[video])

    @property
    def median(self) -> str:
        """The video with the median gain; of two, the one with the smaller gain."""
        return self.ranked[(len(self.by_video) - 1) // 2]


def gains(result: Result) -> Gains | None:
    """The gains in the first mode that has both rows; None if no learned row was judged."""
    for mode in sections(result):
        rows = main_rows(result, mode)
        rival = rows.get("best control", rows.get("raw features"))
        if "ours" in rows and rival is not None:
            right = [np.mean([run["correct"] for run in row["runs"]], axis=0) for row in (rows["ours"], rival)]
            points = 100 * (right[0] - right[1]) / np.array(result["data"]["test_frames"])
            return Gains(mode, dict(zip(result["data"]["test_videos"], points.tolist(), strict=True)))
    return None


def shown_videos(result: Result, count: int) -> list[str]:
    """Test videos to draw: those with the median, the smallest and the largest gain, then others in order."""
    found, videos = gains(result), list(result["data"]["test_videos"])
    chosen = [found.median, found.ranked[0], found.ranked[-1]] if found else []
    return list(dict.fromkeys([*chosen, *videos]))[: min(count, len(videos))]
