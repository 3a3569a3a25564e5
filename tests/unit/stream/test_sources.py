"""Where a stream's features come from, and what may be wrong with it."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from keystep.errors import InputError
from keystep.stream import sources
from keystep.stream.sources import Chunk


def frames(count: int = 10) -> np.ndarray:
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


def together(chunks: object) -> np.ndarray:
    return np.concatenate([chunk.features for chunk in chunks])  # type: ignore[attr-defined]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_file_is_read_by_frames_whichever_axis_they_lie_on(tmp_path: Path, transposed: bool) -> None:
    np.save(tmp_path / "x.npy", frames().T if transposed else frames())
    chunks = list(sources.from_array(tmp_path / "x.npy", 3, 4))
    assert [len(chunk.features) for chunk in chunks] == [4, 4, 2]
    assert np.array_equal(together(chunks), frames())


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(3))
    with pytest.raises(InputError, match=r"x\.npy: shape \(3, 3\) may be"):
        list(sources.from_array(tmp_path / "x.npy", 3, 4))
    with pytest.raises(InputError, match=r"x\.npy: shape \(3, 3\); the model expects 7"):
        list(sources.from_array(tmp_path / "x.npy", 7, 4))


def test_lines_are_lists_or_objects_with_times() -> None:
    text = '[0, 1, 2]\n\n{"time": 1.5, "features": [3, 4, 5]}\n'
    first, second = sources.from_lines(io.StringIO(text), 3)
    assert first.features.tolist() == [[0, 1, 2]] and first.times is None
    assert second.features.tolist() == [[3, 4, 5]] and second.times == [1.5]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "line 2: not a list of numbers.*'hello'"),
        ('{"time": 3}', "line 2: not a list of numbers"),
        ("[1, 2]", "line 2: 2 numbers in shape .2,.; the model expects 3"),
        ('["a", 1, 2]', "line 2: not a list of numbers"),
        ('{"time": "soon", "features": [1, 2, 3]}', "line 2: not a list of numbers"),
        ("3", "line 2: not a list of numbers"),
    ],
)
def test_wrong_lines_are_named(line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(sources.from_lines(io.StringIO(f"[0, 1, 2]\n{line}\n"), 3))


class Dribble(io.RawIOBase):
    """Gives bytes in pieces of seven, as a pipe may."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read1(self, size: int) -> bytes:
        piece, self.content = self.content[:7], self.content[7:]
        return piece


def test_bytes_make_whole_frames_however_they_arrive() -> None:
    assert np.array_equal(together(sources.from_bytes(Dribble(frames().astype("<f4").tobytes()), 3)), frames())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ended inside a frame: 5 of its 12 bytes"):
        list(sources.from_bytes(Dribble(bytes(17)), 3))  # type: ignore[arg-type]


def test_a_folder_is_read_while_it_grows(tmp_path: Path) -> None:
    def write() -> None:
        for number in range(5):
            with (tmp_path / "part").open("wb") as file:
                np.save(file, frames()[2 * number : 2 * number + 2])
            (tmp_path / "part").rename(tmp_path / f"{number}.npy")
            time.sleep(0.05)
        (tmp_path / sources.END).touch()

    writer = threading.Thread(target=write)
    writer.start()
    found = together(sources.from_growing(tmp_path, 3, idle=20))
    writer.join()
    assert np.array_equal(found, frames())


def test_a_folder_without_an_end_is_done_after_a_while(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frames())
    assert np.array_equal(together(sources.from_growing(tmp_path, 3, idle=0.2)), frames())


def save(folder: Path, name: str, rows: np.ndarray) -> None:
    with (folder / "part").open("wb") as file:
        np.save(file, rows)
    (folder / "part").rename(folder / name)


def test_numbers_in_names_count_by_their_value(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path, f"chunk_{number}.npy", frames(12)[number : number + 1])
    (tmp_path / sources.END).touch()
    assert np.array_equal(together(sources.from_growing(tmp_path, 3, idle=5)), frames(12))


