"""Sound files whose clock, index or tracks are unlike those of a plain recording; their frames say who they are."""

from __future__ import annotations

import re
import resource
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.labels import FrameLabels
from keystep.extraction.loading import load_extractor
from keystep.extraction.video import seeking
from keystep.extraction.video.camera import LiveInput
from keystep.extraction.video.files import VideoFile, open_video
from keystep.extraction.video.frames import Frame, Renderer

av = pytest.importorskip("av", reason="needs the extra 'video'")
MakeClip = Callable[..., Path]
NumberOf = Callable[[np.ndarray], int]
RATE = Fraction(25)


def whole(frame: Frame) -> np.ndarray:
    """All of a frame in its own size."""
    return frame.rgb(Picture(height=frame.height, width=frame.width))


def muxed(
    sources: list[Path],
    path: Path,
    *,
    container: str | None = None,
    options: dict[str, str] | None = None,
    default: int | None = None,
    shift: Callable[[int], int] = lambda number: 0,
) -> Path:
    """The video tracks of several files in one, packet by packet, in the order of their times of decoding.

    default: which track is marked so; None: none is set. shift: seconds by which the n-th packet of a track is late.
    """
    opened = [av.open(str(source)) for source in sources]
    with av.open(str(path), "w", format=container, options=options or {}) as target:
        packets = []
        for track, source in enumerate(opened):
            stream = target.add_stream_from_template(source.streams.video[0])
            if default is not None:
                stream.disposition = av.stream.Disposition.default if track == default else 0
            for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
                packet.stream = stream
                late = shift(number) / packet.time_base
                packet.pts, packet.dts = packet.pts + int(late), packet.dts + int(late)
                packets.append((packet.dts * packet.time_base, packet))
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            target.mux(packet)
    for source in opened:
        source.close()
    return path


def joined(path: Path, *parts: Path) -> Path:
    """Files behind each other, as ``cat`` does it."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def numbers_and_times(video: VideoFile | LiveInput, number_of: NumberOf) -> list[tuple[int, Fraction]]:
    return [(number_of(whole(frame)), frame.time) for frame in video.frames()]


def at_rate(*numbers: range) -> list[tuple[int, Fraction]]:
    """Frames with these numbers, one every 1 / RATE seconds."""
    return [(number, place / RATE) for place, number in enumerate(number for part in numbers for number in part)]


def seen_at(video: VideoFile, moments: list[Fraction]) -> list[tuple[int, Fraction, bytes]]:
    return [(frame.index, frame.time, whole(frame).tobytes()) for frame in video.at(moments)]


WITHOUT_TIMES = {
    f"{codec} in {container}, {b_frames} B-frames": (container, codec, b_frames)
    for codec in ("libx264", "mpeg4")
    for container in ("avi", "asf")
    for b_frames in (0, 2)
} | {
    "MJPEG in AVI": ("avi", "mjpeg", 0),
    "MJPEG in ASF": ("asf", "mjpeg", 0),
    "HEVC in AVI": ("avi", "libx265", 0),
    "HEVC in AVI with B-frames": ("avi", "libx265", 2),
    "raw H.264": ("h264", "libx264", 0),
    "raw H.264 with B-frames": ("h264", "libx264", 2),
    "raw HEVC": ("hevc", "libx265", 0),
    "raw MPEG-2": ("m2v", "mpeg2video", 2),
    "program stream": ("mpg", "mpeg2video", 2),
    "H.264 in a program stream": ("vob", "libx264", 2),
}


@pytest.fixture(params=WITHOUT_TIMES)
def untimed(request: pytest.FixtureRequest, make_clip: MakeClip) -> Path:
    """30 frames in a file that does not say of each when it is shown."""
    container, codec, b_frames = WITHOUT_TIMES[request.param]
    options = {"x265-params": f"bframes={b_frames}:log-level=none"} if codec == "libx265" else {}
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if (container, codec) == ("avi", "libx265"):
        return hevc_in_avi(make_clip("clip.hevc", codec=codec, options=options))
    return make_clip(f"clip.{container}", codec=codec, b_frames=b_frames, options=options, pixel_format=pixels)


def hevc_in_avi(raw: Path) -> Path:
    """PyAV does not write that, but cameras do: the packets under the name of another codec, which is then replaced."""
    path = raw.with_suffix(".avi")
    with av.open(str(raw)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / RATE
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream, packet.time_base = stream, 1 / RATE
            packet.pts, packet.dts, packet.duration = number, number, 1
            target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"HEVC"))
    return path


def test_frames_without_times_are_shown_in_turn(
    untimed: Path, number_of: NumberOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frame k at k / rate: read in order, looked up in any order, live, and where slots take them from."""
    monkeypatch.setattr(seeking, "FAR", Fraction(1, 10))
    right = at_rate(range(30))
    video = open_video(untimed)
    assert numbers_and_times(video, number_of) == right and (video.damage, video.notes) == ([], [])
    moments = [Fraction(place, 25) + Fraction(1, 50) for place in (28, 3, 17, 0, 29)]
    assert [number_of(whole(frame)) for frame in open_video(untimed).at(moments)] == [28, 3, 17, 0, 29]
    kinds = {".m2v": "mpegvideo", ".mpg": "mpeg", ".vob": "mpeg"}
    live = LiveInput("camera", str(untimed), kinds.get(untimed.suffix, untimed.suffix[1:]))
    assert numbers_and_times(live, number_of) == right
    extractor = load_extractor(ExtractionConfig(backbone="toy_backbones:colours", rate=RATE), None, "cpu")
    shown = [int(row[1]) for part in extractor.stream(video.frames()) for row in part.seen]
    assert shown == list(range(30))


