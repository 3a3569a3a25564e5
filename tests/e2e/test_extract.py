"""``keystep extract`` and ``keystep stream VIDEO``: from files to features, to steps, and how they refuse."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keystep.data.folder import open_dataset
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.extractor import joined
from keystep.extraction.loading import load_extractor
from keystep.extraction.video import open_video

pytest.importorskip("av", reason="needs the extra 'video'")
from clips import write_clip  # it needs av

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("wait", "cut", "tie a knot")
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])
TOY = ("--backbone", "toy_backbones:colours")
TRUSTED = ("--backbone", "toy_backbones:moving")


def labelled_clip(folder: Path, name: str, seed: int, frames: int = 120) -> None:
    """A video of 10 frames a second whose colour is its step, and its labels."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.permutation(np.arange(frames // 10) % 3), 10)
    noise = rng.integers(-25, 25, size=(frames, 16, 16, 3))

    def picture(number: int) -> np.ndarray:
        return np.clip(COLOURS[steps[number]] + noise[number], 0, 255).astype(np.uint8)

    write_clip(folder / "videos" / f"{name}.mp4", frames=frames, height=16, width=16, rate=10, picture=picture)
    (folder / "groundTruth" / f"{name}.txt").write_text("\n".join(CLASSES[step] for step in steps[:-5]))


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five labelled videos (the labels end half a second early), classes, a split."""
    root = tmp_path_factory.mktemp("kitchen")
    for part in ("videos", "groundTruth", "splits"):
        (root / part).mkdir()
    for index in range(5):
        labelled_clip(root, f"video{index}", index)
    (root / "mapping.txt").write_text("0 wait\n1 cut\n2 tie a knot\n")
    for part, chosen in (("train", range(3)), ("valid", (3,)), ("test", (4,))):
        (root / "splits" / f"{part}.split1.bundle").write_text("".join(f"video{index}.txt\n" for index in chosen))
    return root


@pytest.fixture(scope="module")
def judged(once: Run, kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Features that use no future, a model of them, and its heads."""
    root = tmp_path_factory.mktemp("judged")
    settings = ["model.dim=16", "model.heads=2", "model.depth=2", "train.steps=4", "train.crop=16"]
    options = [value for setting in settings for value in ("--set", setting)]
    quick = ["--set", "probe.penalties=[0.01]"]
    backbone = ("--backbone", "toy_backbones:moving", "--window", "right")
    for command in (
        ["extract", kitchen / "videos", "--out", root / "data", *backbone, "--rate", "5", "--labels", kitchen],
        ["pretrain", root / "data", "--split", "1", "--out", root / "run", *options, "--set", "train.batch_size=2"],
        ["eval", root / "data", "--model", f"pjepa={root / 'run'}", "--out", root / "result", *quick],
    ):
        status, _, error = once(*command)
        assert status == 0, error
    head = root / "result" / "heads" / "pjepa-causal-seed0.safetensors"
    return SimpleNamespace(data=root / "data", run=root / "run", head=head, video=kitchen / "videos" / "video4.mp4")


