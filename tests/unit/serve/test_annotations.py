"""Labels in revisions: what is saved stays, what was changed by two is merged or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystep.data.spans import Span
from keystep.errors import InputError
from keystep.serve.annotations import AnnotationStore, ClassExists, Conflict, NotSaved, ReadOnly

SLOTS = 20


def open_store(root: Path, **options: bool) -> AnnotationStore:
    root.mkdir(exist_ok=True)
    return AnnotationStore(root, {"a": SLOTS, "b": 5}, **options)


@pytest.fixture
def store(tmp_path: Path) -> AnnotationStore:
    store = open_store(tmp_path / "data")
    store.add_class("cut")
    store.add_class("tie a knot")
    return store


def lines(store: AnnotationStore) -> list[dict]:
    return [json.loads(line) for line in (store.root / "annotations.jsonl").read_text().splitlines()]


def test_a_save_is_in_the_log_and_in_the_files_that_segmentation_code_reads(store: AnnotationStore) -> None:
    saved = store.save("b", [Span(1, 3, "tie a knot")], 0, "Ada")
    assert (saved.revision, saved.merged) == (1, False)
    assert (store.root / "groundTruth" / "b.txt").read_text().split("\n")[:4] == [
        "(unlabelled)",
        "tie a knot",
        "tie a knot",
        "(unlabelled)",
    ]
    assert (store.root / "mapping.txt").read_text() == "0 cut\n1 tie a knot\n"
    assert [(line["revision"], line["kind"], line["author"]) for line in lines(store)] == [
        (0, "before", ""),
        (1, "edit", "Ada"),
    ]


def test_the_first_save_logs_the_labels_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "mapping.txt").write_text("0 cut\n1 sew\n")
    (tmp_path / "groundTruth" / "b.txt").write_text("cut\ncut\nsew\nsew\nsew\n")
    store = open_store(tmp_path)
    assert store.current("b") == (0, (Span(0, 2, "cut"), Span(2, 5, "sew")))
    store.save("b", [], 0)
    assert lines(store)[0]["spans"] == [[0, 2, "cut"], [2, 5, "sew"]]
    assert not (tmp_path / "groundTruth" / "b.txt").exists()


def test_neighbours_of_one_class_stay_two_spans_also_in_the_files(store: AnnotationStore) -> None:
    spans = (Span(0, 5, "cut"), Span(5, 9, "cut"))
    store.save("a", spans, 0)
    (store.root / "annotations.jsonl").unlink()
    assert open_store(store.root).current("a") == (0, spans)


def test_edits_of_different_slots_are_merged(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 20, "cut")], 0)
    store.save("a", [Span(0, 5, "tie a knot"), Span(5, 20, "cut")], 1)
    saved = store.save("a", [Span(0, 15, "cut")], 1)
    assert saved.merged and saved.revision == 3
    assert saved.spans == (Span(0, 5, "tie a knot"), Span(5, 15, "cut"))


def test_edits_of_the_same_slots_are_refused_and_nothing_is_written(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    with pytest.raises(Conflict) as conflict:
        store.save("a", [Span(5, 12, "tie a knot")], 0)
    assert (conflict.value.revision, conflict.value.spans) == (1, (Span(0, 10, "cut"),))
    assert store.current("a") == (1, (Span(0, 10, "cut"),))
    assert len(lines(store)) == 2


def test_a_revision_that_never_was_is_a_conflict(store: AnnotationStore) -> None:
    with pytest.raises(Conflict):
        store.save("a", [Span(0, 10, "cut")], 7)


def test_saving_what_is_there_makes_no_revision(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    assert store.save("a", [Span(0, 10, "cut")], 1).revision == 1
    assert store.save("a", [Span(0, 10, "cut")], 0).revision == 1, "the answer was lost, and it was sent again"


spans = st.lists(st.sampled_from(["", "cut", "tie a knot"]), min_size=SLOTS, max_size=SLOTS).map(
    lambda labels: [Span(slot, slot + 1, label) for slot, label in enumerate(labels) if label]
)


@settings(deadline=None, max_examples=30)
@given(spans, spans, spans)
def test_merged_slots_are_those_of_whoever_changed_them(
    tmp_path_factory: pytest.TempPathFactory, base: list[Span], theirs: list[Span], ours: list[Span]
) -> None:
    store = open_store(tmp_path_factory.mktemp("data"))
    store.add_class("cut")
    store.add_class("tie a knot")

    def slots(found: tuple[Span, ...]) -> dict[int, str]:
        return {slot: span.label for span in found for slot in range(span.start, span.stop)}

    first = store.save("a", base, 0).revision
    store.save("a", theirs, first)
    before = store.current("a")
    was, left, right = (slots(tuple(each)) for each in (base, theirs, ours))
    try:
        found = slots(store.save("a", ours, first).spans)
    except Conflict:
        assert store.current("a") == before
        return
    for slot in range(SLOTS):
        mine, other, old = right.get(slot), left.get(slot), was.get(slot)
        assert found.get(slot) == (other if mine == old else mine)
        assert old in (mine, other) or mine == other


def test_a_line_that_was_cut_off_was_never_acknowledged_and_goes(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    path = store.root / "annotations.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:30])
    again = open_store(store.root)
    assert again.current("a") == (1, (Span(0, 10, "cut"),))
    again.save("a", [Span(0, 11, "cut")], 1)
    assert open_store(store.root).current("a") == (2, (Span(0, 11, "cut"),))


@pytest.mark.parametrize("lost", ["groundTruth/a.txt", "mapping.txt"])
def test_files_that_a_dying_process_did_not_write_are_written_from_the_log(store: AnnotationStore, lost: str) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    (store.root / lost).unlink()
    again = open_store(store.root)
    assert again.current("a") == (1, (Span(0, 10, "cut"),))
    assert (store.root / "groundTruth" / "a.txt").read_text().count("cut\n") == 10


def test_files_of_the_revision_before_are_brought_up_to_the_log(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    before = (store.root / "groundTruth" / "a.txt").read_bytes()
    store.save("a", [Span(0, 12, "cut")], 1)
    (store.root / "groundTruth" / "a.txt").write_bytes(before)
    assert open_store(store.root).current("a") == (2, (Span(0, 12, "cut"),))


def test_labels_that_another_program_wrote_are_a_revision_of_their_own(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    (store.root / "groundTruth" / "a.txt").write_text("tie a knot\n" * SLOTS)
    assert open_store(store.root).current("a") == (2, (Span(0, SLOTS, "tie a knot"),))
    assert lines(store)[-1]["kind"] == "file"


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([Span(0, 21, "cut")], "video of 20"),
        ([Span(0, 2, "sew")], "no class 'sew'"),
        ([Span(0, 4, "cut"), Span(3, 5, "cut")], "overlap"),
    ],
)
def test_spans_that_do_not_fit_are_refused(store: AnnotationStore, spans: list[Span], words: str) -> None:
    with pytest.raises(InputError, match=words):
        store.save("a", spans, 0)
    assert not (store.root / "annotations.jsonl").exists()


@pytest.mark.parametrize("name", ["", " ", "a\x1bb", "(unlabelled)", "x" * 201, "a\u202eb"])
def test_names_that_cannot_be_classes_are_refused(store: AnnotationStore, name: str) -> None:
    with pytest.raises(InputError, match="no name for a class"):
        store.add_class(name)


def test_a_class_is_added_once(store: AnnotationStore) -> None:
    with pytest.raises(ClassExists):
        store.add_class(" tie  a knot ")


def test_a_folder_that_is_only_looked_at_is_left_as_it_is(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    path = store.root / "annotations.jsonl"
    path.write_bytes(path.read_bytes() + b"half")
    before = {file: file.read_bytes() for file in store.root.rglob("*") if file.is_file()}
    looked = open_store(store.root, read_only=True)
    assert looked.current("a")[0] == 1
    with pytest.raises(ReadOnly, match="only be looked at"):
        looked.save("a", [], 1)
    with pytest.raises(ReadOnly, match="only be looked at"):
        looked.add_class("sew")
    assert before == {file: file.read_bytes() for file in store.root.rglob("*") if file.is_file()}


def test_a_damaged_line_is_named(store: AnnotationStore) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)
    path = store.root / "annotations.jsonl"
    path.write_bytes(b'{"when": 3}\n' + path.read_bytes())
    with pytest.raises(InputError, match=r"annotations\.jsonl, line 1"):
        open_store(store.root)


def test_a_disk_that_refuses_the_files_leaves_the_log_which_counts(
    store: AnnotationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("keystep.serve.annotations.write_lines", full)
        with pytest.raises(NotSaved, match="full"):
            store.save("a", [Span(0, 10, "cut")], 0)
    assert store.save("a", [Span(0, 10, "cut")], 0).revision == 1
    assert (store.root / "groundTruth" / "a.txt").read_text().count("cut\n") == 10


def test_half_a_line_that_cannot_be_taken_back_at_once_is_before_the_next(
    store: AnnotationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("a", [Span(0, 10, "cut")], 0)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        patch.setattr("os.ftruncate", refuse)
        with pytest.raises(NotSaved, match="Input/output"):
            store.save("a", [Span(0, 11, "cut")], 1)
    assert store.save("a", [Span(0, 12, "cut")], 1).revision == 2
    assert [line["revision"] for line in lines(store)] == [0, 1, 2]
