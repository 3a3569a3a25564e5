"""Files that others wrote: what they mean where formats have traps, and one line for what cannot be used."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from keystep.data.folder import open_dataset
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.exchange import ImportedAnnotations, import_annotations
from keystep.exchange.formats import guess_format, stem_of

Write = Callable[..., Path]
Take = Callable[..., ImportedAnnotations]


@pytest.fixture
def data(write: Write, tmp_path: Path) -> Path:
    """20 slots of video a at 4 a second, without labels."""
    return write(tmp_path / "data", Timeline(rate=Fraction(4)), {"a": 20})


@pytest.fixture
def take(data: Path, tmp_path: Path) -> Take:
    """Write one file and import it."""

    def importing(name: str, text: str | bytes, **options: Any) -> ImportedAnnotations:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return import_annotations(open_dataset(data), [path], **options)

    return importing


def labels(data: Path) -> str:
    """The first letters of the slots' labels, - where there is none."""
    lines = (data / "groundTruth" / "a.txt").read_text().splitlines()
    return "".join("-" if line == "(unlabelled)" else line[0] for line in lines)


def box(frame: int, outside: int = 0, keyframe: int = 1) -> str:
    return f'<box frame="{frame}" outside="{outside}" keyframe="{keyframe}" xtl="1" ytl="1" xbr="2" ybr="2"/>'


def cvat(*tracks: str, meta: str = "<stop_frame>49</stop_frame><source>a.mp4</source>") -> str:
    return f"<annotations><meta><task>{meta}</task></meta>{''.join(tracks)}</annotations>"


def task(*regions: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"data": {"video": "/data/upload/1/0123abcd-a.mp4", **data}, "annotations": [{"result": [*regions]}]}


def region(start: int, end: int, label: str, tag: str = "steps") -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"type": "timelinelabels", "from_name": tag, "value": value}


def test_csv_with_a_mark_windows_lines_quotes_and_clock_times(take: Take, data: Path) -> None:
    text = '\ufeffLabel,End,Start,Who\r\n"cut, then stir",1.0,0,x\r\npour,0:00:04.5,0:02,y\r\n\r\n'
    done = take("a.csv", text)
    assert labels(data) == "cccc----pppppppppp--" and done.new_classes == ["cut, then stir", "pour"]
    assert done.notes == ["a: columns that are not read: 'who'"]


def test_csv_without_a_heading_and_with_a_column_of_videos(take: Take, data: Path) -> None:
    take("a.csv", "0,1,cut\n1,2,stir\n")
    assert labels(data) == "ccccssss------------"
    done = take("all.csv", "video,start,end,label\na.mp4,0,1,pour\nb,0,1,cut\n", overwrite=True)
    assert labels(data) == "pppp----------------" and "no video b in" in done.notes[0]


def test_webvtt_with_all_that_a_cue_may_have(take: Take, data: Path) -> None:
    text = (
        "WEBVTT - steps\r\nKind: metadata\r\n\r\nSTYLE\r\n::cue { color: red }\r\n\r\nNOTE to self\r\n\r\n"
        "a name\r\n00:00.000 --> 00:01.000 align:start line:0\r\n<v Ann>cut &amp; <b>stir</b>\r\nall\r\n\r\n"
        "00:00:01.000 --> 00:00:01.000\r\nnothing\r\n\r\n00:02.000 --> 00:03.000\r\npour"
    )
    done = take("a.vtt", text)
    assert labels(data) == "cccc----pppp--------" and done.new_classes == ["cut & stir all", "pour"]
    assert done.notes == [
        "a: 1 cues with settings, which are dropped",
        "a: 1 cues with tags in the text, which are dropped",
        "a: 1 cues of no length, which are dropped",
    ]


def test_label_studio_counts_from_one_and_the_last_frame_is_in(take: Take, data: Path) -> None:
    done = take("x.json", json.dumps([task(region(1, 25, "cut"), region(26, 26, "stir"), fps=25)]))
    assert labels(data) == "ccccs---------------" and done.segments == 2


