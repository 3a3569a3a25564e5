"""The authors' archives are read a video at a time, checked on opening, and never trusted."""

import logging
import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release import fact_times, packed, regular_times, surgical, write_lemon

from keystep.errors import InputError
from keystep.interop.official.archives import open_archive
from keystep.interop.official.reading import read_payload

MAPS = Path("/proc/self/maps")
VIDEOS = {"P01/cam.a.pt": fact_times(5), "P01/cam.b.pt": fact_times(0), "P02/cam.a.pt": fact_times(7)}


def saved(path: Path, payload: object) -> Path:
    torch.save(payload, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_packed_archive_gives_each_video_its_rows_and_times(tmp_path: Path, dtype: torch.dtype) -> None:
    payload = packed(VIDEOS, dtype=dtype)
    archive = open_archive(saved(tmp_path / "a.pt", payload))
    assert (archive.kind, archive.width, archive.rate, archive.splits) == ("packed", 4, None, ())
    assert archive.names == tuple(VIDEOS) and archive.lengths.tolist() == [5, 0, 7]
    assert archive.order() == [0, 2], "a video without slots is passed over"
    assert archive.metadata == {"version": "egoprocel_fact_npy_frame_pt_v1", "feature_dim": 4}
    video = archive.video(2)
    assert np.array_equal(video.features, payload["tokens"][5:].numpy()) and video.labels is None
    assert video.features.dtype == (np.float16 if dtype == torch.float16 else np.float32)
    assert video.times.dtype == np.float64 and np.array_equal(video.times, fact_times(7).astype(np.float64))
    assert video.times[1] != 0.2, "the float32 value as it is"


def test_a_surgical_archive_has_labels_classes_and_splits(tmp_path: Path) -> None:
    videos = {"video01": regular_times(3, 1), "video02": regular_times(4, 1)}
    payload = surgical(videos, [0, 1, 2, -1, 1, 1, 0])
    archive = open_archive(saved(tmp_path / "a.pt", payload))
    assert (archive.kind, archive.rate, archive.splits) == ("surgical", 1, ("train", "train"))
    assert archive.classes == ("Preparation", "Dissection", "Packaging") and archive.names == ("video01", "video02")
    labels = archive.video(1).labels
    assert labels is not None and labels.tolist() == [-1, 1, 1, 0]
    assert archive.metadata["dataset"] == "cholec80"


def test_a_sharded_archive_is_read_through_its_index_wherever_it_lies(tmp_path: Path) -> None:
    lengths = {"a": 5, "b": 6, "c": 0, "d": 7, "e": 8}
    archive = open_archive(write_lemon(tmp_path / "lemon", lengths))
    assert (archive.kind, archive.rate, archive.missing()) == ("sharded", Fraction(4), [])
    assert [archive.names[index] for index in archive.order()] == ["a", "b", "d", "e"]
    assert "shard_root" not in archive.metadata
    for index in archive.order():
        video = archive.video(index)
        assert len(video.features) == lengths[video.name] and (video.features[:, 1] == index).all()
    (tmp_path / "lemon").rename(tmp_path / "moved")
    assert len(open_archive(tmp_path / "moved" / "index.pt").video(3).features) == 7


def test_shards_are_opened_when_they_are_needed_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def count(path: Path, **options: Any) -> dict[str, Any]:
        opened.append(path.name)
        return read_payload(path, **options)

    monkeypatch.setattr("keystep.interop.official.archives.read_payload", count)
    archive = open_archive(
        write_lemon(tmp_path, dict.fromkeys("abcde", 4), local_indices=torch.tensor([1, 0] * 2 + [0]))
    )
    assert opened == ["index.pt"]
    with pytest.raises(InputError, match=r"pretrain_00000\.pt: video 0 is 'a', but 'b' in the index"):
        archive.video(1)
    archive = open_archive(write_lemon(tmp_path / "b", dict.fromkeys("abcde", 4)))
    opened.clear()
    for index in archive.order():
        archive.video(index)
    assert opened == [f"pretrain_0000{number}.pt" for number in range(3)]


def mapped_files() -> set[str]:
    return {line.split()[-1] for line in MAPS.read_text().splitlines() if line.rstrip().endswith(".pt")}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not MAPS.exists(), reason="no /proc here that says what is mapped")
