"""Frames of generated clips say their own number in black and white, so that a wrong one is seen at once."""

from __future__ import annotations

import csv
import gc
import os
import random
import re
import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.video import seeking
from keystep.extraction.video.camera import LiveInput, open_camera
from keystep.extraction.video.files import VideoFile, open_video
from keystep.extraction.video.frames import Frame, Renderer, resized_size

av = pytest.importorskip("av", reason="needs the extra 'video'")
MakeClip = Callable[..., Path]
NumberOf = Callable[[np.ndarray], int]
VARIABLE = [Fraction(n * n, 200) for n in range(60)]


def whole(frame: Frame) -> np.ndarray:
    """All of a frame in its own size."""
    return frame.rgb(Picture(height=frame.height, width=frame.width))


KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "constant rate": ("clip.mp4", {}),
    "variable rate": ("clip.mp4", {"times": VARIABLE, "b_frames": 2}),
    "B-frames": ("clip.mp4", {"b_frames": 3, "rate": Fraction(30_000, 1001)}),
    "B-frames across groups": ("clip.mp4", {"b_frames": 2, "options": {"x264-params": "open-gop=1"}}),
    "refreshed by parts": ("clip.mp4", {"frames": 100, "options": {"x264-params": "intra-refresh=1"}}),
    "Matroska": ("clip.mkv", {"b_frames": 2, "audio": 2}),
    "transport stream": ("clip.ts", {"b_frames": 2}),
    "MPEG-2": ("clip.ts", {"codec": "mpeg2video", "b_frames": 2}),
    "WebM": ("clip.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
    "AVI with B-frames": ("clip.avi", {"codec": "mpeg4", "b_frames": 2}),
    "without times": ("clip.h264", {"b_frames": 2}),
    "odd size": ("clip.mp4", {"codec": "mpeg4", "height": 67, "width": 101}),
    "lossless": ("clip.mkv", {"codec": "ffv1", "pixel_format": "bgr0", "height": 67, "width": 101}),
    "wrong ending": ("clip.txt", {"container": "matroska"}),
    "no ending": ("clip", {"container": "mp4"}),
    "name like an address": ("rtsp:clip%03d.mp4", {}),
    "one frame": ("clip.mp4", {"frames": 1}),
}


@pytest.fixture(params=KINDS)
def clip(request: pytest.FixtureRequest, make_clip: MakeClip) -> tuple[VideoFile, list[Fraction]]:
    """A clip of each kind, and when its frames are shown."""
    name, options = KINDS[request.param]
    options = {"frames": 60, **options}
    rate = options.get("rate", 25)
    times = options.get("times") or [Fraction(n) / rate for n in range(options["frames"])]  # type: ignore
    return open_video(make_clip(name, **options)), times  # type: ignore[return-value]


def test_every_frame_comes_once_in_order_with_its_time(
    clip: tuple[VideoFile, list[Fraction]], number_of: NumberOf
) -> None:
    video, times = clip
    frames = [(frame.index, number_of(whole(frame)), frame.time) for frame in video.frames()]
    assert [number for number, _, _ in frames] == [number for _, number, _ in frames] == list(range(len(times)))
    exact = video.info.path.suffix not in (".mkv", ".webm", ".txt")  # Matroska's clock ticks in milliseconds
    apart = [abs(time - right) for (_, _, time), right in zip(frames, times, strict=True)]
    assert max(apart) <= (0 if exact else Fraction(1, 2000))
    assert video.damage == []
    assert video.info.frames in (None, len(times)) and video.info.timed == (video.info.path.suffix != ".h264")
    assert (number_of(whole(next(video.frames()))), next(video.frames()).index) == (0, 0), "a file can be read again"


