import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from keystep.errors import InputError
from keystep.files import check_apart, check_png, check_replaceable, replacing, write_array, write_json, write_lines
from keystep.reading import read_json


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Writing beyond 10 kB fails, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_whole_with_its_parents(tmp_path: Path) -> None:
    with replacing(tmp_path / "a" / "b.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a" / "b.txt").exists()
    assert (tmp_path / "a" / "b.txt").read_text() == "new" and listing(tmp_path / "a") == ["b.txt"]


@pytest.mark.parametrize("error", [RuntimeError("oops"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_the_old_one_and_no_remains(tmp_path: Path, error: BaseException, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "inside").write_text("old")
    with pytest.raises((type(error), InputError)), replacing(path) as temporary:
        if kind == "folder":
            temporary.mkdir()
            temporary /= "inside"
        temporary.write_text("half")
        raise error
    assert listing(tmp_path) == ["x"]
    assert (path if kind == "file" else path / "inside").read_text() == "old"


def test_a_full_disk_gives_one_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(tmp_path / "x.json", {"old": 1})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError) as caught:
        write_json(tmp_path / "x.json", {"new": 1})
    assert (
        str(caught.value) == f"{tmp_path / 'x.json'}: cannot be written: No space left on device; nothing was changed"
    )
    assert read_json(tmp_path / "x.json") == {"old": 1} and listing(tmp_path) == ["x.json"]


def test_every_kind_of_file_says_so_when_the_disk_is_full(tmp_path: Path, small_disk: None) -> None:
    def weights(path: Path) -> None:
        with replacing(path) as temporary:
            save_file({"a": torch.zeros(10_000)}, temporary)

    for write in (
        lambda path: write_array(path, np.zeros(10_000)),
        lambda path: write_json(path, "x" * 20_000),
        weights,
    ):
        with pytest.raises(InputError, match=r"x: cannot be written: .*; nothing was changed") as caught:
            write(tmp_path / "x")
        assert "\n" not in str(caught.value) and listing(tmp_path) == []


def test_a_folder_replaces_another_one_whole(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with replacing(tmp_path / "model", ours=("first", "second")) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert listing(tmp_path) == ["model"] and listing(tmp_path / "model") == ["second"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(InputError, match="model: cannot be written: Input/output error"),
        replacing(tmp_path / "model", ours=("old",)) as temporary,
    ):
        temporary.mkdir()
    assert listing(tmp_path) == ["model"] and listing(tmp_path / "model") == ["old"]


def test_a_folder_with_anything_that_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.md").write_text("mine")
    with (
        pytest.raises(InputError, match=r"model: holds 'notes\.md', which would be lost"),
        replacing(tmp_path / "model", ours=("weights",)),
    ):
        raise AssertionError("refused before anything is written")
    assert listing(tmp_path / "model") == ["notes.md"]


def test_what_a_killed_process_of_the_same_id_left_is_no_obstacle(tmp_path: Path) -> None:
    with replacing(tmp_path / "model") as left:
        left.mkdir()
    left.mkdir()
    (left / "half").write_text("half")
    with replacing(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert listing(tmp_path) == ["model"] and listing(tmp_path / "model") == []


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("file")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "a" / "b.json", {})
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / "a") as temporary:
        temporary.mkdir()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "folder", {})
    assert (tmp_path / "a").read_text() == "file" and listing(tmp_path) == ["a", "folder"]


def test_a_name_that_is_too_long_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        write_json(tmp_path / ("x" * 250), {})


def test_nested_replacements_appear_together(tmp_path: Path) -> None:
    with replacing(tmp_path / "model") as temporary:
        write_json(temporary / "config.json", {"a": [1, None, "ü"]})
        write_array(temporary / "x.npy", np.arange(3))
        assert listing(tmp_path) == [temporary.name]
    assert listing(tmp_path / "model") == ["config.json", "x.npy"]
    assert read_json(tmp_path / "model" / "config.json") == {"a": [1, None, "ü"]}
    assert np.load(tmp_path / "model" / "x.npy").tolist() == [0, 1, 2]


def test_numbers_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert listing(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", "\xff", ""])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("mounted", ["by a disk of its own", "by a bind mount"])
def test_a_mount_point_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: str
) -> None:
    folder = tmp_path / "my results"
    folder.mkdir()
    if mounted == "by a disk of its own":
        monkeypatch.setattr(Path, "is_mount", lambda path: path == folder)
    else:  # of the same disk, which only the system's table tells
        table, read = f"1 0 8:1 /a {folder} rw\n".replace("my results", "my\\040results"), Path.read_text
        monkeypatch.setattr(Path, "read_text", lambda path, **_: table if path.name == "mountinfo" else read(path))
    with pytest.raises(InputError, match=r"my results: a mount point, which cannot be replaced; choose a folder in it"):
        check_replaceable(folder)
    with pytest.raises(InputError, match="a mount point"), replacing(folder):
        raise AssertionError("begun")
    check_replaceable(tmp_path / "elsewhere")


def test_the_folder_that_one_is_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for place in (Path(), Path(".."), tmp_path / "a"):
        with pytest.raises(InputError, match="where you are, which cannot be replaced"):
            check_replaceable(place, ("b",))


def test_a_link_to_a_folder_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    with replacing(tmp_path / "out") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert (tmp_path / "out").is_symlink() and listing(tmp_path / "large disk") == ["new"]
    assert listing(tmp_path) == ["large disk", "out"]


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(InputError, match="a pipe or a device, which cannot be replaced"):
            write_lines(path, ["x"])
        assert path.exists() and not path.is_file()


def test_a_link_to_a_file_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for target in ("elsewhere/old.txt", "elsewhere/new.txt"):
        (tmp_path / "elsewhere" / "old.txt").write_text("old")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        write_lines(tmp_path / "link", ["x"])
        assert (tmp_path / "link").is_symlink() and (tmp_path / target).read_text() == "x\n"


def test_an_output_that_is_an_input_or_another_output_is_refused(tmp_path: Path) -> None:
    features, out = tmp_path / "v.npy", tmp_path / "out"
    features.write_text("x")
    out.symlink_to(features)
    check_apart([tmp_path / "a", None, tmp_path / "b"], [features])
    for outputs, inputs in (([features], [features]), ([out], [features]), ([features, None, features], [])):
        with pytest.raises(InputError, match="already read from, or another output"):
            check_apart(outputs, inputs)


def test_a_picture_never_takes_the_place_of_a_file_of_another_kind(tmp_path: Path) -> None:
    check_png(None)
    check_png(tmp_path / "x.PNG")
    with pytest.raises(InputError, match=r"choose a name that ends in \.png"):
        check_png(tmp_path / "features" / "v.npy")
