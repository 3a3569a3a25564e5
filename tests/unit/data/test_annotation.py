from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from keystep.data.annotation import (
    IGNORED,
    UNLABELLED,
    Split,
    hold_out,
    limit_labels,
    match_name,
    read_labels,
    read_mapping,
    read_segments,
    read_split,
    split_names,
)
from keystep.errors import InputError
from keystep.reading import read_lines

NAMES = tuple(f"P{i:02}.cam1" for i in range(20))


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def splits(tmp_path: Path) -> Callable[..., Path]:
    """Writes bundles, ``splits(train="a\\nb", test="c")``, and gives the data folder."""

    def make(number: str = "1", **parts: str) -> Path:
        for part, text in parts.items():
            write(tmp_path / "splits" / f"{part}.split{number}.bundle", text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "text", ["a\nb b\nc", "a\nb b\nc\n", "a\r\nb b\r\nc\r\n", "\ufeffa\nb b \n c\n\n\n", "a\rb b\rc"]
)
def test_line_ends_byte_order_marks_and_blanks_make_no_difference(tmp_path: Path, text: str) -> None:
    assert read_lines(write(tmp_path / "x.txt", text)) == ["a", "b b", "c"]


def test_characters_that_only_python_takes_for_line_ends_stay_in_the_name(tmp_path: Path) -> None:
    assert read_lines(write(tmp_path / "x.txt", "a\u2028b\nc\x0cd\n")) == ["a\u2028b", "c\x0cd"]


def test_an_empty_line_in_the_middle_is_named_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.txt, line 2: empty line"):
        read_lines(write(tmp_path / "x.txt", "a\n\nb\n"))


def test_files_that_are_missing_foreign_or_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        read_lines(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"x\.txt: not a UTF-8 text file \(byte 1\)"):
        read_lines(write(tmp_path / "x.txt", b"a\xffb"))
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path)


@pytest.mark.parametrize("text", ["0 wait\n1 tie a knot", "1\ttie a knot\r\n0\twait\r\n", "0   wait\n1  tie a knot\n"])
def test_class_names_keep_their_spaces_and_come_in_the_order_of_their_ids(tmp_path: Path, text: str) -> None:
    assert read_mapping(write(tmp_path / "mapping.txt", text)) == ("wait", "tie a knot")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ("0 a\n2 b\n", r"ids must be 0 to 1 without gaps, found \[0, 2\]"),
        ("1 a\n2 b\n", r"without gaps, found \[1, 2\]"),
        ("0 a\n0 b\n", "line 2: '0 b' repeats an id or a name"),
        ("0 a\n1 a\n", "line 2: '1 a' repeats"),
        ("0 a\nb 1\n", "line 2: 'b 1' is not 'id name'"),
        ("0 a\n1\n", "line 2: '1' is not 'id name'"),
        ("0 a\n-1 b\n", "line 2: '-1 b' is not 'id name'"),
    ],
)
def test_a_mapping_with_gaps_repeats_or_no_names_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_mapping(write(tmp_path / "mapping.txt", text))


def test_a_letter_written_as_one_character_or_as_two_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "mapping.txt").write_text("0 sch\u00f6n\n1 wait\n", encoding="utf-8")
    (tmp_path / "v.txt").write_text("wait\nscho\u0308n\nsch\u00f6n\n", encoding="utf-8")
    assert read_labels(tmp_path / "v.txt", read_mapping(tmp_path / "mapping.txt")).tolist() == [1, 0, 0]


def test_a_split_names_a_video_in_either_unicode_form() -> None:
    assert match_name("sch\u00f6n.txt", [["scho\u0308n", "x"]]) == "scho\u0308n"
    assert match_name("scho\u0308n", [[], ["sch\u00f6n"]]) == "sch\u00f6n" and match_name("\u00f6", [["o"]]) is None


