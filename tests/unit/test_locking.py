"""Two processes never write one output, and what killed ones leave is removed by the next."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystep.errors import InputError
from keystep.files import replacing, write_json
from keystep.locking import INSIDE, owning

HOLDING = (
    "import sys; from keystep.locking import owning\nwith owning(sys.argv[1]): print(flush=True); sys.stdin.read()"
)
HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to ``out``."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a place where no file can be made, even by root")
def test_a_place_where_no_file_can_be_made_is_not_somebody_elses() -> None:
    with (
        pytest.raises(InputError, match=r"/out: cannot be written: .*; nothing was done yet"),
        owning("/proc/self/out"),
    ):
        pass


def test_a_link_to_itself_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(InputError, match="cannot be written"), owning(tmp_path / "out"):
        write_json(tmp_path / "out" / "store.json", {})


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_second_process_is_refused_in_one_line_that_names_the_first(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(InputError) as refused, owning(tmp_path / "other", tmp_path / "out"):
        pass
    assert str(refused.value) == (
        f"{tmp_path / 'out'}: process {holder.pid} on {socket.gethostname()} is writing there; wait for it, or choose "
        "another output"
    )
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"], "what was taken before is given back"


def test_a_name_that_leads_to_the_same_place_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match="is writing there"), owning(tmp_path / "link"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with owning(tmp_path / "out"):
        pass
    assert not [*tmp_path.iterdir()], "the lock is gone with its last owner"


def test_a_lock_works_where_the_system_has_none_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems without ``flock``, and systems without ``fcntl``: then a file that is there is the lock."""
    import filelock

    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    refused = pytest.raises(InputError, match=f"out: process {os.getpid()} on ")
    with owning(tmp_path / "out"), refused, owning(tmp_path / "out"):
        pass
    with owning(tmp_path / "out"):
        pass
    assert not [*tmp_path.iterdir()]


def test_a_folder_whose_surroundings_are_read_only_is_locked_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with owning(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [INSIDE]
        with pytest.raises(InputError, match="is writing there"), owning(tmp_path / "out"):
            pass


def test_pipes_and_devices_are_not_locked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with owning(tmp_path / "pipe", "/dev/null", None):
        assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_what_a_dead_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    """Beside the output and in all its folders; never what another machine may be writing, or a name like ours."""
    out, dead = tmp_path / "out", dead_process()
    (out / "features").mkdir(parents=True)
    stale = [
        tmp_path / f".out.{HOST}-{dead}.part",
        out / f".model.{HOST}-{dead}.part",
        out / "features" / f".a.npy.{HOST}-{dead}.part",
    ]
    kept = [
        out / "features" / f".b.npy.{HOST}-{os.getpid()}.part",
        out / "features" / f".b.npy.00000000-{dead}.part",
        out / "features" / ".b.npy.part",
        tmp_path / f".other.{HOST}-{dead}.part",
    ]
    stale[1].mkdir()
    (stale[1] / "config.json").touch()
    for path in (*stale[::2], *kept):
        path.touch()
    with owning(out):
        assert not [path for path in stale if path.exists()]
        assert all(path.exists() for path in kept)


def test_a_folder_is_put_back_whose_replacement_was_killed(tmp_path: Path) -> None:
    """Between the moment that the old one was put aside and that in which the new one takes its place."""
    dead = dead_process()
    old, new = (tmp_path / f".out.{HOST}-{dead}.{kind}" for kind in ("old", "part"))
    for folder in (old, new):
        folder.mkdir()
        write_json(folder / "config.json", {"from": folder.name[-3:]})
    with owning(tmp_path / "out"):
        assert (tmp_path / "out" / "config.json").read_text() == '{\n  "from": "old"\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_being_written_carries_the_machine_and_the_process(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as temporary:
        assert temporary.name == f".x.{HOST}-{os.getpid()}.part"
        temporary.touch()
