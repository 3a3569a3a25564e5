"""Files whose headers are wrong, incomplete, or about something else; and damage at their ends."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.labels import FrameCount, FrameLabels
from keystep.extraction.video.decoding import opened
from keystep.extraction.video.files import VideoFile, open_video
from keystep.extraction.video.frames import Frame

av = pytest.importorskip("av", reason="needs the extra 'video'")
MakeClip = Callable[..., Path]
NumberOf = Callable[[np.ndarray], int]
RATE = Fraction(25)


def whole(frame: Frame) -> np.ndarray:
    """All of a frame in its own size."""
    return frame.rgb(Picture(height=frame.height, width=frame.width))


def shown(video: VideoFile, number_of: NumberOf) -> list[tuple[int, Fraction]]:
    """Number and place of each frame, at 25 Hz."""
    return [(number_of(whole(frame)), frame.time * RATE) for frame in video.frames()]


def packets(path: Path) -> list[tuple[int, int]]:
    """Place and size of each packet."""
    with av.open(str(path)) as file:
        return [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]


@pytest.mark.parametrize("ending", ["mp4", "avi"])
@pytest.mark.parametrize("last", [1, 2, 3])
def test_damage_at_the_end_costs_no_sound_frame(make_clip: MakeClip, ending: str, last: int) -> None:
    """However many frames are decoded at once, which depends on the processor."""
    path = make_clip(f"clip.{ending}", b_frames=3, keyframe_every=30)
    place, size = packets(path)[-last]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(np.random.default_rng(last).bytes(size))
    with opened(path, threads=False) as track:
        right = [time for time, _ in track.timed(track.packets())]
        damage = track.damage(Fraction(0))
    video = open_video(path)
    assert [frame.time for frame in video.frames()] == right and len(right) >= 26
    assert video.damage == damage != []
    assert [frame.time for frame in video.at([right[-1], right[-3]])] == [right[-1], right[-3]]


@pytest.mark.parametrize("ending", ["flv", "avi", "ts"])
def test_a_file_that_was_cut_off_keeps_all_frames_before(make_clip: MakeClip, number_of: NumberOf, ending: str) -> None:
    path = make_clip(f"clip.{ending}", frames=60, b_frames=0 if ending == "avi" else 3)
    reached = sorted(packets(path))[40]
    path.write_bytes(path.read_bytes()[: reached[0] + reached[1] // 2])
    numbers = [number for number, _ in shown(open_video(path), number_of)]
    assert len(numbers) >= 38 and numbers == sorted(numbers)
    assert ending == "ts" or open_video(path).info.frames is None


def test_losses_in_a_transport_stream_are_told(make_clip: MakeClip) -> None:
    """It states neither how many frames it has nor how long it is."""
    path = make_clip("clip.ts", frames=60, height=96, width=128)
    content, video = path.read_bytes(), open_video(path)
    assert sum(1 for _ in video.frames()) == 60 and video.damage == []
    middle = len(content) // 2 // 188 * 188
    path.write_bytes(content[:middle] + content[middle + 10 * 188 :])
    video = open_video(path)
    assert sum(1 for _ in video.frames()) <= 60
    assert any(re.fullmatch(r"data is missing in \d places, or files were joined there", line) for line in video.notes)


def test_frames_without_times_at_the_beginning_come_first(
    make_clip: MakeClip, number_of: NumberOf, tmp_path: Path
) -> None:
    """Matroska cannot store negative times."""
    plain, path = make_clip("plain.mkv", frames=60, b_frames=2), tmp_path / "clip.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.pts = stream, packet.pts - 800
                packet.dts = None if packet.dts is None else packet.dts - 800
                target.mux(packet)
    with av.open(str(path)) as file:
        assert next(file.demux(video=0)).pts is None
    video = open_video(path)
    assert shown(video, number_of) == [(number, number) for number in range(60)]
    assert (video.damage, video.notes) == ([], [])


def test_cuts_in_an_edit_list_are_no_jumps(make_clip: MakeClip, number_of: NumberOf) -> None:
    """The first and the third second of four, as a player shows them."""
    path = make_clip("clip.mp4", frames=100, keyframe_every=15)
    content = path.read_bytes()
    (ticks,) = struct.unpack(">I", content[(place := content.find(b"mdhd") + 16) : place + 4])
    begin = content.find(b"edts") - 4
    (size,) = struct.unpack(">I", content[begin : begin + 4])
    edits = b"".join(struct.pack(">IiI", 1000, start * ticks, 65_536) for start in (0, 2))
    entries = struct.pack(">I4sII", 16 + len(edits), b"elst", 0, 2) + edits
    lists = struct.pack(">I4s", 8 + len(entries), b"edts") + entries
    changed = bytearray(content[:begin] + lists + content[begin + size :])
    for name in (b"moov", b"trak"):
        start = changed.find(name) - 4
        (length,) = struct.unpack(">I", changed[start : start + 4])
        changed[start : start + 4] = struct.pack(">I", length + len(lists) - size)
    path.write_bytes(changed)
    video, numbers = open_video(path), [*range(25), *range(50, 75)]
    assert shown(video, number_of) == [(number, place) for place, number in enumerate(numbers)]
    assert (video.damage, video.notes) == ([], [])
    assert [number_of(whole(frame)) for frame in open_video(path).at([Fraction(6, 5), Fraction(0)])] == [55, 0]


def test_pictures_that_are_shown_for_long_are_no_jumps_of_the_clock(make_clip: MakeClip) -> None:
    video = open_video(make_clip("slides.ts", frames=6, rate=Fraction(1, 20)))
    assert [frame.time for frame in video.frames()] == [20 * number for number in range(6)]
    assert (video.damage, video.notes) == ([], [])


def test_what_counts_as_a_jump_of_the_clock_is_a_setting(make_clip: MakeClip, tmp_path: Path) -> None:
    pieces = [make_clip(f"{start}.ts", frames=25, start=start) for start in (0, 31)]
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    for setting, end in ((10, 2), (40, 32), (None, 32)):
        video = open_video(path, ExtractionConfig(clock_jump=setting).jump)
        assert [frame.time for frame in video.frames()][-1] == end - Fraction(1, 25)
        assert ("its clock jumps" in " ".join(video.notes)) == (end == 2)


def test_pictures_with_data_that_pyav_does_not_know_are_read(make_clip: MakeClip, number_of: NumberOf) -> None:
    path = make_clip("clip.tiff", codec="tiff", pixel_format="rgb24", frames=1, container="image2")
    with opened(path) as track, pytest.raises(ValueError, match="is not a valid Type"):
        next(track.decoded(track.packets())).side_data.get("DISPLAYMATRIX")
    assert number_of(whole(next(open_video(path).frames()))) == 0


@pytest.mark.parametrize(("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p"), ("bmp", "bgr24")])
def test_a_picture_under_the_name_of_a_video_is_told(make_clip: MakeClip, codec: str, pixels: str) -> None:
    video = open_video(make_clip("clip.mp4", codec=codec, pixel_format=pixels, frames=1, container="image2"))
    assert sum(1 for _ in video.frames()) == 1
    assert video.notes == [f"is a single picture ({codec}), not a video"] and video.damage == []


@pytest.mark.parametrize("name", ["list.mp4", "list.txt", "list.m3u8"])
def test_playlists_are_refused(make_clip: MakeClip, tmp_path: Path, name: str) -> None:
    """What they name may change, or be another recording, while they stay the same."""
    make_clip("piece.ts")
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\npiece.ts\n#EXT-X-ENDLIST\n"
    path = tmp_path / name
    path.write_text(text if name.endswith("m3u8") else "ffconcat version 1.0\nfile piece.ts\n")
    with pytest.raises(InputError, match=r"a playlist, not a video; join its files first"):
        open_video(path)


def test_a_wmv_file_of_another_size_than_it_states_is_told(make_clip: MakeClip) -> None:
    path = make_clip("clip.wmv", codec="wmv2", frames=60)
    content = path.read_bytes()
    for written, line in (
        (content, None),
        (content[: len(content) // 2], f"has only {len(content) // 2:,} of the stated {len(content):,} bytes"),
        (2 * content, f"the last {len(content):,} bytes are not read, perhaps a second file appended to the first"),
    ):
        path.write_bytes(written)
        video = open_video(path)
        assert 20 < sum(1 for _ in video.frames()) <= 60
        assert any(line in found for found in video.damage) if line else video.damage == []


def stating(path: Path, nanoseconds: int) -> Path:
    """A Matroska file whose header states another duration of a frame."""
    content = path.read_bytes()
    place = content.find(bytes.fromhex("23e38384")) + 4
    path.write_bytes(content[:place] + nanoseconds.to_bytes(4, "big") + content[place + 4 :])
    return path


@pytest.mark.parametrize("nanoseconds", [10_000_000, 400_000_000])
def test_a_rate_that_a_header_states_wrongly_refuses_no_labels_and_shifts_none(
    make_clip: MakeClip, tmp_path: Path, nanoseconds: int
) -> None:
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "mapping.txt").write_text("0 pour\n")
    labels, lengths = FrameLabels(tmp_path), []
    for name in ("first", "second"):
        (tmp_path / "groundTruth" / f"{name}.txt").write_text("pour\n" * 75)
        video = open_video(stating(make_clip(f"{name}.mkv", frames=75), nanoseconds))
        assert (video.info.rate or 0) != 25, "the header is believed"
        lengths.append(labels.check(name, video.info))
    labels.check_rate([found for found in lengths if found is not None])
    assert [found and found.expected for found in lengths] == [75, 75]
    count = FrameCount(video.info)
    frames = [frame for frame in video.frames() if not 30 <= frame.index < 40]
    assert len(list(count.over(frames))) == 65
    assert count.seen(damaged=True).holes in (None, ((30, 10),))


def test_rates_that_no_recording_has_are_refused() -> None:
    with pytest.raises(ValueError, match="1e\\+09 Hz; at most 1000"):
        ExtractionConfig(rate=Fraction(10**9))
