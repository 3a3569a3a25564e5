import io
import json
import os
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import Field
from safetensors.torch import save_file

import keystep
from keystep.config import ModelConfig
from keystep.config.base import assignments, build, read_yaml
from keystep.data.folder import open_dataset
from keystep.data.timeline import Timeline
from keystep.errors import InputError, plain
from keystep.heads import build_head, head_config, load_head
from keystep.persistence import load_tensors, read_metadata, save_tensors
from keystep.reading import (
    Record,
    checked,
    open_npy,
    parse_json,
    parse_yaml,
    read_header,
    read_json,
    read_lines,
    read_npz,
    read_table,
    read_text,
)
from keystep.stream.sources import from_lines
from keystep.terminal import Terminal, json_text
from keystep.unpickling import load_arrays, load_torch, unwrapped


def refused(work: object, words: str = "") -> str:
    """The one line in which something is refused, at once."""
    began = time.process_time()
    with pytest.raises(InputError, match=words or None) as caught:
        work()  # type: ignore[operator]
    assert "\n" not in str(caught.value) and time.process_time() - began < 5
    return str(caught.value)


def header_of(shape: str, kind: str = "'<f4'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("shape", ["(100000000000000000000000, 6)", "(10000, 6)", "(-1, 6)", "(3, 6)", "(" * 50])
def test_an_array_of_another_size_than_its_header_claims_is_refused(tmp_path: Path, shape: str) -> None:
    (tmp_path / "x.npy").write_bytes(header_of(shape) + bytes(4 * 24))
    refused(lambda: open_npy(tmp_path / "x.npy"), r"x\.npy: not a readable \.npy array")
    (tmp_path / "x.npy").write_bytes(header_of("(4, 6)") + bytes(4 * 24))
    assert open_npy(tmp_path / "x.npy").shape == (4, 6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_both_orders_and_of_no_numbers_are_read(tmp_path: Path, order: str) -> None:
    for array in (np.arange(24.0).reshape(4, 6), np.zeros((0, 3)), np.float32(2)):
        np.save(tmp_path / "x.npy", np.asarray(array, order=order))
        np.savez_compressed(tmp_path / "x.npz", a=np.asarray(array, order=order))
        assert np.array_equal(open_npy(tmp_path / "x.npy"), array)
        assert np.array_equal(read_npz(tmp_path / "x.npz", 10_000)["a"], array)


def test_an_archive_that_unpacks_to_more_than_its_readers_need_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1_000_000))
    refused(lambda: read_npz(tmp_path / "x.npz", 1_000_000), "8,000,128 bytes of arrays claimed")


def test_pipes_devices_and_endless_files_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    for work in (
        lambda: open_npy(tmp_path / "pipe.npy"),
        lambda: read_lines(tmp_path / "endless.txt"),
        lambda: read_json(tmp_path / "endless.txt"),
        lambda: read_yaml(tmp_path / "endless.txt"),
        lambda: load_tensors(tmp_path / "endless.txt"),
        lambda: load_torch(tmp_path / "pipe.npy"),
        lambda: read_npz(tmp_path / "pipe.npy", 100),
        lambda: load_arrays(tmp_path / "pipe.npy"),
    ):
        refused(work, "cannot be read: a pipe or a device")


def test_a_feature_folder_with_a_pipe_or_an_endless_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "groundTruth").mkdir()
    np.save(tmp_path / "features" / "a.npy", np.ones((9, 3), np.float32))
    (tmp_path / "mapping.txt").write_text("0 rest\n")
    (tmp_path / "store.json").write_text('{"time_axis": 0, "timeline": {"rate": "1"}}')
    (tmp_path / "groundTruth" / "a.txt").symlink_to("/dev/zero")
    refused(lambda: open_dataset(tmp_path), r"a\.txt: cannot be read: a pipe or a device")
    os.mkfifo(tmp_path / "features" / "b.npy")
    refused(lambda: open_dataset(tmp_path, labels_needed=False), r"b\.npy: cannot be read: a pipe or a device")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 deep"),
        ("[NaN]", "NaN is no number"),
        ("[1e999]", "too large"),
        ("[1" + "0" * 400 + "]", "too large"),
        ('{"a": 1, "a": 2}', "the name 'a' is given twice"),
        ('["\\ud800"]', "is no text"),
    ],
)
def test_json_that_would_be_read_wrong_or_forever_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    refused(lambda: read_json(tmp_path / "x.json"))
    assert parse_json("[1, -2.5, null]") == [1, -2.5, None] and parse_json("[NaN]", nan=None) == [None]


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(12), "more than 100,000 values, aliases written out"),
        ("a: " + "[" * 100_000, "nested more than 64 deep"),
        ("a: &x [*x]", "an alias inside of what it stands for"),
        ("a: 1\nb: 2\na: 3\n", "the name 'a' is given twice"),
        ("a: !!timestamp nothing", ""),
        ("a: !!python/object/apply:os.system ['false']", ""),
        ("x: y\n" * 100_000, "bytes; such files have at most"),
        ("1: 2\n", "1 is not the name of a setting"),
    ],
)
def test_yaml_that_would_be_read_wrong_or_forever_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    refused(lambda: read_yaml(tmp_path / "x.yaml"), words)


