"""Weights are found in what training code, hubs and interrupted downloads leave."""

import collections
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from keystep.errors import InputError
from keystep.extraction.backbones.weights import read_tensors
from keystep.unpickling import load_torch

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2), "steps": torch.tensor(3)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in WEIGHTS.items()}


FOUND: dict[str, Any] = {
    "plain": WEIGHTS,
    "nested": {"model": {"state_dict": WEIGHTS}, "epoch": 3},
    "nested the other way": {"checkpoint": {"model": prefixed("module.")}},
    "another key": {"net": WEIGHTS, "accuracy": 93.1},
    "averages beside": {"state_dict": WEIGHTS, "state_dict_ema": {"layer.weight": torch.zeros(1)}},
    "averages only": {"ema": prefixed("ema_model.module.")},
    "a configuration under the first key": {"model": {"width": 3}, "params": WEIGHTS},
    "numbers beside": {"state_dict": WEIGHTS, "best": torch.tensor(0.5)},
    "Lightning": {
        "state_dict": prefixed("model._orig_mod."),
        "hyper_parameters": {"lr": 0.1, "out": Path("runs"), "when": datetime.datetime(2026, 1, 1)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.3), "kept": collections.deque([1])}},
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "layers": frozenset({1}),
        "epochs": range(3),
    },
}


@pytest.mark.parametrize("zipped", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("saved", FOUND.values(), ids=FOUND)
def test_weights_are_found_where_training_code_puts_them(tmp_path: Path, saved: Any, zipped: bool) -> None:
    torch.save(saved, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "x.pt")
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in found)


def test_tables_and_queues_keep_what_is_in_them(tmp_path: Path) -> None:
    torch.save({"a": collections.defaultdict(list, {"b": [1]}), "c": collections.deque([2, 3])}, tmp_path / "x.pt")
    assert load_torch(tmp_path / "x.pt") == {"a": {"b": [1]}, "c": [2, 3]}


REFUSED: dict[str, tuple[Any, str]] = {
    "two networks": ({"student": WEIGHTS, "teacher": WEIGHTS}, "there are some in student, teacher: save one of these"),
    "numbers as names": ({0: torch.ones(1)}, "contains no named tensors"),
    "sparse": ({"a": torch.eye(3).to_sparse()}, "a is sparse, quantized or without data"),
    "without data": ({"a": torch.empty(3, device="meta")}, "a is sparse, quantized or without data"),
}


@pytest.mark.parametrize(("saved", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_single_set_of_plain_tensors_is_named(tmp_path: Path, saved: Any, message: str) -> None:
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        read_tensors(tmp_path / "x.pt")


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    files = {name: f"model-0000{number}-of-00003.safetensors" for number, name in enumerate(WEIGHTS, start=1)}
    for name, file in files.items():
        save_file({name: WEIGHTS[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert read_tensors(index).keys() == WEIGHTS.keys()
    for places in ({"a": "../x.safetensors"}, {"a": index.name}, {}, 3):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(InputError, match="does not list the files of its folder"):
            read_tensors(index)


def test_the_content_says_what_a_file_is_not_its_name(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "x.pt")
    assert read_tensors(tmp_path / "x.pt").keys() == WEIGHTS.keys()
    torch.save(WEIGHTS, tmp_path / "y.safetensors")
    for read in (read_tensors, load_torch):
        with pytest.raises(InputError, match=r"y\.safetensors: not a (whole|complete) "):
            read(tmp_path / "y.safetensors")


def test_a_header_whose_length_looks_like_a_web_page_is_read(tmp_path: Path) -> None:
    path, wanted = tmp_path / "x.safetensors", int.from_bytes(b" <", "little")
    save_file(WEIGHTS, path, metadata={"filling": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(WEIGHTS, path, metadata={"filling": "x" * (wanted - length)})
    assert path.read_bytes().startswith(b" <") and read_tensors(path).keys() == WEIGHTS.keys()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page, not weights"),
        (gzip.compress(b"x", mtime=0), "compressed with gzip; unpack it first"),
    ],
    ids=["pointer", "page", "gzip"],
)
def test_what_interrupted_downloads_leave_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_tensors(tmp_path / name)
