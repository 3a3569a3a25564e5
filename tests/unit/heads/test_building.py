"""Heads on disk come back as they were, and nothing else is taken for one."""

import json
from pathlib import Path

import pytest
import torch

from keystep.errors import InputError
from keystep.heads import PRESETS, build_head, head_config, load_head
from keystep.persistence import load_tensors, read_metadata, save_tensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    head = build_head(head_config("linear"), 4, 3, seed=0)
    head.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_head_comes_back_as_it_was(tmp_path: Path, preset: str) -> None:
    head = build_head(head_config(preset), 4, 3, seed=0).eval()
    head.names, head.origin = ("wait", "cut", "tie a knot"), {"weights": "abc", "rate": "5"}
    head.standardise.deviation[1] = float("inf")
    head.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    x = torch.randn(2, 9, 4)
    assert torch.equal(again(x), head(x)) and not again.training
    assert (again.config, again.width, again.classes) == (head.config, 4, 3)
    assert (again.names, again.origin, again.signature) == (head.names, head.origin, head.signature)
    assert again.name(2) == "tie a knot"


def test_the_seed_decides_the_weights_and_the_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_head(head_config("linear"), 4, 3, seed=seed).signature for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    other = tmp_path / "linear.safetensors"
    save_tensors(other, {"x": torch.zeros(1)}, {"format": "keystep-stream"})
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    for path, words in (
        (tmp_path / "none.safetensors", "no such file"),
        (other, "not a head that keystep wrote"),
        (text, "not a whole safetensors file"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            load_head(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("width"), "its record is damaged: head: width: field required"),
        (
            lambda record: record["config"].update(kind="lstm"),
            "head.safetensors: unknown head 'lstm'; expected one of linear",
        ),
        (lambda record: record["config"].update(depth=3), "its record is damaged: unknown setting depth"),
        (lambda record: record.update(width=5), "weights do not fit this model"),
        (lambda record: record.update(width="wide"), "its record is damaged"),
    ],
)
def test_a_damaged_record_is_named(saved: Path, change: object, words: str) -> None:
    header = read_metadata(saved)
    record = json.loads(header["head"])
    change(record)  # type: ignore[operator]
    save_tensors(saved, load_tensors(saved), header | {"head": json.dumps(record)})
    with pytest.raises(InputError, match=words) as caught:
        load_head(saved)
    assert "\n" not in str(caught.value)


def test_a_newer_version_is_refused(saved: Path) -> None:
    save_tensors(saved, load_tensors(saved), read_metadata(saved) | {"version": "3"})
    with pytest.raises(InputError, match="format version 3; this keystep reads 2"):
        load_head(saved)