def test_aliases_of_ordinary_settings_are_read() -> None:
    assert parse_yaml("base: &b {a: 1}\nother:\n  <<: *b\n  c: 2\n") == {"base": {"a": 1}, "other": {"a": 1, "c": 2}}
    refused(lambda: assignments([".".join("a" * 5000) + "=1"]), "levels deep")


@pytest.mark.parametrize("change", [{"dim": 10**9}, {"depth": 10**9}, {"dim": 2**15, "depth": 200}, {"tau": 1e30}])
def test_settings_of_absurd_size_are_refused_before_anything_is_made(change: dict) -> None:
    refused(lambda: build(ModelConfig, {"input_dim": 4}, change))


def test_a_config_that_its_weights_do_not_fit_is_refused_before_a_model_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"input_dim": 4, "dim": 16, "depth": 1, "predictor_depth": 1, "heads": 2, "readout_dim": None}
    keystep.PJEPA(build(ModelConfig, settings)).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    record = json.loads(path.read_text())
    record["model"] |= {"dim": 2**12, "depth": 40}
    path.write_text(json.dumps(record))
    refused(lambda: keystep.load(tmp_path / "model", "cpu"), "weights do not fit this model")


def test_a_head_of_absurd_width_is_refused_before_it_is_made(tmp_path: Path) -> None:
    build_head(head_config("mstcn"), 4, 3).save(tmp_path / "head.safetensors")
    header, tensors = read_metadata(tmp_path / "head.safetensors"), load_tensors(tmp_path / "head.safetensors")
    for change in ({"width": 10**7}, {"classes": 90_000}, {"width": 10**12}):
        record = json.loads(header["head"]) | {"names": []} | change
        save_tensors(tmp_path / "head.safetensors", tensors, header | {"head": json.dumps(record)})
        refused(lambda: load_head(tmp_path / "head.safetensors"))


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**15]}},
        {"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
        {"a": 5},
        [1],
    ],
)
def test_tensors_of_other_sizes_than_the_file_holds_are_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    refused(lambda: load_tensors(tmp_path / "x.safetensors"), r"x\.safetensors")
    (tmp_path / "x.safetensors").write_bytes((2**60).to_bytes(8, "little") + text + bytes(16))
    refused(lambda: read_header(tmp_path / "x.safetensors"), "a header of 1,152,921,504,606,846,976 bytes is claimed")


def test_every_flipped_bit_of_what_keystep_wrote_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64)}
    save_tensors(path, tensors, {"said": "something"})
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found, record = load_tensors(path), read_metadata(path)
        except InputError:
            continue
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items()) and len(found) == 2
        assert record["said"] == "something"


