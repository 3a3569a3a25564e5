"""Videos on a cluster: the bytes of this process, whatever dies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from two_machines import TwoMachines, files_of

from keystep.engines.ray import Ray
from keystep.errors import InputError
from keystep.extraction.run import extract
from keystep.progress import Count, Task

MakeClip = Callable[..., Path]


class At:
    """Progress that calls a function once, when so many seconds of video are done."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.seconds, self.act = seconds, act
        self.done, self.acted = 0.0, False

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "", initial: float = 0) -> Iterator[Task]:
        def changed(done: float, total: float | None, note: str) -> None:
            if unit != "s of video":
                return
            self.done = done
            if done >= self.seconds and not self.acted:
                self.acted = True
                self.act()

        yield Count(total, changed, initial)

    def message(self, text: str) -> None:
        pass


def test_a_machine_that_dies_loses_nothing_and_nothing_is_done_twice(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    videos = [make_clip(f"v{number}.mp4", frames=40 + number, height=32) for number in range(6)]
    options = {"backbone": "toy_backbones:slow", "rate": 10}
    extract(videos, **options, out=tmp_path / "here")
    finished: dict[Path, int] = {}

    def kill() -> None:
        machines.kill_second()
        finished.update({path: path.stat().st_mtime_ns for path in (tmp_path / "there/features").glob("*.npy")})

    progress = At(3.3, kill)  # two videos
    done = extract(videos, **options, out=tmp_path / "there", engine=Ray(machines.address), progress=progress)
    assert finished, "the machine was killed in the middle"
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert done.videos == tuple(f"v{number}" for number in range(6)) and not done.skipped
    assert progress.done == pytest.approx(sum((39 + number) / 25 for number in range(6)))
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_a_bad_video_is_left_out_and_the_others_are_not(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    videos = [make_clip(f"{name}.mp4", frames=50) for name in "abc"]
    videos[1].write_bytes(videos[1].read_bytes()[:900])
    options = {"backbone": "toy_backbones:colours", "rate": 5, "on_error": "skip"}
    for out, engine in (("here", None), ("there", Ray(machines.address))):
        done = extract(videos, **options, out=tmp_path / out, engine=engine)
        assert done.videos == ("a", "c") and list(done.skipped) == ["b"]
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_a_video_that_kills_its_workers_is_left_out_too(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    videos = [make_clip("a.mp4", frames=50), make_clip("long.mp4", frames=75)]
    options = {"backbone": "toy_backbones:dying_of_long", "rate": 5, "on_error": "skip"}
    done = extract(videos, **options, out=tmp_path / "out", engine=Ray(machines.address))
    assert done.videos == ("a",) and "long: 3 workers died" in done.skipped["long"]


def test_an_interrupted_extraction_resumes_with_what_is_missing(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    videos = [make_clip(f"v{number}.mp4", frames=40) for number in range(4)]
    options = {"backbone": "toy_backbones:slow", "rate": 10, "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        extract(videos, **options, engine=Ray(machines.address), progress=At(2, interrupt))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/features").glob("*.npy")}
    assert 0 < len(before) < 4 and not list((tmp_path / "out").rglob("*.part"))
    assert len(extract(videos, **options, engine=Ray(machines.address)).videos) == 4
    assert all((tmp_path / "out/features" / name).stat().st_mtime_ns == time for name, time in before.items())


def test_a_backbone_that_no_worker_can_load_is_one_line(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing"):
        extract(make_clip("a.mp4"), "toy_backbones:nothing", out=tmp_path / "out", engine=Ray(machines.address))


def test_no_cluster_there_and_devices_that_it_has_not_are_one_line(
    machines: TwoMachines, make_clip: MakeClip, tmp_path: Path
) -> None:
    options = {"backbone": "toy_backbones:colours", "out": tmp_path / "out", "engine": Ray(machines.address)}
    with pytest.raises(InputError, match="none of 2 machines has a GPU"):
        extract(make_clip("a.mp4"), device="cuda", **options)
    with pytest.raises(InputError, match="each worker has one GPU; give cuda"):
        extract(make_clip("a.mp4"), device="cuda:1", **options)