def test_label_studio_takes_the_ground_truth_and_says_what_it_left(take: Take, data: Path) -> None:
    first, other = task(region(1, 25, "cut")), task(region(1, 25, "stir"))["annotations"][0]
    first["annotations"][0] |= {"ground_truth": True, "completed_by": 7}
    first["annotations"] += [other, {"was_cancelled": True, "result": "?"}]
    first["annotations"][0]["result"].append({"type": "choices", "value": {"choices": ["x"]}})
    done = take("x.json", json.dumps(first), frame_rate=25)
    assert labels(data) == "cccc----------------"
    assert done.notes == [
        "a: 2 annotations; the ground truth or the last one was taken",
        "a: who annotated it is not kept",
        "a: 1 regions that are no labels of the time line, or of another tag, were left out",
    ]


def test_label_studio_flat_exports_seconds_of_sound_and_tags(take: Take, data: Path) -> None:
    flat = {"video": "a.mp4", "id": 1, "steps": [{"ranges": [{"start": 1, "end": 50}], "timelinelabels": ["cut"]}]}
    take("x.json", json.dumps([flat]), frame_rate=25)
    assert labels(data) == "cccccccc------------"
    sound = {"type": "labels", "from_name": "tricks", "value": {"start": 1.0, "end": 2.5, "labels": ["stir"]}}
    take("x.json", json.dumps([task(sound)]), overwrite=True)
    assert labels(data) == "----ssssss----------"
    two = json.dumps([task(region(1, 25, "cut"), region(1, 9, "pour", "hands"), fps=25)])
    with pytest.raises(InputError, match="labels of 2 tags; give --track, one of hands, steps"):
        take("x.json", two, overwrite=True)
    take("x.json", two, overwrite=True, track="hands")
    assert labels(data) == "pp------------------"


def test_cvat_tracks_end_outside_or_with_the_task_and_may_come_back(take: Take, data: Path) -> None:
    again = f'<track id="0" label="cut">{box(0)}{box(5, 0, 0)}{box(10, 1)}{box(20)}{box(30, 1)}</track>'
    to_the_end = '<track id="1" label="stir"><polygon frame="40" outside="0" points="1,1;2,2;3,1"/></track>'
    take("annotations.xml", cvat(again, to_the_end), frame_rate=10)
    assert labels(data) == "cccc----cccc----ssss"


def test_of_overlapping_segments_the_later_one_wins_and_it_is_said(take: Take, data: Path) -> None:
    done = take("a.csv", "start,end,label\n0,4,cut\n1,2,stir\n4.01,4.2,pour\n4.3,9,(unlabelled)\n4.6,99, \n")
    assert labels(data) == "ccccsssscccccccc----" and done.segments == 3
    assert done.notes == [
        "a: 1 segments without a label were dropped",
        "a: 1 segments without a slot were dropped (too short, or outside of the video)",
        "a: 4 slots have two labels; each got that of the segment that begins later",
    ]


def test_rounded_and_cut_segments_are_counted(take: Take) -> None:
    done = take("a.csv", "start,end,label\n0.1,1.3,cut\n2,77,stir\n")
    assert done.notes == [
        "a: 1 segments moved to slots, by up to 0.2 s",
        "a: 1 segments reach beyond the video and were cut",
    ]


def test_classes_keep_their_ids_and_new_ones_are_named(take: Take, data: Path) -> None:
    (data / "mapping.txt").write_text("0 stir\n1 cut\n")
    done = take("a.csv", "0,1,cut\n1,2,Cut\n2,3,pour\n")
    assert (data / "mapping.txt").read_text() == "0 stir\n1 cut\n2 Cut\n3 pour\n"
    assert done.notes == [
        "2 classes were not in mapping.txt and are now: Cut, pour",
        "class Cut differs from cut in its case only",
    ]