def test_a_file_that_comes_too_late_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, "2.npy", frames())
    chunks = sources.from_growing(tmp_path, 3, idle=5)
    next(chunks)
    save(tmp_path, "1.npy", frames())
    with pytest.raises(InputError, match=r"1\.npy: came after 2\.npy.*names have to ascend"):
        next(chunks)


@pytest.mark.parametrize("kept", [True, False])
def test_a_later_run_goes_on_behind_the_last_file_whether_old_ones_are_kept_or_not(tmp_path: Path, kept: bool) -> None:
    for number in (1, 2) if kept else ():
        save(tmp_path, f"{number}.npy", frames())
    save(tmp_path, "3.npy", frames(4))
    save(tmp_path, "10.npy", frames(2))
    (tmp_path / sources.END).touch()
    chunks = list(sources.from_growing(tmp_path, 3, idle=5, after="2.npy"))
    assert [(chunk.place, len(chunk.features)) for chunk in chunks] == [("3.npy", 4), ("10.npy", 2)]


def test_files_in_a_folder_may_have_as_many_frames_as_numbers_but_no_other_width(tmp_path: Path) -> None:
    save(tmp_path, "1.npy", frames(3))
    save(tmp_path, "2.npy", frames().T)
    (tmp_path / sources.END).touch()
    chunks = sources.from_growing(tmp_path, 3, idle=5)
    assert np.array_equal(next(chunks).features, frames(3))
    with pytest.raises(InputError, match=r"2\.npy: shape \(3, 10\); expected \(n, 3\), one row per frame"):
        next(chunks)


def test_a_file_that_stays_unreadable_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frames())
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:50])
    with pytest.raises(InputError, match=r"b\.npy: not a readable \.npy array"):
        list(sources.from_growing(tmp_path, 3, idle=0.2))


@pytest.mark.parametrize("factor", [1, 3])
def test_pooling_and_skipping_do_not_care_about_chunks(factor: int) -> None:
    chunks = [Chunk(frames()[:4], [0.0, 1.0, 2.0, 3.0]), Chunk(frames()[4:], [4.0, 5.0, 6.0, 7.0, 8.0, 9.0])]
    found = list(sources.pool_chunks(sources.skip_frames(iter(chunks), 1), factor))
    rest = frames()[1:]
    expected = rest.reshape(-1, factor, 3).mean(1)
    np.testing.assert_allclose(together(found), expected)
    times = [time for chunk in found for time in chunk.times or []]
    assert times == np.arange(1.0, 10.0).reshape(-1, factor).mean(1).tolist()


def test_frames_with_and_without_times_do_not_mix() -> None:
    with pytest.raises(InputError, match="some frames have a time and some do not"):
        list(sources.pool_chunks(iter([Chunk(frames(2), [0.0, 1.0]), Chunk(frames(2))]), 3))


def test_the_last_group_may_be_shorter_as_it_is_offline() -> None:
    (chunk, last) = sources.pool_chunks(iter([Chunk(frames(5))]), 3)
    assert last.partial and not chunk.partial
    np.testing.assert_allclose(np.concatenate([chunk.features, last.features]), [[3, 4, 5], [10.5, 11.5, 12.5]])


@pytest.mark.parametrize("alignment", ["center", "right", "left"])
@pytest.mark.parametrize("frames", range(1, 14))
def test_a_short_last_group_stands_at_the_time_of_a_whole_one(alignment, frames):
    times = [0.25 * index for index in range(frames)]
    chunks = (sources.Chunk(np.zeros((1, 2), np.float32), [time]) for time in times)
    found = [time for chunk in sources.pool_chunks(chunks, 4, alignment) for time in chunk.times]
    whole = frames // 4
    middle = {"center": 0.375, "right": 0.75, "left": 0.0}[alignment]
    assert found[:whole] == [middle + index for index in range(whole)]
    assert len(found) == -(-frames // 4)
    if whole:
        assert found == [middle + index for index in range(len(found))]