class Point(Record):
    x: float
    name: str = ""
    more: list[int] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "it: x: field required"),
        ({"x": "1"}, "it: x: input should be a valid number, not '1'"),
        ({"x": float("nan")}, "it: x: input should be a finite number"),
        ({"x": 1, "more": [1, "a"]}, r"it: more\.1: input should be a valid integer, not 'a'"),
        ([1], "it: input should be a valid dictionary"),
        ({"x": 1, "name": 5}, "it: name: input should be a valid string, not 5"),
    ],
)
def test_what_a_record_lacks_is_named_with_its_place(data: object, words: str) -> None:
    refused(lambda: checked(Point, data, "it"), words)


def test_a_table_is_read_by_its_columns_whatever_ends_its_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes('\ufeffa,b\r\n1,"x\u2028y"\r\n\r\n2\r\n'.encode())
    assert read_table(tmp_path / "x.csv") == (["a", "b"], [(2, {"a": "1", "b": "x\u2028y"}), (4, {"a": "2", "b": ""})])
    assert read_text(tmp_path / "x.csv")[0] == "a"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"time": NaN, "features": [1, 2]}', "line 1: .*NaN is no number"),
        ('{"time": 1e999, "features": [1, 2]}', "line 1: .*too large"),
        ("[1e39, 0]", r"line 1: the number 1e\+39 is too large"),
        ("[1" + "0" * 50 + ", 0]", "line 1: .*too large"),
        ('{"time": true, "features": [1, 2]}', "line 1: .*time: input should be a valid number"),
        ("[[1, 2]]", "line 1: .*features"),
        ("[" * 5000, "line 1"),
        ("x" * 5000, "line 1: more than 1,152 characters"),
    ],
)
def test_standard_input_that_is_no_frame_is_refused_without_a_warning(line: str, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: list(from_lines(io.StringIO(line + "\n"), 2)), words)


def test_standard_input_may_begin_with_a_byte_order_mark() -> None:
    (chunk,) = from_lines(io.StringIO('\ufeff{"time": 0.5, "features": [1, 2]}\n'), 2)
    assert chunk.times == [0.5] and chunk.features.tolist() == [[1.0, 2.0]]


NAME = "\x1b[31mopen\x07 \x9bbox\u202e [/red] :smile:"


def test_names_cannot_steer_the_terminal_they_are_printed_on() -> None:
    from rich.table import Table

    out = io.StringIO()
    terminal = Terminal(file=out, width=200, force_terminal=False)
    table = Table("class")
    table.add_row(NAME)
    terminal.print(table)
    terminal.print(NAME, soft_wrap=True)
    said = out.getvalue()
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*said}
    assert said.count("[/red] :smile:") == 2  # no markup, no emoji
    assert plain("straße\n日本 a\tb") == "straße\n日本 a\tb"


def test_a_printed_line_of_json_keeps_names_exactly_and_no_controls() -> None:
    text = json_text({"step": NAME, "other": "日本"})
    assert json.loads(text) == {"step": NAME, "other": "日本"} and plain(text) == text and "日本" in text


def test_weights_are_found_behind_what_wrappers_put_into_names() -> None:
    weights = {"blocks.0.weight": 1, "head.bias": 2}
    for wrap in ("module.{}", "module._orig_mod.{}", "_orig_mod.{}", "model.{}", "model.module.{}", "{}"):
        assert unwrapped({wrap.format(name): value for name, value in weights.items()}) == weights
    inside = {"blocks._orig_mod.0.weight": 1, "head._fsdp_wrapped_module.bias": 2}
    assert unwrapped(inside) == weights
    averaged = {f"module.{name}": value for name, value in weights.items()} | {"n_averaged": 3}
    assert unwrapped(averaged) == weights
    for kept in ({"model.a": 1, "b": 2}, {"a": 1, "_orig_mod.a": 2}):
        assert unwrapped(kept) == kept


