"""Writing so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from keystep.errors import InputError

_ENDINGS = """
.264 .265 .3g2 .3gp .amv .asf .avi .divx .dv .f4v .flv .gxf .h264 .h265 .hevc .ismv .ivf .m1v .m2p .m2t
.m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mk3d .mkv .mod .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut .obu .ogm
.ogv .qt .rm .rmvb .tod .tp .trp .ts .vob .webm .wmv .wtv .y4m
"""
VIDEO_ENDINGS = frozenset(_ENDINGS.split())
"""Endings of the files that are taken for videos where a folder is searched for them."""


@contextmanager
def replacing(path: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """A temporary sibling to write ``path`` to (a file or a folder); put in place on success, removed on failure.

    A folder that stands there already is replaced only if it holds nothing but the names in ``ours``: what somebody
    else put there is never removed. Where a link stands there, what it leads to is replaced, not the link.

    Raises:
        InputError: the disk refuses (full, read-only, no permission); what stood at ``path`` before is untouched.
    """
    check_replaceable(path, ours)
    path = Path(os.path.realpath(path)) if path.is_dir() or path.is_symlink() else path
    temporary = _beside(path, "part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # a killed process that had the same id may have left one
        yield temporary
        _flush(temporary)
        _put_in_place(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be written: {reason}; nothing was changed") from error
    except InputError as error:  # of a file in a folder that is being written: nobody knows its temporary name
        raise InputError(str(error).replace(str(temporary), str(path))) from error
    finally:
        _remove(temporary)


def is_video(path: Path) -> bool:
    """Whether a file's name ends as a video's does."""
    return path.suffix.lower() in VIDEO_ENDINGS


def check_exists(path: Path | str) -> None:
    """Refuse what is not there, and say so where it is an address on the web.

    Raises:
        InputError: no such file or folder, or a URL.
    """
    check_local(path)
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder")


def check_local(path: Path | str) -> None:
    """Refuse URLs, also in the form that they take as a path (``https:/host/file``)."""
    address = re.match(r"([a-z][a-z0-9+.-]+):/+(?=[^/])", str(path), re.IGNORECASE)
    if address is not None:
        url = f"{address[1]}://{str(path)[address.end() :]}"
        raise InputError(f"{url}: a URL; keystep reads files of this machine: download it and give its path")


def check_model_name(name: str) -> None:
    """Refuse what can be neither a folder nor an id of the Hugging Face hub, before anything asks the hub for it.

    Raises:
        InputError: a URL, or a folder that is not there; ``runs/typo`` counts as one where there is a folder ``runs``.
    """
    check_local(name)
    path = Path(name)
    if not path.exists() and (name.count("/") != 1 or path.is_absolute() or path.parent.is_dir()):
        raise InputError(f"{name}: no such folder, and no Hugging Face id (OWNER/NAME)")


def check_ours(folder: Path, ours: Collection[str]) -> None:
    """Refuse to replace a folder that holds anything but the names in ``ours``."""
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if foreign:
            raise InputError(f"{folder}: holds {foreign[0]!r}, which would be lost; choose another folder")


def check_replaceable(folder: Path, ours: Collection[str] = ()) -> None:
    """Refuse a folder that cannot be replaced as a whole, before work is done for it; a file or nothing passes.

    Raises:
        InputError: it is a pipe or a device; it holds anything but ``ours``; it is a mount point, or the folder that
            this process is in; or its place cannot be written to.
    """
    try:
        check_ours(folder, ours)
        if folder.exists() and not (folder.is_dir() or folder.is_file()):
            raise InputError(f"{folder}: a pipe or a device, which cannot be replaced; choose a file or a folder")
        if not folder.is_dir():
            return
        place = folder.resolve()
        kind = "a mount point" if _is_mount(place) else "where you are" if Path.cwd().is_relative_to(place) else None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; nothing was done yet") from error
    if kind is not None:
        raise InputError(f"{folder}: {kind}, which cannot be replaced; choose a folder in it, such as {folder / 'new'}")
    check_writable(place.parent)


def _is_mount(folder: Path) -> bool:
    """Whether a file system is mounted at a resolved path, a bind mount of the same disk included."""
    if folder.is_mount():
        return True
    with suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        return str(folder) in {
            re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines
        }
    return False


def check_new(path: Path, overwrite: bool, holds: str = "a result") -> None:
    """Refuse to replace what is at ``path`` unless that was asked for, and try to write there.

    Args:
        path: a file, or the file by which a folder of results is known.
        holds: what it is, for the message.

    Raises:
        InputError: it exists and ``overwrite`` is not given, or its place cannot be written to.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path}: holds {holds} already; give --overwrite to replace it, or another --out")
    check_writable(path)


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output that is one of the inputs, also by a link, or another output: what is in it would be lost.

    Raises:
        InputError: two are the same file.
    """
    taken = {os.path.realpath(path) for path in inputs if path is not None}
    for path in (path for path in outputs if path is not None):
        if os.path.realpath(path) in taken:
            raise InputError(f"{path}: already read from, or another output; choose another file for this one")
        taken.add(os.path.realpath(path))


def check_png(path: Path | None) -> None:
    """Refuse to write a picture to a file of another kind.

    Raises:
        InputError: the name does not end in ``.png``.
    """
    if path is not None and path.suffix.lower() != ".png":
        raise InputError(f"{path}: the picture is a PNG file; choose a name that ends in .png")


def check_writable(path: Path) -> None:
    """Try to write where a file or folder is to be, before work is done for it; nothing is left behind.

    Raises:
        InputError: the place cannot be written to.
    """
    place = path if path.is_dir() else path.parent
    while not place.exists():
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".keystep."):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; nothing was done yet") from error


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    try:
        check_writable(folder)
    except InputError:
        return False
    return True


def _put_in_place(temporary: Path, path: Path) -> None:
    if not (temporary.is_dir() and path.is_dir()):
        temporary.replace(path)
        return
    old = _beside(path, "old")  # a folder cannot be renamed over a full one
    _remove(old)
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    _remove(old)


def remove_leftovers(output: Path) -> None:
    """Remove what processes of this machine that live no more left half written of an output, and in it.

    A folder that was to be replaced and is there no more is put back.
    """
    for folder, prefix in ((output.parent, f".{output.name}."), *((folder, ".") for folder in _folders(output))):
        with suppress(OSError):
            found = [entry.name for entry in os.scandir(folder) if entry.name.startswith(prefix)]
            for name, match in ((name, _LEFT.fullmatch(name)) for name in found):
                if match is not None and match["host"] == _host() and not _lives(int(match["process"])):
                    _clear_leftover(folder / name, folder / match["name"], match["kind"])


def _clear_leftover(left: Path, path: Path, kind: str) -> None:
    if kind == "old" and not path.exists():
        left.rename(path)
    else:
        _remove(left)


def _folders(output: Path) -> Iterator[Path]:
    """A folder and all in it, but for what is half written."""
    for folder, folders, _ in os.walk(output):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(folder)


_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)\.(?P<kind>part|old)")


def _beside(path: Path, kind: str) -> Path:
    """The sibling that this process writes to before it becomes ``path`` (part), or that ``path`` was before (old)."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.{kind}")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    """Whether a process of this machine runs; also true where the system has no way to ask without ending it."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it is somebody else's
    return True


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder as far as the system allows; this must not hide an earlier error."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system put the bytes on disk before the rename makes them visible."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def write_json(path: Path, data: Any) -> None:
    """Readable JSON in one piece."""
    with replacing(path) as temporary:
        temporary.write_bytes(file_bytes(data))


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """A text file with one item a line, in one piece."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sample_bytes(path: Path, start: int = 0, size: int | None = None) -> bytes:
    """A file's size and 16 blocks of 64 KiB spread evenly over it, both ends included; small files are read whole.

    Args:
        path: the file.
        start, size: part of it that counts as the file; by default all.
    """
    block, blocks = 1 << 16, 16
    with path.open("rb") as file:
        size = file.seek(0, 2) if size is None else size
        parts = [size.to_bytes(8, "little")]
        for place in range(blocks) if size > block * blocks else [0]:
            file.seek(start + place * (size - block) // (blocks - 1))
            parts.append(file.read(block if size > block * blocks else size))
    return b"".join(parts)


def write_array(path: Path, array: np.ndarray) -> None:
    """A ``.npy`` file in one piece."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def file_bytes(content: Any) -> bytes:
    """What `write_array` writes of an array, and `write_json` of anything else."""
    if not isinstance(content, np.ndarray):
        return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    return buffer.getvalue()
