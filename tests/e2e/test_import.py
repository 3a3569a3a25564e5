"""``keystep import official`` from an archive to an evaluation."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from release import egoprocel_row, fact_times, packed, write_csv

Run = Callable[..., tuple[int, str, str]]
SMALL = (
    *("--set", "model.dim=16", "--set", "model.heads=2", "--set", "model.depth=2"),
    *("--set", "train.steps=4", "--set", "train.crop=32", "--set", "train.batch_size=2"),
)
QUICK = ("--set", "probe.penalties=[0.01]")


@pytest.fixture
def release(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Eight videos in EgoProceL's layout: an archive, and manifests of train and test."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    videos = {f"Egtea/P{index}.pt": fact_times(60 + index) for index in range(8)}
    for index, path in enumerate(videos):
        part = "train" if index < 5 else "test"
        start = 1.2
        for _ in range(5):
            end = round(start + float(rng.integers(6, 25)) / 10, 1)
            rows[part].append(egoprocel_row(path, start, end, int(rng.integers(3)), split=part))
            start = end + float(rng.choice([0.0, 0.5]))
    torch.save(packed(videos), tmp_path / "fact.pt")
    manifests = [write_csv(tmp_path / f"{part}.csv", own) for part, own in rows.items()]
    return tmp_path / "fact.pt", manifests[0], manifests[1]


@pytest.mark.parametrize("sequence", ["whole", "segments"])
def test_an_imported_folder_goes_through_every_command(
    keystep: Run, release: tuple[Path, Path, Path], tmp_path: Path, sequence: str
) -> None:
    archive, train, test = release
    data, run = tmp_path / "data", tmp_path / "run"
    options = ("--manifest", train, "--manifest", test, "--sequence", sequence)
    status, said, error = keystep("import", "official", archive, "--out", data, *options)
    assert status == 0, error
    said = " ".join(said.split())
    assert "8 videos, 0.0 hours, 3 classes" in said and "rows: 40" in said and "timeline: 4 Hz" in said
    assert "split 1: 5 train, 3 test; keystep takes a validation part from the training videos" in said
    assert ("ORACLE" in said) == (sequence == "segments")
    status, said, _ = keystep("inspect", data, "--picture", tmp_path / "p.png")
    said = " ".join(said.split())
    assert status == 0, said
    assert "8 of 8 videos have explicit times" in said and ("ORACLE" in said) == (sequence == "segments")
    assert ("unlabelled" in said) == (sequence == "whole")
    attention = ("--set", "model.attention.kind=segment_causal")
    status, _, error = keystep("pretrain", data, "--split", 1, "--out", run, *SMALL, *attention)
    assert status == 0, error
    options = ("--model", f"pjepa={run}", "--out", tmp_path / "result", *QUICK)
    status, _, error = keystep("eval", data, *options)
    assert status == 0, error
    status, _, error = keystep("encode", run, data, "--out", tmp_path / "latents")
    assert status == 0, error
    for part in ("times", "groundTruth", *(("segments",) if sequence == "segments" else ())):
        for path in (data / part).iterdir():
            assert (tmp_path / "latents" / part / path.name).read_bytes() == path.read_bytes()
    status, _, error = keystep("encode", run, data, "--out", tmp_path / "mstcn", "--layout", "mstcn")
    assert status == 0, error
    for path in (data / "times").iterdir():
        assert (tmp_path / "mstcn" / "times" / path.name).read_bytes() == path.read_bytes()
    status, said, _ = keystep("inspect", tmp_path / "latents", "--picture", tmp_path / "p.png")
    assert "was stopped" not in said
    assert status == 0 and "made with the true segment boundaries" in said
    assert ("true boundaries shaped them" in said) == (sequence == "segments"), "latents of such sequences stay ORACLE"


def cut_off(archive: Path, manifest: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-500])


def lead_out(archive: Path, manifest: Path) -> None:
    payload = torch.load(archive)
    payload["paths"][3] = "../../P3.pt"
    torch.save(payload, archive)


def hold_code(archive: Path, manifest: Path) -> None:
    torch.save(torch.load(archive) | {"extra": Fraction(1, 2)}, archive)


def turn_a_segment_round(archive: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("1.200000", "9.200000", 1))


def nothing(archive: Path, manifest: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (cut_off, (), "fact.pt: truncated: 12,"),
        (lead_out, (), "'../../P3.pt', which points outside of the archive"),
        (hold_code, (), "fact.pt: contains more than plain tensors and numbers"),
        (turn_a_segment_round, (), "train.csv, line 2: the segment ends at"),
        (nothing, ("--boundaries", "rough"), "unknown --boundaries 'rough'; expected one of exact, float32"),
        (nothing, ("--on-error", "hope"), "unknown --on-error 'hope'; expected one of raise, skip"),
        (nothing, ("--source-rate", "fast"), "'fast' is no rate in Hz"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(
    keystep: Run,
    release: tuple[Path, Path, Path],
    tmp_path: Path,
    spoil: Callable[[Path, Path], None],
    options: tuple[str, ...],
    message: str,
) -> None:
    spoil(*release[:2])
    status, _, error = keystep(
        "import", "official", release[0], "--manifest", release[1], "--out", tmp_path / "data", *options
    )
    assert status == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_damage_is_found_with_verify_and_a_stopped_import_says_so_wherever_it_is_read(
    keystep: Run, release: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, *manifests = release
    whole, data = archive.read_bytes(), tmp_path / "data"
    options = ("--manifest", manifests[0], "--manifest", manifests[1], "--out", data)
    content = bytearray(whole)
    content[content.index(torch.load(archive)["tokens"][300].numpy().tobytes())] ^= 1
    archive.write_bytes(content)
    status, _, error = keystep("import", "official", archive, *options, "--verify")
    assert status == 2 and "fact.pt: damaged: fact/data/" in error and not data.exists()
    archive.write_bytes(whole)

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("keystep.interop.official.importing._write_splits", stop)
        assert keystep("import", "official", archive, *options, "--verify")[0] != 0
    stopped = "the command that wrote this folder was stopped; run it again to finish"
    status, said, _ = keystep("inspect", data, "--picture", tmp_path / "p.png")
    assert status == 0 and f"note: {stopped}" in " ".join(said.split())
    assert keystep("import", "official", archive, *options)[0] == 0
    assert stopped not in " ".join(keystep("inspect", data, "--picture", tmp_path / "p.png")[1].split())


def test_skipped_videos_are_listed_and_other_sources_refused(
    keystep: Run, release: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    archive, train, _ = release
    payload = torch.load(archive)
    payload["tokens"][70] = torch.nan
    torch.save(payload, archive)
    options = ("--manifest", train, "--out", tmp_path / "data", "--on-error", "skip")
    status, said, _ = keystep("import", "official", archive, *options)
    assert status == 0 and "left out: " in said and "'Egtea/P1.pt' has NaN" in said and "7 videos" in said
    assert "note: split 1 is not written: no test videos" in said
    status, _, error = keystep("import", "theirs", archive, "--out", tmp_path / "other")
    assert status == 2 and "unknown format 'theirs'" in error
