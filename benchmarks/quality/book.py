"""The finished pieces of a set by what they are of: representation, mode, what stands beside it, and part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plan import HEADS, ROBUSTNESS, shown_name
from records import CONTROLS, MAIN, UNTRAINED, Piece

from keystep.evals.protocol import BEST_ON_TEST
from pooling import Share, Side

MODES = ("offline", "causal")
SIMPLE = ("raw", "control")
BEST_CONTROL = "best control"
"""Name of the control that validation chose, where another one may be it in each fold."""
Row = dict[str, Any]


@dataclass
class Entry:
    """One representation in one mode, with what it has beside it: its rows in all pieces of a part."""

    base: str
    family: str
    beside: str
    mode: str
    rows: list[tuple[Piece, Row]] = field(default_factory=list)

    def side(self, metric: str = "accuracy") -> Side:
        """What it adds to a comparison."""
        side = Side()
        for piece, row in self.rows:
            side.add(piece, row, shares_of(piece, row, metric))
        return side

    def cells(self, metric: str) -> list[tuple[str, int, float]]:
        """(fold, seed, score) of each row."""
        return [(piece["fold"], seed_of(piece, row), row["scores"][metric]) for piece, row in self.rows]


def seed_of(piece: Piece, row: Row) -> int:
    """The seed of a row: of the model that it reads, or of a head on what has none."""
    return int(row.get("seed", 0) if piece["seed"] is None else piece["seed"])


def shares_of(piece: Piece, row: Row, metric: str) -> list[Share]:
    """What each test video adds to the two sums that a score is the ratio of."""
    if metric == "edit":
        return [(score / 100, 1.0) for score in row["edit"]]
    if metric == "f1@50":
        return [(2.0 * tp, 2.0 * tp + fp + fn) for tp, fp, fn in row["f1@50"]]
    return [(float(right), float(all_)) for right, all_ in zip(row["correct"], piece["test"]["frames"], strict=True)]


class Book:
    """All pieces of a set; ``ours`` is the name of the representation that is compared with all others."""

    def __init__(self, pieces: Sequence[Piece], ours: str) -> None:
        self.pieces, self.ours = pieces, ours
        self.entries: dict[tuple[str, ...], Entry] = {}
        for piece in pieces:
            for row in piece["rows"]:
                self._enter(piece, row)
        labels = [piece["part"] for piece in pieces if piece["part"].startswith("labels")]
        found = {part.removeprefix("labels").partition("-")[0] for part in labels}
        self.shares: list[str] = sorted(found, key=float, reverse=True)

    def _enter(self, piece: Piece, row: Row) -> None:
        part = piece["part"].partition("-draw")[0]
        base, more = base_of(piece, row), (row.get("damage", ""), row.get("head", ""))
        key = (part, base, row.get("beside", ""), row["mode"], *more)
        entry = Entry(base, row["family"], row.get("beside", ""), row["mode"])
        self.entries.setdefault(key, entry).rows.append((piece, row))

    def find(self, part: str, base: str, beside: str, mode: str) -> Entry | None:
        """A representation judged by probes; raw features see one frame, so they stand in both modes."""
        found = self.entries.get((part, base, beside, mode, "", ""))
        if found is None and beside == "":
            other = self.entries.get((part, base, beside, MODES[MODES.index(mode) - 1], "", ""))
            found = other if other is not None and other.family == "raw" else None
        return found

    def bases(self) -> list[str]:
        """Representations of the table: what needs no training, fresh weights, then what was trained, ours last."""
        order = {"raw": 0, "oracle": 0, "control": 1, "untrained": 2}
        found = {
            key[1]: (order.get(entry.family, 3), key[1] == self.ours)
            for key, entry in self.entries.items()
            if key[0] == MAIN and not key[1].endswith(BEST_ON_TEST)
        }
        return sorted(found, key=lambda base: found[base])

    def rivals(self, part: str, mode: str, beside: str) -> Iterator[tuple[str, Side]]:
        """(name, what ours is compared with): alone, every kind of control; ++ best control, the strongest of all."""
        simple = [base for base in self.bases() if self._family(base) in SIMPLE]
        if beside == "":
            for kind in simple:
                side = self.strongest(part, mode, (kind, kind + BEST_ON_TEST))
                if side.shares:
                    yield kind, side
        side = self.strongest(part, mode, [name for kind in simple for name in (kind, kind + BEST_ON_TEST)])
        if side.shares:
            yield f"the strongest control ({', '.join(dict.fromkeys(side.rows.values()))})", side
        for base in self.bases():
            entry = self.find(part, base, beside, mode)
            if entry is not None and base != self.ours and self._family(base) not in (*SIMPLE, "oracle"):
                yield base + (" there" if beside else ""), entry.side()

    def strongest(self, part: str, mode: str, bases: Sequence[str]) -> Side:
        """The control that is right most often on the test videos themselves, in each fold: that errs against ours."""
        judged: dict[tuple[str, str], list[tuple[Piece, Row]]] = {}
        for base in bases:
            entry = self.find(part, base, "", mode)
            for piece, row in () if entry is None else entry.rows:
                judged.setdefault((piece["fold"], piece["part"]), []).append((piece, row))
        side = Side()
        for found in judged.values():
            piece, row = max(found, key=lambda pair: sum(pair[1]["correct"]))
            side.add(piece, row, shares_of(piece, row, "accuracy"))
        return side

    def damaged(self, damage: str, mode: str, *, own: bool) -> Entry | None:
        """Ours, or the best control, on damaged videos."""
        base = self.ours if own else BEST_CONTROL
        return self.entries.get((ROBUSTNESS, base, "", mode, damage, ""))

    def _family(self, base: str) -> str:
        return next(entry.family for key, entry in self.entries.items() if key[1] == base)

    def heads(self) -> list[str]:
        """Names of the temporal heads."""
        return list(dict.fromkeys(row["head"] for p in self.pieces if p["part"] == HEADS for row in p["rows"]))

    def under(self, head: str, mode: str) -> dict[str, Entry]:
        """Input -> its rows under a head, what needs no training first."""
        found = {e.base: e for key, e in self.entries.items() if key[0] == HEADS and key[3] == mode and key[5] == head}
        order = {"raw": 0, "control": 1}
        return dict(sorted(found.items(), key=lambda item: (order.get(item[1].family, 2), item[0] == self.ours)))

    def draws(self, share: str) -> int:
        """Draws of the labelled videos, the most that any row has."""
        return len({p["part"] for p in self.pieces if p["part"].startswith(f"labels{share}-draw")})

    def chosen_by(self, fold: str) -> set[str]:
        """Validation videos of a fold that are test videos of another."""
        chosen = {video for piece in self.pieces if piece["fold"] == fold for video in piece["chosen_by"]}
        return chosen & {video for piece in self.pieces for video in piece["test"]["videos"]}

    def headline(self) -> str:
        """What was judged, and what it cost."""
        main = [piece for piece in self.pieces if piece["part"] == MAIN]
        places = {(piece["fold"], video) for piece in main for video in piece["test"]["videos"]}
        folds = sorted({piece["fold"] for piece in main}, key=lambda fold: (len(fold), fold))
        trained = [p for p in main if p["row"] != CONTROLS and not p["row"].endswith(f"-{UNTRAINED}")]
        training = sum(piece["cpu_seconds"]["training"] for piece in trained)
        judging = sum(piece["cpu_seconds"]["judging"] for piece in self.pieces)
        kind = "validation videos, which choose" if any(p["screen"] for p in main) else "test videos"
        groups = {group for p in main for group in p["test"]["groups"] or ()}
        persons = f" of {len(groups)} persons or sites" if groups else ""
        return (
            f"{main[0]['data']['name'] if main else 'No set'}: folds {', '.join(folds)}; "
            f"{len({video for _, video in places})} {kind}{persons}, {len(trained)} trainings; frame accuracy, mean "
            f"over folds and seeds, ± deviation over seeds. CPU time: {training / 3600:.1f} h training, "
            f"{judging / 3600:.1f} h judging."
        )

    def notes(self) -> list[str]:
        """What makes the pieces less than one study: different code, settings or data, and rows that are not whole."""
        notes = []
        by_row: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            if piece["part"] == MAIN:
                by_row.setdefault(piece["row"], []).append(piece)
        for row, pieces in by_row.items():
            for words, values in (
                ("settings", {_seedless(piece) for piece in pieces}),
                ("training code", {piece["code"]["training"] for piece in pieces if row != CONTROLS}),
            ):
                if len(values) > 1:
                    notes.append(f"pieces of {row} were made with {len(values)} different {words}")
        if len({piece["data"]["fingerprint"] for piece in self.pieces}) > 1:
            notes.append("pieces were made of different data")
        if len({piece["code"]["judging"] for piece in self.pieces}) > 1:
            notes.append("pieces were judged by different code")
        folds = {piece["fold"] for pieces in by_row.values() for piece in pieces}
        for row, pieces in by_row.items():
            seeds = {piece["seed"] for piece in pieces}
            if len(pieces) < len(folds) * len(seeds):
                notes.append(f"{row}: {len(pieces)} of {len(folds) * len(seeds)} folds and seeds are there")
        return notes


def base_of(piece: Piece, row: Row) -> str:
    """What a representation is called, whatever stands beside it; fresh weights after the variant that they are of."""
    if piece["row"] == CONTROLS:
        return str(row["name"])
    variant = piece["row"].removesuffix(f"-{UNTRAINED}")
    return shown_name(variant) if variant == piece["row"] else f"untrained, as {shown_name(variant)}"


def _seedless(piece: Piece) -> str:
    """Settings without what differs by design."""
    if piece["settings"] is None:
        return ""
    data = {**piece["settings"]["data"], "split": None}
    return repr({**piece["settings"], "data": data, "train": {**piece["settings"]["train"], "seed": None}})
