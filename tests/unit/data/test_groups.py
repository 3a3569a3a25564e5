"""Whose each video is: read from a file, found in names, kept together by validation parts."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keystep.data.annotation import Split, hold_out_groups, limit_labels, read_split
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.groups import GROUPS, resolve_groups, shared_groups, write_groups
from keystep.errors import InputError

MakeFolder = Callable[..., Path]

VIDEOS = ("P1_a", "P1_b", "P2.cam_a", "P2.cam_b", "P3_a")
PERSONS = {"P1_a": "P1", "P1_b": "P1", "P2.cam_a": "P2", "P2.cam_b": "P2", "P3_a": "P3"}


def write(folder: Path, text: str) -> Path:
    path = folder / GROUPS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return folder


def opened(root: Path, **options: Any) -> FeatureFolder:
    return open_dataset(root, source_rate=30, **options)


def test_nothing_says_whose_videos_are(tmp_path: Path) -> None:
    assert resolve_groups(tmp_path, VIDEOS) is None


@pytest.mark.parametrize(
    "text",
    [
        "video,group\nP1_a,P1\nP1_b,P1\nP2.cam_a,P2\nP2.cam_b,P2\nP3_a,P3",
        '\ufeffvideo, group\r\nP3_a.txt , P3\r\nP1_a,P1\r\nP1_b.npy,P1\r\nP2.cam_a,P2\r\nP2.cam_b,"P2"\r\n\r\n',
    ],
)
def test_groups_come_in_the_order_of_the_videos_whatever_system_wrote_the_file(tmp_path: Path, text: str) -> None:
    """Names may end like files, as in splits; names keep their dots."""
    found = resolve_groups(write(tmp_path, text), VIDEOS)
    assert found == PERSONS and found is not None and tuple(found) == VIDEOS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: '' is not the header 'video,group'"),
        ("P1_a,P1\n", "line 1: 'P1_a,P1' is not the header 'video,group'"),
        ("video,group\nP1_a\n", "line 2: 'P1_a' is not 'video,group'"),
        ("video,group\nP1_a,P1,x\n", "line 2: 'P1_a,P1,x' is not 'video,group'"),
        ("video,group\nP1_a,P1\nP9,P9\n", "unknown video 'P9' among 5"),
        ("video,group\nP1_a,P1\nP1_a.txt,P1\n", "video 'P1_a' is listed twice"),
        ("video,group\nP1_a,\n", "the group of video 'P1_a' is empty"),
        ("video,group\nP1_a,P1\nP1_b,P1\nP3_a,P3\n", r"2 of 5 videos have no group, such as 'P2\.cam_a'"),
    ],
)
def test_a_file_that_does_not_fit_the_videos_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"splits/groups\.csv.*{message}"):
        resolve_groups(write(tmp_path, text), VIDEOS)


def test_videos_left_out_as_bad_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, "video,group\ngood,a\nbad,b\n")
    assert resolve_groups(tmp_path, ["good"], left_out=["bad"]) == {"good": "a"}


def test_a_pattern_finds_persons_in_names_and_beats_the_file(tmp_path: Path) -> None:
    write(tmp_path, "video,group\nP1_a,x\n")
    assert resolve_groups(tmp_path, VIDEOS, r"^(P\d)") == PERSONS


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("P(", "invalid regular expression"),
        ("P1", "0 capturing groups; put one pair of brackets"),
        ("(P)(1)", "2 capturing groups"),
        ("^(P[12])", "does not match the video name 'P3_a'"),
        ("^P3()|^(?:P)", "does not match the video name 'P1_a'"),
    ],
)
def test_a_pattern_that_does_not_say_whose_each_video_is_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--groups .*{message}"):
        resolve_groups(tmp_path, VIDEOS, pattern)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"P1_a": "P1"}, "groups: 4 of 5 videos have no group"),
        (PERSONS | {"P9": "P9"}, "groups: unknown video 'P9'"),
        (PERSONS | {"P3_a": ""}, "groups: the group of video 'P3_a' is empty"),
    ],
)
def test_a_mapping_has_to_say_it_of_the_very_videos(tmp_path: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_groups(tmp_path, VIDEOS, given)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    odd = {'a, the "first"': "P1", "b": "kitchen 2, left"}
    (tmp_path / "features").mkdir()
    for video in odd:
        (tmp_path / "features" / f"{video}.npy").touch()
    write_groups(tmp_path, odd)
    assert resolve_groups(tmp_path, list(odd)) == odd


def test_a_folder_knows_its_groups_and_its_splits(make_folder: MakeFolder) -> None:
    root = make_folder(lengths={"P1_a": 40, "P1_b": 50, "P2_a": 60, "P3_a": 45})
    (root / "splits").mkdir(exist_ok=True)
    for name in ("10", "2", "by person 1"):
        (root / "splits" / f"train.split{name}.bundle").write_text("P1_a\nP1_b\nP2_a\n")
        (root / "splits" / f"test.split{name}.bundle").write_text("P3_a\n")
    assert opened(root).splits == ("1", "2", "10", "by person 1") and opened(root).groups is None
    assert opened(root, groups=r"^(P\d)").groups == {"P1_a": "P1", "P1_b": "P1", "P2_a": "P2", "P3_a": "P3"}
    write(root, "video,group\nP1_a,x\nP1_b,x\nP2_a,y\nP3_a,z\n")
    folder = opened(root)
    assert folder.groups == {"P1_a": "x", "P1_b": "x", "P2_a": "y", "P3_a": "z"}
    assert folder.grouped(None) is folder
    assert folder.grouped(dict.fromkeys(folder.videos, "all")).groups == dict.fromkeys(folder.videos, "all")
    with pytest.raises(InputError, match="does not match the video name"):
        opened(root, groups="^(S1)")


def test_groups_that_do_not_fit_hinder_only_what_needs_them(make_folder: MakeFolder) -> None:
    root = write(make_folder(lengths={"a": 40, "b": 50}), "video,group\na,1\n")
    folder = opened(root)
    assert len(folder.features("a")) == 40
    with pytest.raises(InputError, match="1 of 2 videos have no group"):
        _ = folder.groups


def test_whole_persons_go_to_validation_and_none_is_also_in_training() -> None:
    groups = {f"P{person}_{take}": f"P{person}" for person in range(12) for take in range(1 + person % 4)}
    for share in (0.01, 0.15, 0.4, 0.99):
        kept, held = hold_out_groups(list(groups), groups, share)
        assert kept and held and set(kept) | set(held) == set(groups) and not set(kept) & set(held)
        assert not {groups[video] for video in kept} & {groups[video] for video in held}
    kept, held = hold_out_groups(list(groups), groups)
    assert abs(len(held) - 0.15 * len(groups)) <= 2, "about the share that is cut without groups"
    again = hold_out_groups(list(groups)[::-1], groups)
    assert set(again[1]) == set(held), "names decide, not the order of files"


def test_where_every_person_is_many_videos_the_one_with_fewest_is_held_out() -> None:
    groups = {f"{person}{take}": person for person, takes in (("a", 8), ("b", 5), ("c", 9)) for take in range(takes)}
    assert {groups[video] for video in hold_out_groups(list(groups), groups)[1]} == {"b"}
    with pytest.raises(InputError, match="all 8 videos are of the group 'a'"):
        hold_out_groups([video for video in groups if groups[video] == "a"], groups)


def bundles(folder: Path, **parts: tuple[str, ...]) -> Path:
    (folder / "splits").mkdir(exist_ok=True)
    for part, videos in parts.items():
        (folder / "splits" / f"{part}.split1.bundle").write_text("\n".join(videos))
    return folder


def test_a_validation_part_cut_by_person_says_so(tmp_path: Path) -> None:
    root = bundles(tmp_path, train=VIDEOS[:4], test=VIDEOS[4:])
    split = read_split(root, "1", VIDEOS, groups=PERSONS)
    assert {PERSONS[video] for video in split.valid} in ({"P1"}, {"P2"}) and len(split.valid) == len(split.train) == 2
    assert split.rule == "2 training videos held out: all of 1 of 2 groups, by the hash of the groups' names"


def test_one_person_in_training_is_cut_by_video_and_the_rule_says_so(tmp_path: Path) -> None:
    root = bundles(tmp_path, train=VIDEOS[:2], test=VIDEOS[4:])
    split = read_split(root, "1", VIDEOS, groups=PERSONS)
    assert len(split.valid) == len(split.train) == 1
    assert split.rule == "1 training videos held out by the hash of their names, as all are of one group, 'P1'"
    assert shared_groups(split, PERSONS) == [
        "split 1: 1 of 1 valid videos are of groups that also train (1 of 1 groups, such as 'P1'); choices by them say "
        "little about new groups"
    ]


def test_a_validation_bundle_is_kept_whoever_is_in_it(tmp_path: Path) -> None:
    root = bundles(tmp_path, train=("P1_a", "P2.cam_a"), valid=("P1_b",), test=("P3_a", "P2.cam_b"))
    split = read_split(root, "1", VIDEOS, groups=PERSONS)
    assert split.valid == ("P1_b",) and split.rule == "valid.split1.bundle"
    test, valid = shared_groups(split, PERSONS)
    assert "1 of 2 test videos are of groups that also train (1 of 2 groups, such as 'P2')" in test
    assert "1 of 1 valid videos" in valid
    assert not shared_groups(read_split(root, "1", VIDEOS), {video: video for video in VIDEOS})


def test_few_labels_are_of_as_many_persons_as_they_can_be_and_stay_nested() -> None:
    groups = {f"P{person}_{take}": f"P{person}" for person in range(5) for take in range(4)}
    split = Split("1", tuple(groups), tuple(groups), (), "")
    for seed in range(3):
        drawn = [limit_labels(split, share, seed, groups).train for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
        for videos in drawn:
            counts = Counter(groups[video] for video in videos)
            assert max(counts.values()) - min(counts.get(person, 0) for person in groups.values()) <= 1
        assert all(set(fewer) <= set(more) for fewer, more in pairwise(drawn)) and drawn[-1] == split.train
    assert limit_labels(split, 0.25, 0, groups).train != limit_labels(split, 0.25, 1, groups).train