def test_features_stay_on_disk_until_they_are_used(tmp_path: Path) -> None:
    videos = {f"v{index}.pt": regular_times(2000, 4) for index in range(32)}
    path = saved(tmp_path / "large.pt", packed(videos, width=256))  # 62 MiB
    before = resident()
    archive = open_archive(path)
    video = archive.video(3)
    assert str(path) in mapped_files()
    assert resident() - before < 2**24, "neither opening nor slicing reads the features"
    assert video.features.sum() != 0
    assert resident() - before < 2**25, "using one video reads that video"


def test_torchs_old_format_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(packed(VIDEOS), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with caplog.at_level(logging.WARNING):
        assert len(open_archive(tmp_path / "old.pt").video(2).features) == 7
    assert "cannot be memory-mapped" in caplog.text


def changed(**more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: packed(VIDEOS, **more)


def without(key: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: value for name, value in packed(VIDEOS).items() if name != key}


def surgical_without(key: str) -> dict[str, Any]:
    payload = surgical({"v1": regular_times(2, 1)}, [0, 1])
    return {name: value for name, value in payload.items() if name != key}


def offsets(*values: int) -> torch.Tensor:
    return torch.tensor(values)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no offsets": (without("offsets"), "not a feature archive: offsets is missing"),
    "no times": (without("times"), "times is missing"),
    "no paths": (without("paths"), "paths is missing"),
    "no dictionary": (lambda: [1, 2], "contains a list; expected a dictionary"),
    "a checkpoint": (lambda: {"mask_token": torch.zeros(1)}, r"offsets is missing.*it contains mask_token"),
    "offsets end early": (changed(offsets=offsets(0, 5, 5, 11)), "offsets range from 0 to 11; expected 0 to 12"),
    "offsets start late": (changed(offsets=offsets(1, 5, 5, 12)), "offsets range from 1 to 12"),
    "offsets fall": (changed(offsets=offsets(0, 7, 5, 12)), "offsets decrease from 7 to 5 at video 1"),
    "offsets for fewer": (changed(offsets=offsets(0, 5, 12)), "3 offsets for 3 videos"),
    "offsets of floats": (changed(offsets=torch.tensor([0.0, 5, 5, 12])), r"offsets are float32 \(4,\)"),
    "offsets in a list": (changed(offsets=[0, 5, 5, 12]), "offsets are of type list"),
    "times too short": (
        changed(times=torch.zeros(11)),
        r"times are float32 \(11,\); expected 12 floats",
    ),
    "times of integers": (changed(times=torch.zeros(12, dtype=torch.int64)), "times are int64"),
    "tokens flat": (changed(tokens=torch.zeros(12)), r"tokens are float32 \(12,\)"),
    "tokens of integers": (changed(tokens=torch.zeros(12, 4, dtype=torch.int8)), "tokens are int8"),
    "tokens bfloat16": (changed(tokens=torch.zeros(12, 4, dtype=torch.bfloat16)), "tokens are bfloat16"),
    "another width": (changed(feature_dim=2048), "feature_dim is 2048, but tokens have width 4"),
    "a path twice": (changed(paths=["a.pt", "b.pt", "a.pt"]), r"paths has 'a\.pt' twice"),
    "a path that leads up": (
        changed(paths=["a.pt", "../b.pt", "c.pt"]),
        r"paths has '\.\./b\.pt', which points outside",
    ),
    "a hidden way up": (changed(paths=["a.pt", "b/../../c.pt", "d.pt"]), "points outside of the archive"),
    "an absolute path": (changed(paths=["a.pt", "/etc/b.pt", "c.pt"]), r"paths has '/etc/b\.pt', which points outside"),
    "an empty path": (changed(paths=["a.pt", "", "c.pt"]), "paths has ''"),
    "paths of another kind": (changed(paths=[None, "b", "c"]), "paths is of type list; expected a list of names"),
    "a phase too high": (
        lambda: surgical({"v1": regular_times(2, 1)}, [0, 3]),
        "phase label 3, but phase_class_names has 3 names",
    ),
    "phases too few": (lambda: surgical({"v1": regular_times(2, 1)}, [0]), r"phase_labels are int64 \(1,\)"),
    "an impossible rate": (
        lambda: surgical({"v1": regular_times(1, 1)}, [0], target_fps=0.0),
        r"target_fps 0\.0 is not a rate in slots per second: a rate must",
    ),
    "an absurd rate": (changed(target_fps=1e300), r"target_fps 1e\+300 is not a rate in slots per second: too large"),
    "a rate of ages": (
        changed(target_fps=1e-9),
        "target_fps 1e-09 is not a rate in slots per second: too large or too",
    ),
    "a rate that would take for ever": (changed(target_fps="1e999999999"), "target_fps '1e999999999' is not a rate in"),
    "a rate of tensors": (
        changed(target_fps=torch.ones(9)),
        r"target_fps tensor\(.* is not a rate in slots per second",
    ),
    "no class names": (lambda: surgical_without("phase_class_names"), "phase_class_names is missing"),
    "a width of tensors": (
        changed(feature_dim=torch.tensor([4, 4])),
        r"feature_dim must be a positive integer, not tensor\(\[4, 4\]\)",
    ),
    "a width of many digits": (changed(feature_dim=10**600), r"feature_dim is 10+\.\.\., but tokens have width 4"),
    "tokens without numbers": (
        changed(tokens=torch.empty(12, 4, device="meta")),
        "'tokens' has a shape but no data",
    ),
    "offsets without numbers": (changed(offsets=torch.empty(4, device="meta")), "'offsets' has a shape but no data"),
    "tokens sparse": (changed(tokens=torch.ones(12, 4).to_sparse()), "'tokens' is a sparse_coo float32 tensor"),
    "tokens of eight bits": (changed(tokens=torch.ones(12, 4).to(torch.float8_e4m3fn)), "'tokens' is a strided float8"),
    "twenty milliard rows": (
        lambda: packed(VIDEOS, tokens=torch.zeros(1, 1).expand(2 * 10**10, 4), times=torch.zeros(1).expand(2 * 10**10)),
        r"a tensor of shape \(20000000000, 4\), .* bytes, that is made of 4",
    ),
    "a number for a key": (lambda: packed(VIDEOS) | {7: 1}, "keys must be strings, not 7"),
    "a name for a terminal": (lambda: {"evil\nline\x1b[31m": 1}, r"it contains 'evil\\nline\\x1b\[31m'"),
    "half a letter in a name": (
        changed(paths=["a\ud800.pt", "b", "c"]),
        r"paths has 'a\\ud800\.pt', which is not valid text",
    ),
    "half a letter in a class": (
        lambda: surgical({"v1": regular_times(1, 1)}, [0], phase_class_names=["a\ud800"]),
        r"phase_class_names has 'a\\ud800', which is not valid text",
    ),
    "a name of many digits": (changed(paths=[10**600, "b", "b"]), "paths has 'b' twice"),
    "a long name": (changed(paths=["/" + "x" * 10**6, "b", "c"]), "paths has '/xxx"),
    "splits for fewer": (
        lambda: surgical({"v1": regular_times(1, 1)}, [0], source_splits=["a", "b"]),
        "source_splits has 2 values for 1 videos",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_archive_that_does_not_fit_together_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    make, message = BAD[kind]
    path = saved(tmp_path / "bad.pt", make())
    with pytest.raises(InputError, match=rf"bad\.pt: .*{message}") as refusal:
        open_archive(path)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 400


LEMON_BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a shard outside": ({"shards": ["../x.pt"]}, r"shard '\.\./x\.pt' points outside of the index's folder"),
    "an absolute shard": ({"shards": ["/x.pt"]}, r"shard '/x\.pt' points outside"),
    "a shard number too high": ({"shard_ids": torch.tensor([0, 0, 7])}, "shard_ids has 7, with 2 shards"),
    "a negative place": ({"local_indices": torch.tensor([0, -1, 0])}, "local_indices has -1"),
    "too few lengths": ({"num_tokens": [4, 4]}, "num_tokens has 2 values for 3 videos"),
    "negative lengths": ({"num_tokens": [4, 4, -4]}, "num_tokens has -4"),
    "lengths of floats": ({"num_tokens": torch.zeros(3)}, r"num_tokens is float32 \(3,\)"),
    "no width": ({"feature_dim": "wide"}, "feature_dim must be a positive integer, not 'wide'"),
    "an id twice": ({"video_ids": ["a", "b", "a"]}, "video_ids has 'a' twice"),
    "a place twice": ({"local_indices": torch.tensor([0, 0, 0])}, "2 videos refer to video 0 of shard 0; expected one"),
    "huge lengths": ({"num_tokens": [2**70, 4, 4]}, "num_tokens has a number that exceeds 64 bits"),
    "a width of tensors": (
        {"feature_dim": torch.tensor(4)},
        r"feature_dim must be a positive integer, not tensor\(4\)",
    ),
    "places without numbers": ({"shard_ids": torch.empty(3, device="meta")}, "'shard_ids' has a shape but no data"),
    "paths for fewer": ({"paths": ["a.pt"]}, "paths has 1 values for 3 videos"),
    "a shard with a zero": ({"shards": ["a\0.pt"]}, r"shard 'a\\x00\.pt' points outside"),
}


@pytest.mark.parametrize("kind", LEMON_BAD)
def test_an_index_that_does_not_fit_together_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    more, message = LEMON_BAD[kind]
    with pytest.raises(InputError, match=rf"index\.pt: .*{message}"):
        open_archive(write_lemon(tmp_path, dict.fromkeys("abc", 4), **more))


def test_shards_that_contradict_the_index_are_named(tmp_path: Path) -> None:
    lengths = dict.fromkeys("abc", 4)
    for number, (more, message) in enumerate(
        [
            ({"num_tokens": torch.tensor([4, 4, 5])}, r"pretrain_00001\.pt: 'c' has 4 tokens, but 5 in the index"),
            ({"local_indices": torch.tensor([0, 1, 2])}, "'c' is video 2 in the index, but the shard has 1"),
            ({"feature_dim": 8}, "tokens have width 4, but 8 in the index"),
        ]
    ):
        archive = open_archive(write_lemon(tmp_path / str(number), lengths, **more))
        with pytest.raises(InputError, match=message):
            archive.video(2)
    archive = open_archive(write_lemon(tmp_path / "gone", lengths))
    (tmp_path / "gone" / "pretrain" / "pretrain_00001.pt").unlink()
    assert [path.name for path in archive.missing()] == ["pretrain_00001.pt"]
    assert len(archive.video(0).features) == 4
    with pytest.raises(InputError, match=r"pretrain_00001\.pt: no such file"):
        archive.video(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_ids": 3}, "video_ids is of type int; expected a list of names"),
        ({"video_ids": torch.tensor([1, 2])}, r"video_ids is int64 \(2,\); expected a list of names"),
        ({"video_ids": ["a"]}, "3 offsets for 1 video_ids"),
        ({"video_ids": ["b", "a"]}, "video 0 is 'b', but 'a' in the index"),
        ({"video_ids": None, "paths": ["b.pt", "a.pt"]}, r"video 0 is 'b\.pt', but 'a\.pt' in the index"),
    ],
)
def test_shards_are_checked_by_ids_and_paths_where_they_have_them(tmp_path: Path, change: dict, message: str) -> None:
    index = write_lemon(tmp_path, dict.fromkeys("ab", 4))
    shard = tmp_path / "pretrain" / "pretrain_00000.pt"
    torch.save(torch.load(shard) | change, shard)
    with pytest.raises(InputError, match=rf"pretrain_00000\.pt: {message}"):
        open_archive(index).video(0)
    torch.save({key: value for key, value in torch.load(shard).items() if key not in ("video_ids", "paths")}, shard)
    assert open_archive(index).video(0).name == "a", "neither can be asked for"


def test_paths_may_be_stale_where_there_are_ids(tmp_path: Path) -> None:
    index = write_lemon(tmp_path, dict.fromkeys("ab", 4), paths=["/home/a.pt", "/home/a.pt"])
    assert [open_archive(index).video(number).name for number in (0, 1)] == ["a", "b"]


def test_parameters_in_an_archive_are_plain_numbers(tmp_path: Path) -> None:
    payload = packed(VIDEOS)
    wrapped = {key: torch.nn.Parameter(payload[key]) for key in ("tokens", "times")}
    video = open_archive(saved(tmp_path / "a.pt", payload | wrapped)).video(2)
    assert np.array_equal(video.features, payload["tokens"][5:].numpy()) and len(video.times) == 7


def test_nested_metadata_is_kept_as_far_as_it_is_plain_and_short(tmp_path: Path) -> None:
    plain = {"backbone": {"name": "plstitch", "layers": [1, 2.5, None, True]}, "preprocessing": ("crop", 224)}
    odd = {"tensors": {"mean": torch.zeros(3)}, "nan": {"a": float("nan")}}
    payload = packed(VIDEOS, **plain, **odd, history="x" * 10**6)
    assert open_archive(saved(tmp_path / "a.pt", payload)).metadata == {
        "version": "egoprocel_fact_npy_frame_pt_v1",
        "feature_dim": 4,
        "backbone": plain["backbone"],
        "preprocessing": ["crop", 224],
        "history": "(not kept: 1,000,002 letters)",
    }


def test_metadata_inside_themselves_are_refused_in_one_line(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(InputError, match=r"a\.pt: .*a value inside itself"):
        open_archive(saved(tmp_path / "a.pt", packed(VIDEOS, endless=endless)))


def flip_a_bit(path: Path, row: torch.Tensor) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(row.numpy().tobytes())] ^= 1
    path.write_bytes(content)


def test_flipped_bits_are_found_where_one_asks_for_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", packed(VIDEOS))
    flip_a_bit(path, packed(VIDEOS)["tokens"][7])
    assert len(open_archive(path).video(2).features) == 7
    with pytest.raises(InputError, match=r"a\.pt: damaged: a/data/\d does not match its checksum"):
        open_archive(path, verify=True)
    index = write_lemon(tmp_path / "lemon", dict.fromkeys("abc", 4))
    shard = tmp_path / "lemon" / "pretrain" / "pretrain_00001.pt"
    flip_a_bit(shard, torch.load(shard)["tokens"][1])
    archive = open_archive(index, verify=True)
    assert archive.video(0).name == "a"
    with pytest.raises(InputError, match=r"pretrain_00001\.pt: damaged"):
        archive.video(2)


@pytest.mark.parametrize(("slot", "value"), [(1, np.nan), (2, np.inf), (2, 0.1)])
def test_times_that_are_not_finite_or_fall_name_the_video_and_the_slot(tmp_path: Path, slot: int, value: float) -> None:
    times = fact_times(4)
    times[slot] = value
    archive = open_archive(saved(tmp_path / "a.pt", packed({"v.pt": times})))
    with pytest.raises(InputError, match=rf"a\.pt: 'v\.pt' has the time .* in slot {slot}; times must"):
        archive.video(0)


class Code:
    """Would run a command if it were unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", packed(VIDEOS) | {"extra": Code(tmp_path / "ran")})
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Code(tmp_path / "ran"), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match=rf"{name}: contains more than plain .*system\).*not loaded"):
            open_archive(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_cut_off_or_damaged_are_one_line(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", packed(VIDEOS)).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "b.pt"
    for share in (0, 2, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:share])
        with pytest.raises(InputError, match=r"b\.pt: ") as refusal:
            open_archive(path)
        assert "\n" not in str(refusal.value)
    pickled = whole.index(b"data.pkl")
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[pickled + rng.integers(600)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_archive(path)
        except InputError as error:
            assert "\n" not in str(error)
    with pytest.raises(InputError, match=r"absent\.pt: no such file"):
        open_archive(tmp_path / "absent.pt")
    with pytest.raises(InputError):
        open_archive(tmp_path)