def test_what_training_code_leaves_beside_weights_is_read_without_running_it(tmp_path: Path) -> None:
    import argparse

    beside = {
        "best": np.float64(3.5),
        "epoch": np.int64(4),
        "rng": np.arange(3),
        "args": argparse.Namespace(out=Path("x")),
    }
    for zipped in (True, False):
        saved = {"state_dict": {"a": torch.ones(2)}, **beside}
        torch.save(saved, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        found = load_torch(tmp_path / "x.pt")
        assert torch.equal(found["state_dict"]["a"], torch.ones(2)) and (found["best"], found["epoch"]) == (3.5, 4)
        assert not isinstance(found["args"], argparse.Namespace)


class Trainer:
    """A class of somebody's training code."""


class Runs:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/was-run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("value", "name"), [(Trainer(), "Trainer"), (Runs(), "system"), (Trainer, "Trainer")])
def test_other_classes_are_refused_by_their_names(tmp_path: Path, value: object, name: str, zipped: bool) -> None:
    torch.save({"a": torch.ones(1), "b": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    said = refused(lambda: load_torch(tmp_path / "x.pt"), name)
    assert plain(said) == said and "[1m" not in said and "weights_only" not in said


def many() -> object:
    """A value of which a few bytes make a million millions: each level is twice the one below it."""
    found: object = {"x": 1}
    for _ in range(40):
        found = {"a": found, "b": found}
    return found


def deep() -> object:
    found: object = 1
    for _ in range(80):
        found = [found]
    return found


def round_and_round() -> object:
    found: dict = {"a": 1}
    found["b"] = [found]
    return found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (many(), "more than 20,000,000 values"),
        (deep(), "nested more than 64 deep"),
        (round_and_round(), "a value inside itself"),
        ({"weights": torch.zeros(1).expand(10**12)}, "4,000,000,000,000 bytes, that is made of 4"),
    ],
)
def test_a_few_bytes_of_which_endless_values_would_come_are_refused(tmp_path: Path, value: object, words: str) -> None:
    torch.save(value, tmp_path / "x.pt")
    refused(lambda: load_torch(tmp_path / "x.pt"), words)
    if not words.endswith("made of 4"):
        (tmp_path / "x.ckpt").write_bytes(pickle.dumps(value))
        refused(lambda: load_arrays(tmp_path / "x.ckpt"), words)


def test_a_pickle_that_remembers_at_a_far_place_is_refused(tmp_path: Path) -> None:
    """Its reader would fill all places before that one: 16 GiB for the last."""
    far = b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b"."
    (tmp_path / "x.ckpt").write_bytes(far)
    refused(lambda: load_arrays(tmp_path / "x.ckpt"), "remembered at place 2147483647")


def test_a_repeated_row_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0).expand(3, 4)}, tmp_path / "x.pt")
    assert load_torch(tmp_path / "x.pt")["a"].shape == (3, 4)


def test_a_hash_whose_own_name_is_damaged_is_missed(tmp_path: Path) -> None:
    """Without it, the file would pass for one of somebody else's, which has none."""
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(content.replace(b'"sha256"', b'"shq256"').replace(b"\x3f", b"\x3e"))
    refused(lambda: load_tensors(tmp_path / "x.safetensors"), "the name of its hash")
    save_file({"a": torch.ones(2)}, tmp_path / "y.safetensors", {"format": "pt", "sha512": "x", "sha256sum": "y"})
    assert torch.equal(load_tensors(tmp_path / "y.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("rate", ["1e999999999", "9" * 5000, "1/" + "9" * 5000, "nan", "0", "1/0", True, None, [1]])
def test_rates_that_would_take_forever_or_are_none_are_refused(rate: object) -> None:
    refused(lambda: Timeline.from_json({"rate": rate}))
    refused(lambda: Timeline.from_json({"rate": "1", "window": rate if rate != "0" else "x"}))
