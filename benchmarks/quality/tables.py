"""The study's tables in Markdown, from its pieces alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from book import MODES, Book, Entry
from damage import KINDS
from pictures import draw_gate
from plan import shown_name
from records import read_pieces

from keystep.evals.headline import MODE_WORDS
from pooling import Line, compare, mean_score

HEAD_METRICS = {"accuracy": "accuracy", "edit": "edit", "f1@50": "F1@50"}


def write_tables(folder: Path, *, ours: str, chosen_on: str | None = None) -> None:
    """Write ``tables.md`` and ``differences.png`` beside the pieces of a folder, and print the first.

    Raises:
        InputError: no finished pieces.
    """
    book = Book(read_pieces(folder), shown_name(ours))
    text, lines = tables(book, chosen_on)
    answers = answer(book)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    if lines:
        draw_gate(folder / "differences.png", lines)
    print(text)
    print("\n".join(answers))


def tables(book: Book, chosen_on: str | None = None) -> tuple[str, list[Line]]:
    """All that the pieces say, and the lines about our rows alone and beside the best control."""
    text = [book.headline(), *(f"*Note: {note}.*" for note in book.notes()), main_table(book), score_table(book)]
    lines = gate_lines(book)
    if lines:
        text += [
            "Differences in points of frame accuracy, videos (or persons) and seeds drawn anew:",
            gate_table(lines),
        ]
    chosen = book.chosen_by(chosen_on) if chosen_on else set()
    if lines and chosen:
        fewer = gate_table(gate_lines(book, without=chosen))
        text += [f"{len(chosen)} videos chose the variant on fold {chosen_on}. Without them:", fewer]
    for share in book.shares:
        few = gate_lines(book, f"labels{share}")
        text += [f"Labels for {share} % of the videos, {book.draws(share)} draws together:", gate_table(few)]
    text += [part for part in (robustness_table(book), heads_table(book)) if part]
    return "\n\n".join(text) + "\n", lines


def answer(book: Book) -> list[str]:
    """One line a mode: whether ours, alone, beats both raw features and the strongest control."""
    found = []
    for mode in MODES:
        lines = [
            line
            for line in gate_lines(book)
            if line.mode == mode and line.words.startswith(("alone, against raw", "alone, against the strongest"))
        ]
        if not lines:
            continue
        numbers = "; ".join(
            f"{line.words.removeprefix('alone, ')} {d.mean:+.1f} points ({d.low:+.1f} to {d.high:+.1f})"
            for line in lines
            for d in (line.difference,)
        )
        verdicts = [line.verdict.strip("*") for line in lines if not line.holds]
        found.append(f"{MODE_WORDS[mode]}: {'no claim, ' + verdicts[0] if verdicts else 'yes'}: {numbers}")
    return [f"Does {book.ours} beat raw features and the strongest control?", *found] if found else []


def main_table(book: Book) -> str:
    """Frame accuracies: alone, beside the best control, and with few labels."""
    columns = [("main", "", "alone"), ("main", "control", "++ best control")]
    columns += [(f"labels{share}", "", f"{share} % labels") for share in book.shares]
    heads = ["representation", *(f"{mode}, {words}" for mode in MODES for _, _, words in columns)]
    rows = []
    for base in book.bases():
        cells = [_accuracy(book.find(part, base, beside, mode)) for mode in MODES for part, beside, _ in columns]
        rows.append([_marked(book, base), *cells])
    return _table(heads, rows)


def score_table(book: Book) -> str:
    """Edit and F1@50 of the probe's single frames, alone."""
    heads = ["representation", *(f"{mode}, {metric}" for mode in MODES for metric in ("edit", "F1@50"))]
    rows = []
    for base in book.bases():
        found = [book.find("main", base, "", mode) for mode in MODES]
        rows.append([_marked(book, base), *(_score(entry, metric) for entry in found for metric in ("edit", "f1@50"))])
    return _table(heads, rows)


def gate_lines(book: Book, part: str = "main", without: Collection[str] = ()) -> list[Line]:
    """Ours against the strongest control of each kind, and against what else was trained; alone and ++ best control."""
    lines = []
    for mode in MODES:
        for beside, words in (("", "alone"), ("control", "++ best control")):
            first = book.find(part, book.ours, beside, mode)
            if first is None:
                continue
            for name, rival in book.rivals(part, mode, beside):
                line = compare(first.side(), rival, f"{words}, against {name}", mode, without)
                lines += [] if line is None else [line]
    return lines


def gate_table(lines: Sequence[Line]) -> str:
    """What may be claimed."""
    rows = [
        [line.mode, line.words, f"{d.mean:+.1f}", f"{d.low:+.1f} to {d.high:+.1f}", f"{d.seeds[0]}", line.verdict]
        for line in lines
        for d in (line.difference,)
    ]
    return _table(["mode", "claim", "difference", "95 % interval", "seeds", ""], rows)


def robustness_table(book: Book) -> str:
    """The same probes on damaged test videos: ours, the best control, and the difference."""
    rows = []
    for mode in MODES:
        for damage in KINDS:
            mine, theirs = book.damaged(damage, mode, own=True), book.damaged(damage, mode, own=False)
            if mine is None or theirs is None:
                continue
            line = compare(mine.side(), theirs.side(), damage, mode)
            d = None if line is None else line.difference
            difference = "–" if d is None else f"{d.mean:+.1f} ({d.low:+.1f} to {d.high:+.1f})"
            rows.append([mode, damage, _accuracy(mine), _accuracy(theirs), difference])
    if not rows:
        return ""
    heads = ["mode", "damage at test time", book.ours, "best control", "difference"]
    return "Probes as they were trained, on damaged test videos; frame accuracy:\n\n" + _table(heads, rows)


def heads_table(book: Book) -> str:
    """Temporal heads: every input under every head, and what ours gains over each other input."""
    rows, gains = [], []
    for head in book.heads():
        for mode in MODES:
            inputs = book.under(head, mode)
            mine = inputs.get(book.ours)
            for name, entry in inputs.items():
                rows.append([head, mode, name, *(_score(entry, metric) for metric in HEAD_METRICS)])
            for name, entry in inputs.items():
                for metric, words in HEAD_METRICS.items():
                    if mine is None or name == book.ours:
                        continue
                    line = compare(mine.side(metric), entry.side(metric), f"{head}: {words}, against {name}", mode)
                    gains += [] if line is None else [line]
    if not rows:
        return ""
    heads = ["head", "mode", "input", *HEAD_METRICS.values()]
    return f"Temporal heads, test videos:\n\n{_table(heads, rows)}\n\n{gate_table(gains)}"


def _accuracy(entry: Entry | None) -> str:
    return _score(entry, "accuracy")


def _score(entry: Entry | None, metric: str) -> str:
    found = None if entry is None else mean_score(entry.cells(metric))
    return "–" if found is None else str(found)


def _marked(book: Book, base: str) -> str:
    return f"**{base}**" if base == book.ours else base


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
