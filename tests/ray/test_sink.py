"""Tar files of features that several machines write: the same data as in a folder of this process."""

from collections.abc import Callable
from pathlib import Path

from two_machines import TwoMachines

import keystep
from keystep.engines.ray import Ray
from keystep.extraction.run import extract


def test_each_worker_writes_tar_files_of_its_own(
    machines: TwoMachines, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    videos = [make_clip(f"v{number}.mp4", frames=40 + number, height=32) for number in range(4)]
    options = {"backbone": "toy_backbones:slow", "rate": 10}
    extract(videos, **options, out=tmp_path / "here")
    done = extract(videos, **options, out=tmp_path / "there", sink="tar", engine=Ray(machines.address))
    assert len(done.videos) == 4 and len(list((tmp_path / "there/shards").glob("*.tar"))) == 2
    one, other = (keystep.open_dataset(tmp_path / out) for out in ("here", "there"))
    assert one.fingerprint() == other.fingerprint()