def test_a_missing_final_newline_loses_no_frame(tmp_path: Path) -> None:
    classes = ("wait", "tie a knot")
    for text in ("wait\ntie a knot\ntie a knot", "wait\ntie a knot\ntie a knot\n"):
        assert np.array_equal(read_labels(write(tmp_path / "v.txt", text), classes), [0, 1, 1])


def test_a_class_outside_the_mapping_is_named_with_file_line_and_value(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"v\.txt, line 3: class 'tie' is not in mapping\.txt \(2 classes\)"):
        read_labels(write(tmp_path / "v.txt", "wait\nwait\ntie\ntie\n"), ("wait", "tie a knot"))


def test_an_unlabelled_frame_has_no_class_unless_a_class_has_that_very_name(tmp_path: Path) -> None:
    path = write(tmp_path / "v.txt", f"wait\n{UNLABELLED}\nwait\n")
    assert read_labels(path, ("tie", "wait")).tolist() == [1, IGNORED, 1]
    assert read_labels(path, (UNLABELLED, "wait")).tolist() == [1, 0, 1]


def test_segments_number_the_frames(tmp_path: Path) -> None:
    assert read_segments(write(tmp_path / "v.txt", "2\n1\n3"), 6).tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n0\n4\n", "line 2: '0' is not a segment length"),
        ("2\n-1\n5\n", "line 2: '-1' is not a segment length"),
        ("2\n4.0\n", "line 2: '4.0' is not a segment length"),
        ("²\n4\n", "line 1: '²' is not a segment length"),
        ("2\n3\n", r"its 2 segments have 5 frames; the video has 6"),
        ("", r"its 0 segments have 0 frames; the video has 6"),
    ],
)
def test_segments_that_do_not_make_up_the_video_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"v\.txt.*{message}"):
        read_segments(write(tmp_path / "v.txt", text), 6)


def test_video_names_with_dots_stay_whole_with_or_without_an_ending(splits: Callable[..., Path]) -> None:
    folder = splits(train="P00.cam1.txt\nP01.cam1\nP02.cam1.npy", test="P03.cam1.txt")
    split = read_split(folder, "1", NAMES)
    assert set(split.train) | set(split.valid) == {"P00.cam1", "P01.cam1", "P02.cam1"}
    assert split.test == ("P03.cam1",)


def test_a_video_whose_own_name_ends_like_a_file_is_found(splits: Callable[..., Path]) -> None:
    folder = splits(train="a.txt\nb.npy.txt", valid="c.txt", test="d")
    assert read_split(folder, "1", ("a.txt", "b.npy", "c", "d")).train == ("a.txt", "b.npy")


def test_a_validation_bundle_is_used_as_it_is(splits: Callable[..., Path]) -> None:
    for part in ("valid", "val"):
        split = read_split(splits(part, train="P00.cam1\nP01.cam1", test="P02.cam1", **{part: "P03.cam1"}), part, NAMES)
        assert (split.train, split.valid, split.test) == (("P00.cam1", "P01.cam1"), ("P03.cam1",), ("P02.cam1",))
        assert split.rule == f"{part}.split{part}.bundle"


def test_the_validation_cut_depends_on_the_names_alone() -> None:
    kept, held = hold_out(NAMES)
    assert len(held) == 3 and set(kept) | set(held) == set(NAMES) and not set(kept) & set(held)
    again = hold_out(NAMES[::-1])
    assert set(again[1]) == set(held) and again[1] == held[::-1]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_validation_cut_leaves_both_parts_filled(count: int) -> None:
    for share in (0.01, 0.5, 0.99):
        kept, held = hold_out(NAMES[:count], share)
        assert kept and held