def test_the_frame_at_a_moment_is_that_of_decoding_from_the_start(
    clip: tuple[VideoFile, list[Fraction]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, in any order, with key frames looked for wherever they are ahead."""
    monkeypatch.setattr(seeking, "FAR", Fraction(1, 10))
    video, _ = clip
    frames = [(frame.index, frame.time, whole(frame).tobytes()) for frame in video.frames()]
    chance, end = random.Random(0), frames[-1][1]
    moments = [Fraction(chance.uniform(-0.5, float(end) + 0.5)) for _ in range(12)]
    moments += [time for _, time, _ in frames[::9]] + [end + 100, Fraction(-100), *sorted(moments)]
    for moment, frame in zip(moments, video.at(moments), strict=True):
        right = [known for known in frames if known[1] <= moment] or frames[:1]
        assert (frame.index, frame.time, whole(frame).tobytes()) == right[-1], f"at {float(moment)} s"


def test_key_frames_are_used_where_a_file_can_be_sought_in(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames decoded are those of a group for each moment."""
    video = open_video(make_clip(frames=250, b_frames=2, keyframe_every=10))
    decoded: list[int] = []
    frame_of = Renderer.frame

    def counting(self: Renderer, index: int, time: Fraction, picture: object) -> Frame:
        decoded.append(index)
        return frame_of(self, index, time, picture)

    monkeypatch.setattr(Renderer, "frame", counting)
    moments = [Fraction(9), Fraction(1), Fraction(8), Fraction(8)]
    assert [frame.index for frame in video.at(moments)] == [
        225,
        25,
        200,
        200,
    ]
    assert len(decoded) < 60


def test_frames_that_are_never_shown_are_not_counted(make_clip: MakeClip) -> None:
    """VP8 hides frames that others are predicted from: here every fourth one comes once more, hidden, before itself."""
    path = make_clip("clip.webm", codec="libvpx", keyframe_every=10, frames=40)
    hidden = path.with_name("hidden.webm")
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            content = bytes(packet)
            for shown in (False, True) if number % 4 == 3 else (True,):
                part = av.Packet(content if shown else bytes([content[0] & ~0x10]) + content[1:])
                part.pts = part.dts = 40 * number - (0 if shown else 20)
                part.time_base, part.is_keyframe, part.stream = Fraction(1, 1000), packet.is_keyframe, stream
                target.mux(part)
    video = open_video(hidden)
    frames = [(frame.index, frame.time, whole(frame).tobytes()) for frame in video.frames()]
    assert [time for _, time, _ in frames] == [Fraction(number, 25) for number in range(40)]
    back = [(frame.index, frame.time, whole(frame).tobytes()) for frame in video.at([f[1] for f in frames[::-1]])]
    assert back == frames[::-1]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_pictures_are_upright(make_clip: MakeClip, number_of: NumberOf, rotation: int, mirrored: bool) -> None:
    """Stored as a camera held sideways records them: turned clockwise, for the player to turn back."""

    def stored(number: int) -> np.ndarray:
        upright = upright_bars(number)
        upright = upright[:, ::-1] if mirrored else upright
        return np.ascontiguousarray(np.rot90(upright, -rotation // 90))

    height, width = stored(0).shape[:2]
    path = make_clip(frames=3, height=height, width=width, rotation=rotation, mirrored=mirrored, picture=stored)
    video = open_video(path)
    assert (video.info.height, video.info.width) == (48, 96)
    for frame in video.frames():
        assert (frame.height, frame.width) == (48, 96)
        for picture in (Picture(height=48, width=96), Picture(height=40, width=70)):
            assert number_of(frame.rgb(picture)) == frame.index
        cropped = frame.rgb(Picture(height=20, width=30, short=48))
        assert np.array_equal(cropped, whole(frame)[14:34, 33:63]) and cropped.flags.c_contiguous


def upright_bars(number: int) -> np.ndarray:
    """The picture of a number, 48 x 96, made by hand: digits of 12 bits behind white and black, before white."""
    digits = [1, 0, *(int(digit) for digit in f"{number:012b}"), 1]
    row = np.array(digits)[np.arange(96) * 15 // 96]
    return (
        np.repeat(np.repeat(np.stack([row, 1 - row]), 24, axis=0)[..., None] * np.uint8(215), 3, 2).astype(np.uint8)
        + 20
    )


def test_pixels_that_are_not_square_become_so(make_clip: MakeClip, number_of: NumberOf) -> None:
    video = open_video(make_clip(frames=2, height=48, width=60, pixel_aspect=Fraction(16, 11)))
    assert (video.info.height, video.info.width) == (48, 87)
    assert [number_of(whole(frame)) for frame in video.frames()] == [0, 1]
    turned = open_video(make_clip("turned.mp4", frames=1, height=48, width=60, pixel_aspect=Fraction(2), rotation=90))
    assert (turned.info.height, turned.info.width) == (120, 48)


@pytest.mark.parametrize("value_range", [1, 2])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
def test_colours_follow_the_matrix_and_range_that_the_file_states(
    make_clip: MakeClip, matrix: int, red: float, blue: float, value_range: int
) -> None:
    """Against the definition in ITU-R BT.601 and BT.709, by way of the planes as they are stored."""
    colour = np.array([200, 60, 90], np.uint8)
    path = make_clip(frames=1, colours=(matrix, value_range), picture=lambda _: np.tile(colour, (48, 64, 1)))
    (frame,) = open_video(path).frames()
    assert np.abs(frame.rgb(Picture(height=24, width=24)).astype(int) - colour).max() <= 3
    with av.open(str(path)) as file:
        planes = [np.frombuffer(plane, np.uint8)[0] for plane in next(file.decode(video=0)).planes]
    y, cb, cr = (float(value) for value in planes)
    luma, spread = ((y - 16) / 219, 224) if value_range == 1 else (y / 255, 255)
    r, b = (luma + 2 * (1 - weight) * (c - 128) / spread for weight, c in ((red, cr), (blue, cb)))
    g = (luma - red * r - blue * b) / (1 - red - blue)
    assert np.abs(whole(frame)[20, 20] - 255 * np.array([r, g, b])).max() < 1.5


@pytest.mark.parametrize(("height", "width", "matrix"), [(576, 720, 5), (720, 1280, 1)])
def test_an_unstated_matrix_is_that_of_the_size(height: int, width: int, matrix: int) -> None:
    pictures = []
    for stated in (2, matrix):
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, value in zip(frame.planes, (120, 90, 180), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace = stated
        pictures.append(Renderer(Fraction(1)).frame(0, Fraction(0), frame).rgb(Picture(height=8, width=8)))
    assert np.array_equal(*pictures)


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    """Against the definition: overlaps of intervals as weights."""

    def overlaps(old: int, new: int) -> np.ndarray:
        edges, cells = np.arange(new + 1) * old / new, np.arange(old)
        return (
            np.clip(np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells), 0, None) * new / old
        )

    pixels = np.random.default_rng(0).integers(0, 256, (67, 101, 3), dtype=np.uint8)
    frame = Renderer(Fraction(1)).frame(0, Fraction(0), av.VideoFrame.from_ndarray(pixels, format="rgb24"))
    assert np.array_equal(whole(frame), pixels)
    right = np.einsum("ih,jw,hwc->ijc", overlaps(67, 30), overlaps(101, 40), pixels)
    assert np.abs(frame.rgb(Picture(height=30, width=40)) - right).max() < 1
    tall = Picture(height=30, width=30, short=40)
    assert resized_size(67, 101, tall) == (40, 60) and resized_size(101, 67, tall) == (60, 40)
    right = np.einsum("ih,jw,hwc->ijc", overlaps(67, 40), overlaps(101, 60), pixels)[5:35, 15:45]
    assert np.abs(frame.rgb(tall) - right).max() < 1


def test_a_video_that_begins_after_its_sound_says_so(make_clip: MakeClip) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        video = open_video(make_clip(name, start=Fraction(1, 2), audio=2, b_frames=2))
        times = [frame.time for frame in video.frames()]
        assert times[0] == Fraction(1, 2) and times[25] == Fraction(3, 2) and video.damage == []
        (first,) = video.at([Fraction(0)])
        assert (first.index, first.time) == (0, Fraction(1, 2))
    silent = open_video(make_clip("silent.mp4", start=Fraction(1, 2)))
    assert next(silent.frames()).time == 0


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def index_first(path: Path) -> Path:
    """The same MP4 file with its index before its frames, as files for the network have it."""
    moved = path.with_name("fast.mp4")
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("clip.mp4", {}, r"\d+ of 100 frames could be decoded"),
        ("clip.mkv", {"audio": 4}, r"ends at \d\.\d s of the stated 4\.\d s"),
        ("clip.webm", {"codec": "libvpx", "b_frames": 0}, r"ends at \d\.\d s of the stated 4\.0 s"),
        ("clip.avi", {"codec": "mpeg4"}, r"ends at \d\.\d s of the stated 4\.0 s"),
        ("clip.flv", {}, r"ends at \d\.\d s of the stated 4\.\d s"),
        ("clip.ts", {}, None),  # a transport stream does not say how long it was
    ],
)
def test_what_is_left_of_a_file_that_was_cut_off_is_read_and_the_loss_is_told(
    make_clip: MakeClip, number_of: NumberOf, name: str, options: dict[str, object], said: str | None
) -> None:
    path = make_clip(name, **{"frames": 100, "b_frames": 2, **options})
    video = open_video(cut(index_first(path) if name == "clip.mp4" else path, 0.7))
    assert video.damage == []
    frames = [(frame.index, number_of(whole(frame))) for frame in islice(video.frames(), 25)]
    assert frames == [(number, number) for number in range(25)] and video.damage == []
    count = sum(1 for _ in video.frames())
    assert 25 < count < 90
    if said is not None:
        assert re.fullmatch(said, video.damage[0]), video.damage
        assert name != "clip.mp4" or video.damage[0].startswith(f"{count} of")
    (last,) = video.at([Fraction(100)])
    assert last.index == count - 1


def test_damage_in_the_middle_costs_the_frames_it_hit_and_no_others(make_clip: MakeClip, number_of: NumberOf) -> None:
    """Pictures of their own each (Motion JPEG), one of them wiped out."""
    path = make_clip("clip.mov", codec="mjpeg", pixel_format="yuvj420p", frames=40)
    with av.open(str(path)) as file:
        hit = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size][10:13]
    with path.open("r+b") as file:
        for place, size in hit:
            file.seek(place)
            file.write(bytes(size))
    video = open_video(path)
    frames = [(frame.index, frame.time, number_of(whole(frame))) for frame in video.frames()]
    kept = [number for number in range(40) if not 10 <= number < 13]
    assert frames == [(index, Fraction(number, 25), number) for index, number in enumerate(kept)]
    assert video.damage == ["37 of 40 frames could be decoded"]
    (shown,) = video.at([Fraction(12, 25)])
    assert (shown.index, shown.time) == (9, Fraction(9, 25))


def test_a_hole_in_a_matroska_file_is_told(make_clip: MakeClip) -> None:
    """Its reader takes up again behind the hole and says nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    path = make_clip(
        "clip.mkv", codec="mjpeg", pixel_format="yuvj420p", frames=40, picture=lambda number: noise[number]
    )
    video = open_video(path)
    assert sum(1 for _ in video.frames()) == 40 and video.damage == []
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) * 3 // 4] = bytes(len(content) // 2)
    path.write_bytes(content)
    video = open_video(path)
    assert sum(1 for _ in video.frames()) < 40 and "bytes could not be parsed" in " ".join(video.damage)


def test_a_cover_picture_is_no_video(make_clip: MakeClip, tmp_path: Path) -> None:
    tone, path = make_clip("tone.m4a", frames=0, audio=1, container="mp4"), tmp_path / "song.mp4"
    with av.open(str(tone)) as source, av.open(str(path), "w") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", options={"strict": "unofficial"})
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for packet in [*cover.encode(picture), *cover.encode(None)]:
            target.mux(packet)
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    with pytest.raises(InputError, match=r"song\.mp4: contains sound but no video"):
        open_video(path)


def refused(path: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(InputError) as raised:
        open_video(path)
    line = str(raised.value)
    assert "\n" not in line and line.startswith(f"{path}: ") and len(line) < len(str(path)) + 200
    return line[len(str(path)) + 2 :]


def test_files_that_are_no_videos_are_refused_in_one_line_each(make_clip: MakeClip, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    assert refused(path).startswith("no such video file")
    assert refused(tmp_path).startswith("a folder")
    path.write_bytes(b"")
    assert refused(path).startswith("an empty file; copy")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refused(tmp_path / "pipe.mp4").startswith("cannot be read: a pipe or a device")
    for content in (b"hi", b"a line of text\n" * 500, np.random.default_rng(0).bytes(50_000)):
        path.write_bytes(content)
        assert refused(path).startswith("not a readable video")
    (tmp_path / "x.txt").write_text("a line of text\n" * 500)
    assert refused(tmp_path / "x.txt").startswith("contains no video")
    for name in ("sound.mp4", "sound.mkv"):
        assert refused(make_clip(name, frames=0, audio=1)).startswith("contains sound but no video")


def test_videos_that_cannot_be_decoded_are_refused_in_one_line_each(make_clip: MakeClip, tmp_path: Path) -> None:
    content = make_clip().read_bytes()
    path = tmp_path / "x.mp4"
    path.write_bytes(content[: len(content) // 2])
    assert refused(path).startswith("an MP4 file without a readable index (moov)")
    path.write_bytes(content.replace(b"avc1", b"zzzz").replace(b"avcC", b"free"))
    assert "codec is not supported by this PyAV" in refused(path)
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
    assert "no frame of its" in refused(path)


def test_without_pyav_the_extra_is_named(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(frames=1)
    monkeypatch.setitem(sys.modules, "av", None)
    for attempt in (lambda: open_video(path), lambda: open_camera("0")):
        with pytest.raises(InputError, match=r"needs PyAV; install it with: pip install 'keystep\[video\]'"):
            attempt()


def resident() -> int:
    """Bytes of memory that this process holds, those of libraries included."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        pytest.skip("only Linux says how much memory is held now")
    return int(statistics.read_text().split()[1]) * resource.getpagesize()


def repeated(path: Path, times: int) -> Path:
    """A clip of key frames, over and over again in one file."""
    long = path.with_name(f"long{path.suffix}")
    with av.open(str(path)) as source, av.open(str(long), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        parts = [(bytes(packet), packet.duration) for packet in source.demux(video=0) if packet.size]
        for number in range(times * len(parts)):
            content, duration = parts[number % len(parts)]
            packet = av.Packet(content)
            packet.pts = packet.dts = number * duration
            packet.time_base, packet.duration, packet.is_keyframe = source.streams.video[0].time_base, duration, True
            packet.stream = stream
            target.mux(packet)
    return long


def test_memory_stays_flat_over_a_hundred_thousand_frames(make_clip: MakeClip) -> None:
    clip = make_clip("clip.mov", codec="mjpeg", pixel_format="yuvj420p", frames=100, height=16, width=32)
    picture, early = Picture(height=8, width=8), 0
    for frame in open_video(repeated(clip, 1000)).frames():
        if frame.index % 50 == 0:
            frame.rgb(picture)
        if frame.index == 10_000:
            early = resident()
    assert frame.index == 99_999 and frame.time == Fraction(99_999, 25)
    assert resident() - early < 8_000_000  # 90,000 frames of 16 x 32 hold 69 MB and more


def test_large_frames_are_let_go(make_clip: MakeClip) -> None:
    """A turned frame is not tied to itself: its megabytes are free with the last name, without the collector, too."""
    path = make_clip(frames=80, height=720, width=1280, rotation=90, options={"preset": "ultrafast"})
    early, collected = 0, gc.isenabled()
    gc.disable()
    try:
        for frame in open_video(path).frames():
            if frame.index == 20:
                early = resident()
        late = resident()
    finally:
        if collected:
            gc.enable()
    assert late - early < 30_000_000  # 60 frames are 83 MB


def test_live_inputs_give_frames_from_time_zero() -> None:
    """FFmpeg's test picture stands for a camera."""
    camera = LiveInput("camera 0", "testsrc=size=64x48:rate=10:duration=1", "lavfi")
    frames = list(camera.frames())
    assert [(frame.index, frame.time) for frame in frames] == [(n, Fraction(n, 10)) for n in range(10)]
    assert frames[0].rgb(Picture(height=12, width=16)).shape == (12, 16, 3)


def test_cameras_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(InputError, match="camera 97: cannot be opened as a camera or stream"):
        next(open_camera("97").frames())
    with pytest.raises(InputError, match=r"rtsp://127\.0\.0\.1:9/x: cannot be opened .*refused"):
        next(open_camera("rtsp://127.0.0.1:9/x").frames())
    with pytest.raises(InputError, match="'front door': neither the number of a camera nor an address"):
        open_camera("front door")
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(InputError, match="cameras are not supported on plan9"):
        open_camera("0")


def test_real_videos_have_the_frames_that_their_lists_say(shared: Path) -> None:
    folder = shared / "data" / "gtea_s2_videos"
    with (folder / "videos.csv").open() as table:
        counts = {row["video"]: int(row["n_video_frames"]) for row in csv.DictReader(table)}
    paths = {name: folder / "videos" / f"{name}.mp4" for name in sorted(counts)[:3]}
    paths["balloon"] = shared / "data" / "vts_video" / "P016_balloon2_320x240.mp4"
    for name, path in paths.items():
        video = open_video(path)
        rate, count = (30, 3910) if name == "balloon" else (15, counts[name])
        assert all(frame.time == Fraction(frame.index, rate) for frame in video.frames())
        assert (video.damage, video.info.frames, video.info.rate) == ([], count, rate)
        moments = [Fraction(place, 7) for place in (280, 3, 200)]
        assert [frame.index for frame in video.at(moments)] == [int(moment * rate) for moment in moments]