def test_features_labels_and_frames_seen_belong_together(
    keystep: Run, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "features"
    status, said, error = keystep("extract", kitchen / "videos", "--out", out, *TOY, "--rate", "4", "--labels", kitchen)
    assert status == 0, error
    assert "5 of 5 videos, 12 dimensions" in said and "labels for 115 frames" in said
    folder = open_dataset(out)
    assert folder.timeline.rate == 4 and folder.timeline.look_ahead == 0
    for name in folder.videos:
        shown = np.load(out / "seen" / f"{name}.npy")[:, 1]
        assert shown.tolist() == [int(slot * 2.5) for slot in range(48)]
        lines = (kitchen / "groundTruth" / f"{name}.txt").read_text().split("\n")
        for label, frame, row in zip(folder.labels(name), shown, folder.features(name), strict=True):
            if frame < len(lines):
                assert CLASSES[label] == lines[frame]
                assert np.abs(row[:3] * 255 - COLOURS[label]).max() < 30
            else:
                assert label < 0
    assert folder.split("1").test == ("video4",)


def test_finished_videos_are_not_done_again(keystep: Run, kitchen: Path, tmp_path: Path):
    out = tmp_path / "features"
    video = kitchen / "videos" / "video0.mp4"
    assert keystep("extract", video, "--out", out, *TOY)[0] == 0
    before = (out / "features" / "video0.npy").stat().st_mtime_ns
    status, said, _ = keystep("extract", kitchen / "videos", "--out", out, *TOY)
    assert status == 0 and "4 videos to extract, 1 finished" in said
    assert (out / "features" / "video0.npy").stat().st_mtime_ns == before
    status, _, error = keystep("extract", video, "--out", out, *TOY, "--rate", "5")
    assert status == 2 and "choose another folder" in error
    write_clip(tmp_path / "short.mp4", frames=2, height=16, width=16, rate=10, start=Fraction(1, 10), audio=1)
    status, _, error = keystep("extract", tmp_path / "short.mp4", "--out", out, *TOY)
    assert status == 2 and "the video has no slot" in error
    assert json.loads((out / "store.json").read_text())["complete"] is False


def test_a_killed_run_leaves_whole_videos_and_goes_on(keystep: Run, kitchen: Path, tmp_path: Path):
    for index in range(12):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"copy{index}.mp4").symlink_to(kitchen / "videos" / f"video{index % 5}.mp4")
    out = tmp_path / "features"
    command = [sys.executable, "-m", "keystep", "extract", str(tmp_path / "many"), "--out", str(out), *TOY]
    toys = Path(__file__).parents[1] / "support"
    process = subprocess.Popen([*command, "--rate", "10"], cwd=toys, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("features/*.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in out.glob("features/[!.]*.npy"):
        assert np.load(path).shape == (120, 12)
    status, _, error = keystep(*command[3:], "--rate", "10")
    assert status == 0, error
    assert len(open_dataset(out).videos) == 12
    assert json.loads((out / "store.json").read_text())["complete"] is True


def test_several_processes_and_shards_give_what_one_process_gives(keystep: Run, kitchen: Path, tmp_path: Path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    commands = [
        ["extract", kitchen / "videos", "--out", alone, *TOY],
        ["extract", kitchen / "videos", "--out", shared, *TOY, "--workers", "2", "--shard", "1/2"],
        ["extract", kitchen / "videos", "--out", shared, *TOY, "--shard", "2/2"],
    ]
    for command in commands:
        status, said, error = keystep(*command)
        assert status == 0, error
    assert "2 videos to extract, 3 in other shards" in said
    for name in open_dataset(alone).videos:
        one, several = (
            {part: np.load(out / part / f"{name}.npy") for part in ("features", "seen")} for out in (alone, shared)
        )
        np.testing.assert_array_equal(one["seen"], several["seen"])
        # workers share the threads, and means by fewer threads may round apart
        np.testing.assert_allclose(one["features"], several["features"], atol=1e-6)
    assert json.loads((shared / "store.json").read_text())["complete"] is True


def test_bad_videos_are_named_at_once_or_left_out_and_listed(keystep: Run, kitchen: Path, tmp_path: Path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(2):
        (videos / f"good{index}.mp4").write_bytes((kitchen / "videos" / f"video{index}.mp4").read_bytes())
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mkv").write_text("no video")
    out = tmp_path / "features"
    command = ["extract", videos, "--out", out, *TOY]
    status, _, error = keystep(*command)
    assert status == 2 and error.count("\n") == 1 and "empty.mp4" in error
    assert not list(out.glob("features/*"))
    words = [sys.executable, "-m", "keystep", *map(str, command), "--on-error", "skip"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1] / "support")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("an empty file; copy") == 1
    assert "left out: 2 videos (empty, text)" in done.stdout and "2 of 4 videos" in done.stdout
    assert "2 videos to extract, 2 unreadable" in done.stdout
    assert sorted(open_dataset(out).videos) == ["good0", "good1"]


def test_what_shards_leave_out_is_kept_until_it_is_mended(keystep: Run, kitchen: Path, tmp_path: Path):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    good = (kitchen / "videos" / "video0.mp4").read_bytes()
    for name, content in (("a", b"x"), ("b", b"x"), ("c", good), ("d", good)):
        (videos / f"{name}.mp4").write_bytes(content)

    def share(part: int) -> bool:
        assert keystep("extract", videos, "--out", out, *TOY, "--shard", f"{part}/2", "--on-error", "skip")[0] == 0
        complete: bool = json.loads((out / "store.json").read_text())["complete"]
        return complete

    assert [share(1), share(2)] == [False, True]
    assert sorted(path.name for path in (out / "skipped").iterdir()) == ["a.json", "b.json"]
    status, said, _ = keystep("inspect", out, "--picture", tmp_path / "picture.png")
    assert status == 0 and "note: a: left out: " in said and "note: b: left out: " in said and "2 notes" in said
    (videos / "a.mp4").write_bytes(good)
    assert share(1)
    assert [path.name for path in (out / "skipped").iterdir()] == ["b.json"]


def test_labels_that_come_later_reach_finished_videos(keystep: Run, kitchen: Path, tmp_path: Path):
    out, once = tmp_path / "features", tmp_path / "once"
    command = ("extract", kitchen / "videos", *TOY, "--rate", "10")
    assert keystep(*command, "--out", out)[0] == 0
    assert not (out / "groundTruth").exists()
    status, said, error = keystep(*command, "--out", out, "--labels", kitchen)
    assert status == 0 and "0 videos to extract, 5 finished" in said, error
    assert "note: video3: labels for 115 frames, the video has 120; the last 5 are unlabelled" in said
    assert keystep(*command, "--out", once, "--labels", kitchen)[0] == 0
    for path in (once / "groundTruth").iterdir():
        assert path.read_text() == (out / "groundTruth" / path.name).read_text()
    status, _, error = keystep(*command, "--out", out, "--labels", kitchen, "--label-rate", "20", "--on-error", "skip")
    assert status == 2 and "0.479 lines per 1/20 s in all 5 videos" in error and "such as 9.583" in error
    status, said, _ = keystep(*command, "--out", out, "--labels", kitchen, "--label-rate", "10")
    assert status == 0 and "the labels have changed" in said and "0 videos to extract, 5 finished" in said


def test_labels_that_cannot_be_used_show_before_the_work(keystep: Run, kitchen: Path, tmp_path: Path):
    labels, out = tmp_path / "labels", tmp_path / "out"
    (labels / "groundTruth").mkdir(parents=True)
    (labels / "mapping.txt").write_text("0 wait\n")
    command = ("extract", kitchen / "videos", "--out", out, *TOY, "--labels", labels)
    status, _, error = keystep(*command)
    assert status == 2 and "no labels for any of the videos" in error and not out.exists()
    last = labels / "groundTruth" / "video4.txt"
    for content, says in (
        ("wait\nrest", "class 'rest'"),
        ("wait\n" * 240, "240 frames, the video has 120; give --lab"),
    ):
        last.write_text(content)
        status, _, error = keystep(*command)
        assert status == 2 and says in error and not (out / "features").exists()
    last.write_text("wait\n" * 120)
    status, said, _ = keystep(*command)
    assert status == 0 and "note: no labels for 4 of 5 videos, such as video0" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    """They hold its standard error open, which therefore ends with the last of them."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("TOY_MARKS", str(marks))
    command = [sys.executable, "-m", "keystep", "extract", str(kitchen / "videos"), "--out", str(tmp_path / "out")]
    command += ["--backbone", "toy_backbones:stuck", "--workers", "2"]
    toys = Path(__file__).parents[1] / "support"
    process = subprocess.Popen(command, cwd=toys, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(marks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert error.startswith("keystep: stopped; run again to resume") and error.count("\n") == 1


def test_ctrl_c_is_one_line(keystep: Run, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keystep.extraction.folder.Writing.write", stop)
    status, _, error = keystep("extract", kitchen / "videos", "--out", tmp_path / "out", *TOY)
    assert status == 130 and error.startswith("keystep: stopped; run again to resume") and error.count("\n") == 1


def test_a_changed_video_is_done_again_and_told(keystep: Run, kitchen: Path, tmp_path: Path):
    video, out = tmp_path / "video.mp4", tmp_path / "out"
    lengths = []
    for index, frames in enumerate((30, 50)):
        write_clip(video, frames=frames, height=16, width=16, rate=10)
        status, said, error = keystep("extract", video, "--out", out, *TOY, "--rate", "10")
        assert status == 0 and ("has changed since it was extracted; extracted again" in said) == bool(index), error
        lengths.append(len(np.load(out / "features" / "video.npy")))
    assert lengths == [30, 50]


def test_a_damaged_video_is_kept_as_far_as_it_goes_and_marked(keystep: Run, tmp_path: Path):
    whole = write_clip(tmp_path / "whole.mkv", frames=100, height=16, width=16, rate=10)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])
    out = tmp_path / "features"
    status, said, error = keystep("extract", cut, "--out", out, *TOY)
    assert status == 0, error
    assert "note: cut: " in said
    record = json.loads((out / "features" / "cut.json").read_text())
    assert record["status"] == "partial" and record["damage"]
    status, said, _ = keystep("inspect", out, "--picture", tmp_path / "picture.png")
    assert status == 0 and "note: cut: " in said
    assert (tmp_path / "picture-frames.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--backbone", "resnet"), "unknown backbone 'resnet'; expected one of efficientnet-lite0"),
        (("--backbone", "i3d"), "i3d: no weights found"),
        (("--backbone", "toy_backbones:nothing"), "nothing"),
        (("--set", "grid=2"), "grid 2: efficientnet-lite0 has no such setting"),
        (("--set", "hope=2"), "hop"),
        (("--rate", "0"), "above 0"),
        (("--window", "left"), "left"),
        (("--shard", "3/2"), "--shard '3/2'"),
        (("--labels", "nowhere"), "nowhere: no groundTruth/"),
        (("--label-rate", "30"), "--label-rate 30 is for --labels"),
        (("--device", "foo"), "--device foo: not available"),
        (("--device", "cuda:99"), "--device cuda:99: not available"),
        (("--weights", "nowhere.pth"), "nowhere.pth: no such file"),
    ],
)
def test_impossible_wishes_are_one_line(
    keystep: Run, kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, says: str
):
    monkeypatch.setenv("KEYSTEP_CACHE", str(tmp_path / "cache"))
    status, _, error = keystep("extract", kitchen / "videos", "--out", tmp_path / "out", *options)
    assert status == 2 and error.count("\n") == 1 and says in error, error
    assert not (tmp_path / "out" / "features").exists()


def test_videos_of_one_name_and_folders_without_videos_are_refused(keystep: Run, kitchen: Path, tmp_path: Path):
    (tmp_path / "video0.mkv").write_bytes(b"x")
    status, _, error = keystep("extract", kitchen / "videos", tmp_path / "video0.mkv", "--out", tmp_path / "out", *TOY)
    assert status == 2 and "2 videos have the name 'video0'" in error
    (tmp_path / "nothing").mkdir()
    status, _, error = keystep("extract", tmp_path / "nothing", "--out", tmp_path / "out", *TOY)
    assert status == 2 and "no videos in" in error


def test_a_backbone_that_gives_nan_is_named(keystep: Run, kitchen: Path, tmp_path: Path):
    status, _, error = keystep(
        "extract", kitchen / "videos" / "video0.mp4", "--out", tmp_path / "out", "--backbone", "toy_backbones:broken"
    )
    assert status == 2 and "toy-broken returned NaN or infinity at 0.000 s" in error


@pytest.mark.parametrize("window", ["center", "right"])
def test_streaming_extraction_equals_the_folder(kitchen: Path, tmp_path: Path, keystep: Run, window: str):
    out = tmp_path / "out"
    backbone = ("--backbone", "toy_backbones:moving", "--window", window, "--rate", "5")
    assert keystep("extract", kitchen / "videos", "--out", out, *backbone)[0] == 0
    config = ExtractionConfig(backbone="toy_backbones:moving", window=window, rate=Fraction(5))
    extractor = load_extractor(config, None, "cpu")
    came = list(extractor.stream(open_video(kitchen / "videos" / "video1.mp4").frames()))
    assert all(len(part) == 1 for part in came)
    streamed = joined(came)
    # clips one by one and in batches: means over other shapes may round apart
    np.testing.assert_allclose(streamed.features, open_dataset(out).features("video1"), atol=1e-6)
    np.testing.assert_array_equal(streamed.times, open_dataset(out).times("video1"))


def test_a_live_video_gives_the_steps_of_its_features(keystep: Run, judged: SimpleNamespace, tmp_path: Path):
    live, stored = tmp_path / "live.jsonl", tmp_path / "stored.jsonl"
    picture = tmp_path / "live.png"
    status, _, error = keystep(
        "stream", judged.run, judged.video, "--head", judged.head, *TRUSTED, "--out", live, "--picture", picture
    )
    assert status == 0, error
    assert "feature extraction" in error
    features = judged.data / "features" / "video4.npy"
    assert keystep("stream", judged.run, features, "--head", judged.head, "--out", stored)[0] == 0
    ours, theirs = ([json.loads(line) for line in path.read_text().splitlines()] for path in (live, stored))
    assert len(ours) == 60 and [r["step"] for r in ours] == [r["step"] for r in theirs]
    np.testing.assert_allclose([r["time"] for r in ours], [r["time"] for r in theirs])
    assert {r["delay"] for r in ours} == {0.0}
    assert picture.stat().st_size > 10_000


def test_a_live_video_goes_on_where_it_was_stopped(keystep: Run, judged: SimpleNamespace, tmp_path: Path):
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state.safetensors"
    assert keystep("stream", judged.run, judged.video, "--head", judged.head, *TRUSTED, "--out", whole)[0] == 0
    toys = Path(__file__).parents[1] / "support"
    command = [sys.executable, "-m", "keystep", "stream", judged.run, judged.video, "--head", judged.head, *TRUSTED]
    command += ["--out", parts, "--state", state]
    process = subprocess.Popen([*map(str, command), "--realtime"], cwd=toys, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (parts.exists() and parts.read_text().count("\n") > 4) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert 4 < parts.read_text().count("\n") < 60
    status, _, error = keystep(*command[3:])
    assert status == 0 and "resuming after frame" in error, error
    assert parts.read_text() == whole.read_text()


def test_a_stream_refuses_other_features_than_the_heads(keystep: Run, judged: SimpleNamespace):
    common = ("stream", judged.run, judged.video, "--head", judged.head)
    status, _, error = keystep(*common, "--backbone", "efficientnet-lite0")
    assert status == 2 and "leave --backbone, --source-rate and --window out" in error
    status, _, error = keystep("stream", judged.run, "7", "--head", judged.head)
    assert status == 2 and error.count("error") == 1, error