def test_lines_of_another_rate_need_it_to_be_given(take: Take, data: Path) -> None:
    text = "cut\n" * 50 + "stir\n" * 75
    with pytest.raises(InputError, match="125 lines for 20 slots of a; give --frame-rate"):
        take("a.txt", text)
    take("a.txt", text, frame_rate=25)
    assert labels(data) == "ccccccccssssssssssss"


def test_nothing_is_written_when_one_of_several_files_is_damaged(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,1,cut\n")
    (tmp_path / "b.csv").write_text("0,x,cut\n")
    with pytest.raises(InputError, match=r"b\.csv, line 1: 'x' is no number of seconds"):
        import_annotations(open_dataset(data), [tmp_path / "a.csv", tmp_path / "b.csv"])
    assert not (data / "groundTruth").exists() and not (data / "mapping.txt").exists()


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>'


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.xml", BOMB, "it has a document type"),
        ("a.eaf", BOMB.replace("annotations", "ANNOTATION_DOCUMENT"), "it has a document type"),
        ("a.xml", BOMB.encode("utf-16"), "it has a document type"),
        ("a.xml", "<x>" * 100, "nested more than 64 deep"),
        ("a.xml", "<html/>", "expected <annotations>, found <html>"),
        ("a.xml", "<annotations>", "not an XML file"),
        ("a.xml", cvat('<track id="7" label="x"/>'), "track '7': no shape"),
        ("a.xml", cvat(f'<track id="7" label="x">{box(-1)}</track>'), "'-1' is no number of a frame"),
        ("a.eaf", "<ANNOTATION_DOCUMENT/>", "not an ELAN document: KeyError"),
        ("a.csv", "begin,finish\n", "no heading start,end,label"),
        ("a.csv", "start,end,label\n0,1,cut,stir\n", "line 2: 4 cells, expected 3; quote labels"),
        ("a.csv", "start,end,label\n2,1,cut\n", "line 2: ends at '1', before it starts"),
        ("a.csv", 'start;end;label\n"1,5";2;cut\n', "no heading start,end,label"),
        ("a.csv", "start,end,label\n", "not a single segment"),
        ("a.vtt", "1\n00:00:00,000 --> 00:00:01,000\ncut\n", "the first line is '1', not WEBVTT"),
        ("a.vtt", "WEBVTT\n\n00:00:00,000 --> 00:00:01,000\ncut\n", "line 3: .* is no timing of a cue"),
        ("a.json", "[[]]", "expected Label Studio's list of tasks"),
        ("a.json", "{", "no JSON"),
        ("a.json", json.dumps([task(region(1, 2, "x"))]), "counts frames, and nothing says how many a has a second"),
        ("a.json", json.dumps([task(region(1, 2, "x"), fps="fast")]), "task 1: 'fast' is no rate in Hz"),
        ("b.csv", "0,1,cut\n", "nothing to import: b.csv: no video b in"),
        ("a.doc", "?", r"the format cannot be told from \.doc; give --format"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(take: Take, data: Path, name: str, text: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        take(name, text)
    assert "\n" not in str(caught.value) and not (data / "groundTruth").exists()


def test_formats_that_are_written_only_are_not_read(take: Take) -> None:
    with pytest.raises(InputError, match="fiftyone is written only"):
        take("labels.json", "{}", kind="fiftyone")


def test_a_format_is_guessed_where_all_files_end_alike() -> None:
    assert guess_format([Path("a.EAF"), Path("b.eaf")]) == "elan" and guess_format([Path("x.vtt")]) == "webvtt"
    with pytest.raises(InputError, match=r"cannot be told from \.eaf and \.vtt"):
        guess_format([Path("a.eaf"), Path("b.vtt")])


@pytest.mark.parametrize(
    "address",
    [
        "a.mp4",
        "/data/upload/3/a.mp4",
        r"C:\videos\a.mp4",
        "file:///videos/a.mp4",
        "https://host/a.mp4?token=1#t=3",
        "/data/local-files/?d=folder%2Fa.mp4",
        "s3://bucket/folder/a.mp4",
    ],
)
def test_a_video_is_found_by_its_address(address: str) -> None:
    assert stem_of(address) == "a"