def test_frames_that_are_lost_do_not_shift_those_without_times(make_clip: MakeClip, number_of: NumberOf) -> None:
    path = make_clip("clip.avi", frames=60, keyframe_every=10, options={"x264-params": "scenecut=0"})
    with av.open(str(path)) as file:
        lost = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size][10]
    with path.open("r+b") as file:
        file.seek(lost[0])
        file.write(bytes(lost[1]))
    frames = [(frame.time * 25, frame.index) for frame in open_video(path).frames()]
    assert len(frames) < 60 and frames[:10] == [(number, number) for number in range(10)]
    behind = [(number_of(whole(frame)), frame.time * 25) for frame in open_video(path).frames() if frame.time >= 1]
    assert behind[5:] == [(number, number) for number in range(behind[5][0], 60)] and len(behind) > 30


FRAGMENTED = ("dash+global_sidx+skip_trailer", "frag_keyframe", "frag_keyframe+empty_moov+default_base_moof", "cmaf")


@pytest.mark.parametrize("flags", FRAGMENTED)
def test_counts_of_the_first_fragments_refuse_nothing(make_clip: MakeClip, tmp_path: Path, flags: str) -> None:
    """An MP4 file in fragments lists the frames of those that have been read."""
    plain = make_clip("plain.mp4", frames=100, b_frames=2, keyframe_every=10)
    path = muxed([plain], tmp_path / "clip.mp4", options={"movflags": flags})
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "groundTruth" / "clip.txt").write_text("pour\n" * 100)
    (tmp_path / "mapping.txt").write_text("0 pour\n")
    video = open_video(path)
    FrameLabels(tmp_path).check("clip", video.info)
    assert sum(1 for _ in video.frames()) == 100 and video.damage == [] and video.info.frames is None
    (tmp_path / "groundTruth" / "plain.txt").write_text("pour\n" * 200)
    with pytest.raises(InputError, match="labels for 200 frames, the video has 100"):
        FrameLabels(tmp_path).check("plain", open_video(plain).info)