def test_a_cut_validation_part_comes_from_training_and_says_so(splits: Callable[..., Path]) -> None:
    split = read_split(splits(train="\n".join(NAMES[:10]), test="\n".join(NAMES[10:])), "1", NAMES)
    assert len(split.valid) == 2 and set(split.valid) | set(split.train) == set(NAMES[:10])
    assert split.test == NAMES[10:] and "2 training videos held out" in split.rule
    assert split.part("valid") == split.valid
    with pytest.raises(InputError, match=r"no part 'dev'.*train, valid, test"):
        split.part("dev")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": "a\nb\na.txt", "test": "c"}, r"train\.split1\.bundle, line 3: 'a' is listed twice"),
        ({"train": "a\nb", "test": "c\nb"}, "split 1 has 'b' both in train and in test"),
        ({"train": "a\nb", "valid": "a", "test": "c"}, "'a' both in train and in valid"),
        ({"train": "a\nb", "valid": "c", "test": "c"}, "'c' both in test and in valid"),
        ({"train": "a\nb", "test": "\n"}, r"test\.split1\.bundle: an empty split"),
        (
            {"train": "a\nb\nz.txt", "test": "c"},
            r"train\.split1\.bundle, line 3: no features for 'z\.txt' in .*features",
        ),
        ({"train": "a", "test": "c"}, "trains on one video"),
        ({"train": "a\nb"}, r"test\.split1\.bundle: no such file"),
    ],
)
def test_a_split_that_does_not_add_up_is_refused(
    splits: Callable[..., Path], parts: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_split(splits(**parts), "1", ("a", "b", "c"))


def test_an_unknown_split_lists_those_that_exist(splits: Callable[..., Path], tmp_path: Path) -> None:
    for number in ("1", "2", "10", "by.person"):
        splits(number, train="a", test="b")
    assert split_names(tmp_path) == ["1", "2", "10", "by.person"]
    with pytest.raises(InputError, match=r"no split '3'; splits/ has 1, 2, 10, by\.person"):
        read_split(tmp_path, "3", ("a", "b"))
    with pytest.raises(InputError, match=r"no split '3'; splits/ has no train\.split\*\.bundle"):
        read_split(tmp_path / "elsewhere", "3", ())


def test_videos_left_out_as_bad_are_gone_from_every_part_but_never_all(splits: Callable[..., Path]) -> None:
    folder = splits(train="a\nb\nbad", test="c\nworse")
    split = read_split(folder, "1", ("a", "b", "c"), left_out=("bad", "worse"))
    assert {*split.train, *split.valid} == {"a", "b"} and split.test == ("c",)
    with pytest.raises(InputError, match=r"test\.split1\.bundle: all 2 videos of this split are unusable"):
        read_split(folder, "1", ("a", "b"), left_out=("bad", "worse", "c"))


def test_fewer_labels_are_a_part_of_more_and_no_part_is_left_without() -> None:
    split = Split("1", NAMES[:14], NAMES[14:17], NAMES[17:], "from a file")
    before = limit_labels(split, 1.0)
    assert before == split
    for share, count in ((0.5, 7), (0.33, 5), (0.15, 2), (0.001, 1)):
        now = limit_labels(split, share)
        assert len(now.train) == count and 1 <= len(now.valid) <= len(before.valid)
        assert set(now.train) <= set(before.train) and set(now.valid) <= set(before.valid)
        assert now.test == split.test
        shuffled = limit_labels(Split("1", NAMES[:14][::-1], NAMES[14:17], NAMES[17:], ""), share)
        assert set(shuffled.train) == set(now.train)
        before = now


def test_another_seed_labels_other_videos_and_stays_nested() -> None:
    split = Split("1", NAMES[:14], NAMES[14:17], NAMES[17:], "from a file")
    drawn = {seed: set(limit_labels(split, 0.33, seed).train) for seed in range(4)}
    assert len({frozenset(videos) for videos in drawn.values()}) > 1
    assert drawn[0] == set(limit_labels(split, 0.33).train)
    for seed in (1, 2):
        shares = [set(limit_labels(split, share, seed).train) for share in (0.15, 0.33, 0.5, 1.0)]  # the paper's
        assert all(fewer <= more for fewer, more in pairwise(shares)) and shares[-1] == set(split.train)