def test_a_fragmented_file_that_was_cut_off_is_partial(make_clip: MakeClip, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), dtype=np.uint8)
    plain = make_clip("plain.mp4", frames=100, keyframe_every=10, picture=lambda number: noise[number])
    path = muxed([plain], tmp_path / "clip.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    path.write_bytes(path.read_bytes()[: int(0.63 * path.stat().st_size)])
    video = open_video(path)
    assert 50 < sum(1 for _ in video.frames()) < 70 and "frames could be decoded" in video.damage[0]


def clock_pieces(make_clip: MakeClip, ending: str, starts: list[int]) -> list[Path]:
    """Clips of 20 frames that begin at these seconds of their clock; every second one without B-frames."""
    return [
        make_clip(f"piece{place}.{ending}", frames=20, b_frames=2 * (place % 2), start=start, container="mpegts")
        for place, start in enumerate(starts)
    ]


JUMPS = {
    "a minute": [0, 60],
    "hours": [0, 36_000],
    "hours, many times": [0, 7200, 3 * 7200, 40_000],
    "back": [36_000, 0],
    "again": [0, 0],
    "again, twice": [0, 0, 0],
    "to and fro": [100, 40_000, 50, 5000],
}


@pytest.mark.parametrize("starts", JUMPS.values(), ids=JUMPS)
def test_pieces_of_a_transport_stream_follow_each_other_whatever_its_clock_does(
    make_clip: MakeClip, number_of: NumberOf, tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "FAR", Fraction(1, 10))
    path = joined(tmp_path / "clip.ts", *clock_pieces(make_clip, "ts", starts))
    video = open_video(path)
    assert numbers_and_times(video, number_of) == at_rate(*[range(20)] * len(starts)) and video.damage == []
    (note,) = video.notes
    seconds = [float(after - before) - 0.8 for before, after in pairwise(starts)]
    assert note.startswith("its clock jumps by ") and note.count(" s at ") == min(3, len(seconds))
    assert abs(float(note.split()[4]) - seconds[0]) < 0.2 and "at 0.8 s" in note
    moments = [Fraction(place, 25) for place in (0, 39, 21, 5, 20 * len(starts) - 1)]
    assert [frame.index for frame in open_video(path).at(moments)] == [0, 39, 21, 5, 20 * len(starts) - 1]


def test_a_live_clock_that_starts_again_goes_on_and_one_that_waits_leaves_a_gap(
    make_clip: MakeClip, number_of: NumberOf, tmp_path: Path
) -> None:
    again = joined(tmp_path / "again.ts", *clock_pieces(make_clip, "ts", [100, 0]))
    live = LiveInput("camera", str(again), "mpegts")
    assert numbers_and_times(live, number_of) == at_rate(range(20), range(20))
    later = joined(tmp_path / "later.ts", *clock_pieces(make_clip, "ts", [0, 60]))
    times = [frame.time for frame in LiveInput("camera", str(later), "mpegts").frames()]
    assert times == [Fraction(n, 25) for n in range(20)] + [60 + Fraction(n, 25) for n in range(20)]


def test_the_end_of_a_transport_streams_clock_is_no_jump(make_clip: MakeClip, number_of: NumberOf) -> None:
    """It counts to 2 ** 33 in 90,000ths of a second: 26.5 hours."""
    path = make_clip("clip.ts", frames=60, start=Fraction(2**33, 90_000) - 1, b_frames=2)
    video = open_video(path)
    assert numbers_and_times(video, number_of) == at_rate(range(60)) and (video.damage, video.notes) == ([], [])
    with av.open(str(path)) as file:
        stamps = [packet.dts for packet in file.demux(video=0) if packet.dts is not None]
    assert min(stamps) < 0 < max(stamps), "FFmpeg counts on from below 0"


@pytest.mark.parametrize("ending", ["mp4", "mov", "flv"])
def test_a_file_behind_another_is_told_where_it_cannot_be_read(
    make_clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    piece = make_clip(f"piece.{ending}", frames=30)
    video = open_video(joined(tmp_path / f"clip.{ending}", piece, piece))
    assert sum(1 for _ in video.frames()) == 30
    (line,) = video.damage
    assert re.fullmatch(r"the last [\d,]+ bytes are not read, perhaps a second file appended to .*; split them", line)
    assert abs(int(line.split()[2].replace(",", "")) - piece.stat().st_size) < 1000


@pytest.mark.parametrize("ending", ["mkv", "avi", "h264", "mpg"])
def test_a_file_behind_another_is_read_where_that_is_possible(
    make_clip: MakeClip, number_of: NumberOf, tmp_path: Path, ending: str
) -> None:
    piece = make_clip(f"piece.{ending}", frames=30, codec="mpeg2video" if ending == "mpg" else "libx264")
    video = open_video(joined(tmp_path / f"clip.{ending}", piece, piece))
    assert numbers_and_times(video, number_of) == at_rate(range(30), range(30)) and video.damage == []


def test_a_codec_that_changes_is_told(make_clip: MakeClip, tmp_path: Path) -> None:
    first = make_clip("first.ts", frames=50, codec="mpeg2video")
    video = open_video(joined(tmp_path / "clip.ts", first, make_clip("second.ts", frames=50)))
    assert sum(1 for _ in video.frames()) <= 50
    assert "no picture could be decoded in the last 2." in " ".join(video.damage)


def late_by(seconds: int, number: int) -> Callable[[int], int]:
    return lambda packet: seconds if packet >= number else 0


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_picture_is_not_taken_to_be_shown_for_hours(make_clip: MakeClip, tmp_path: Path, ending: str) -> None:
    """In other containers a gap may be meant, so it is kept, and slots end with the longest hold."""
    plain = make_clip(f"plain.{ending}", frames=50)
    video = open_video(muxed([plain], tmp_path / f"clip.{ending}", shift=late_by(36_000, 25)))
    for hold, until in ((60.0, 61), (2.5, 3.5)):
        config = ExtractionConfig(backbone="toy_backbones:colours", rate=Fraction(4), longest_hold=hold)
        parts = list(load_extractor(config, None, "cpu").stream(video.frames()))
        times = np.concatenate([part.times for part in parts])
        assert np.allclose(times, [*np.arange(0, until, 0.25), *np.arange(36_001, 36_002, 0.25)])
    assert video.damage == [] and video.notes == ["one picture is shown from 1.0 to 36001.0 s"]


def test_frames_whose_times_do_not_rise_are_left_out_and_counted(make_clip: MakeClip, tmp_path: Path) -> None:
    plain, path = make_clip("plain.mkv", codec="mjpeg", pixel_format="yuvj420p"), tmp_path / "clip.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream = stream
            packet.pts = packet.dts = 40 * (number - (number == 10))
            target.mux(packet)
    video = open_video(path)
    assert [frame.time * 25 for frame in video.frames()] == [number for number in range(30) if number != 10]
    assert video.damage == ["1 frames omitted because their times do not increase, the first at 0.4 s"]


SMALL, LARGE = (24, 32), (48, 64)


@pytest.fixture
def clips(make_clip: MakeClip) -> dict[str, Path]:
    """A small clip, a large one, and a still picture that is larger still."""
    return {
        "small": make_clip("small.mp4", height=24, width=32),
        "large": make_clip("large.mp4"),
        "still": make_clip("still.mp4", frames=1, height=96, width=128),
    }


TRACKS = [
    (["small", "large"], 1, LARGE),
    (["large", "small"], 0, LARGE),
    (["large", "small"], 1, SMALL),
    (["small", "large", "still"], 0, SMALL),
    (["still", "large"], 0, LARGE),
    (["small", "large"], None, LARGE),
    (["still", "small", "large"], None, LARGE),
]


@pytest.mark.parametrize(
    ("ending", "tracks", "default", "taken"),
    [("mkv", *tracks) for tracks in TRACKS]
    + [("mp4", *tracks) for tracks in TRACKS[:5]]  # in an MP4 file, one always is the default
    + [("ts", *tracks) for tracks in TRACKS[5:]],  # in a transport stream, none is
)
def test_the_default_track_that_moves_is_taken_or_else_the_largest(
    clips: dict[str, Path],
    tmp_path: Path,
    ending: str,
    tracks: list[str],
    default: int | None,
    taken: tuple[int, int],
) -> None:
    video = open_video(muxed([clips[name] for name in tracks], tmp_path / f"clip.{ending}", default=default))
    assert (video.info.height, video.info.width) == taken
    assert sum(1 for _ in video.frames()) == 30 and video.damage == []
    (note,) = video.notes
    assert note.startswith(f"has {len(tracks)} video tracks: uses track ") and f"of {taken[1]} x {taken[0]}" in note
    moved = [frame.index for frame in video.at([Fraction(1), Fraction(0)])]
    assert moved == [25, 0]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_single_picture_where_seconds_are_stated_is_partial(make_clip: MakeClip, name: str) -> None:
    video = open_video(make_clip(name, frames=1, audio=4))
    assert sum(1 for _ in video.frames()) == 1
    assert video.damage[0].startswith("a single picture for the stated 4.")


@pytest.mark.parametrize(("height", "width"), [(16, 16 * 70), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_that_would_take_gigabytes_are_refused(make_clip: MakeClip, height: int, width: int) -> None:
    """A few bytes that state a size: nothing is allocated for it."""
    path = make_clip("clip.png", codec="png", pixel_format="rgb24", frames=1, container="image2")
    content = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"clip\.png: .*(larger than|picture size)"):
        open_video(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_pixels_that_are_stated_far_from_square_are_refused() -> None:
    """They would be scaled to gigabytes."""
    with pytest.raises(
        InputError, match=r"video: pictures of 12800 x 48, .* aspect ratio above 64; rescale them first"
    ):
        Renderer(Fraction(200)).frame(0, Fraction(0), av.VideoFrame(64, 48, "yuv420p"))
