"""Every kind of file that keystep reads, with a small sound one and the reader that commands use. (Videos apart.)"""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import reference
import release
import takes
import torch
import trees
from harness import Kind
from mutations import forged_bytes, json_bytes, mutated, npy_bytes, safetensors_bytes, zip_bytes
from torch import Tensor

import keystep
from keystep.cli.streaming import _lines_before
from keystep.config import ModelConfig, run_config
from keystep.config.base import build, read_yaml
from keystep.data.clips import TrimmedClip, read_clips, write_clips
from keystep.data.folder import open_dataset
from keystep.data.inspection import inspect_dataset
from keystep.data.store import FeatureStore
from keystep.data.tasks import find_tasks
from keystep.data.timeline import Timeline
from keystep.datasets import coarse_annotations, egoexo4d_annotations, egoprocel_csv, preparation
from keystep.evals import report
from keystep.evals.headline import main_line
from keystep.evals.probe import LinearProbe
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.results import load_result
from keystep.evals.table import markdown_table
from keystep.extraction.backbones.pickled import pickled_arrays
from keystep.extraction.backbones.weights import read_tensors
from keystep.heads import build_head, head_config, load_head
from keystep.interop import official
from keystep.interop.official.archives import open_archive
from keystep.interop.official.manifests import read_manifests
from keystep.loading import load
from keystep.persistence import load_tensors, save_tensors
from keystep.reading import open_npy
from keystep.recipe import read_recipe
from keystep.stream import LiveSteps
from keystep.stream.sources import from_array, from_bytes, from_growing, from_lines
from keystep.train.records import read_metrics
from keystep.types import parse_rate

WIDTH, CLASSES = 6, ("rest", "open the box", "close it")
RECIPES = Path(__file__).parents[2] / "recipes"


def all_kinds(root: Path) -> dict[str, Kind]:
    """By name, each with files of its own below ``root``."""
    makers = (_features, _annotation, _models, _streams, _runs, _results, _archives, _weights, _trees)
    return {kind.name: kind for make in makers for kind in make(root / make.__name__.strip("_"))}


def _tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    return b"".join(
        f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in sorted(tensors.items())
    )


def _either(first: Callable[..., bytes], second: Callable[..., bytes]) -> Callable[[bytes, random.Random], bytes]:
    """One of two ways to damage a file."""
    return lambda data, chance: (first if chance.random() < 0.5 else second)(data, chance)


def _json(data: bytes, chance: random.Random) -> bytes:
    return json_bytes(json.loads(data), chance)


def _lines_of_json(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    lines[place] = json_bytes(json.loads(lines[place]), chance) + b"\n"
    return b"".join(lines)


JSON, LINES = _either(_json, mutated), _either(_lines_of_json, mutated)
SAFETENSORS, NPY = _either(safetensors_bytes, mutated), _either(npy_bytes, mutated)
NPZ = _either(partial(zip_bytes, inner=NPY), mutated)
TORCH = _either(partial(zip_bytes, inner=mutated), mutated)


def _folder(root: Path) -> Path:
    """A feature folder with everything that one may hold."""
    chance = np.random.default_rng(0)
    made = {"data_set": "made", "extraction": {"backbone": "none"}, "weights": "none"}
    store = FeatureStore(root, Timeline(rate=parse_rate(10)), provenance=made).create()
    for number in range(3):
        length = 20 + 3 * number
        labels = [CLASSES[slot * 3 // length] for slot in range(length)]
        store.add(
            f"video{number}",
            chance.normal(size=(length, WIDTH)).astype(np.float32),
            {"task": "boxes", "damage": ["frames 3 to 5"]},
            labels=labels,
            segments=[5, length - 5],
            times=np.arange(length) / 10,
            seen=np.tile(np.arange(length)[:, None], (1, 3)),
        )
    store.finish()
    (root / "mapping.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(CLASSES)))
    (root / "splits").mkdir()
    for part, names in (("train", "video0\nvideo1\n"), ("test", "video2\n")):
        (root / "splits" / f"{part}.split1.bundle").write_text(names)
    (root / "splits" / "groups.csv").write_text('video,group\nvideo0,P1\nvideo1,"P 2"\nvideo2,P3\n')
    (root / "skipped").mkdir()
    (root / "skipped" / "video9.json").write_text(json.dumps({"reason": "no picture in it"}))
    return root


def _used(root: Path) -> None:
    """All of a folder, as training and evaluation read it."""
    folder = open_dataset(root)
    for name in folder.videos:
        folder.features(name), folder.labels(name), folder.times(name), folder.segment_lengths(name)
    for name in folder.splits:
        folder.split(name)
    folder.fingerprint()


def _looked_at(root: Path) -> None:
    """What `keystep inspect` and `keystep discover` read of the videos' records."""
    inspect_dataset(root)
    folder = open_dataset(root)
    find_tasks(folder, [*folder.videos])


def _features(root: Path) -> Iterator[Kind]:
    folder = _folder(root)
    use = partial(_used, folder)
    yield Kind("features npy", folder / "features/video1.npy", use, NPY)
    yield Kind("times npy", folder / "times/video1.npy", use, NPY)
    yield Kind("store json", folder / "store.json", use, JSON)
    look = partial(inspect_dataset, folder)
    yield Kind("video json", folder / "features/video1.json", partial(_looked_at, folder), JSON)
    yield Kind("skipped json", folder / "skipped/video9.json", look, JSON)
    yield Kind("seen npy", folder / "seen/video1.npy", lambda: open_npy(folder / "seen/video1.npy").tolist(), NPY)


def _annotation(root: Path) -> Iterator[Kind]:
    folder = _folder(root)
    use = partial(_used, folder)
    for name, file in (
        ("labels txt", "groundTruth/video1.txt"),
        ("segments txt", "segments/video1.txt"),
        ("mapping txt", "mapping.txt"),
        ("split bundle", "splits/train.split1.bundle"),
        ("groups csv", "splits/groups.csv"),
    ):
        yield Kind(name, folder / file, use, mutated)
    write_clips(
        root / "clips.json",
        [TrimmedClip("video0", 0.5, 1.5, 1, "train"), TrimmedClip("video1", 0.0, 1.0, None, "hidden")],
        "x",
    )
    yield Kind("clips json", root / "clips.json", lambda: read_clips(root / "clips.json", 3), JSON)


def _model(**changes: Any) -> keystep.PJEPA:
    settings = {
        "input_dim": WIDTH,
        "dim": 16,
        "depth": 1,
        "predictor_depth": 1,
        "heads": 2,
        "readout_dim": 16,
        "tau": 2.0,
    }
    torch.manual_seed(0)
    return keystep.PJEPA(build(ModelConfig, settings, changes)).eval()


def _head(model: keystep.PJEPA, kind: str = "linear") -> Any:
    pattern = model.config.stream_attention
    assert pattern is not None
    head = build_head(head_config(kind), model.latent_dim(pattern), len(CLASSES), seed=0).eval()
    head.names, head.origin = CLASSES, {"mode": "causal", "rate": "10"}
    return head


def _head_bytes(head: Any) -> bytes:
    return _tensor_bytes(head.state_dict()) + repr((head.names, head.origin, head.config)).encode()


def _models(root: Path) -> Iterator[Kind]:
    _model().save_pretrained(root / "model")
    read = partial(load, root / "model", "cpu")
    yield Kind("model config json", root / "model/config.json", read, JSON)
    file = root / "model/model.safetensors"
    yield Kind("model safetensors", file, read, SAFETENSORS, lambda model: _tensor_bytes(model.state_dict()))
    yield Kind("model safetensors, forged", file, read, forged_bytes)
    for kind in ("linear", "attentive"):
        _head(_model(), kind).save(root / f"{kind}.safetensors")
        path = root / f"{kind}.safetensors"
        yield Kind(f"head safetensors ({kind})", path, partial(load_head, path), SAFETENSORS, _head_bytes)
        yield Kind(f"head safetensors ({kind}), forged", path, partial(load_head, path), forged_bytes)
    save_tensors(root / "optimizer.safetensors", {"a/exp_avg": torch.ones(3, 4), "a/step": torch.tensor(3.0)})
    read_optimizer = partial(load_tensors, root / "optimizer.safetensors")
    yield Kind("plain safetensors", root / "optimizer.safetensors", read_optimizer, SAFETENSORS, _tensor_bytes)


def _streams(root: Path) -> Iterator[Kind]:
    root.mkdir()
    chance = np.random.default_rng(1)
    frames = chance.normal(size=(40, WIDTH)).astype(np.float32)
    patterns = {
        "causal": {"kind": "causal", "window": 8},
        "in blocks": {"kind": "block_causal", "block": 4},
    }
    for name, pattern in patterns.items():
        model = _model(live_attention=pattern)
        head = _head(model)
        live = LiveSteps(model, head, Timeline(rate=parse_rate(10)))
        live.feed(frames[:22])
        path = root / f"{name}.state"
        live.save(path, {"source": "-", "place": None})

        def resumed(model: keystep.PJEPA = model, head: Any = head, path: Path = path) -> Any:
            again = LiveSteps(model, head, Timeline(rate=parse_rate(10)))
            again.resume(path)
            return again.feed(frames[22:24]) + again.close()

        def said(readings: Any) -> bytes:
            return b"".join(repr(reading.frame).encode() + reading.probabilities.tobytes() for reading in readings)

        yield Kind(f"stream state ({name})", path, resumed, SAFETENSORS, said)
        yield Kind(f"stream state ({name}), forged", path, resumed, forged_bytes)
    model = _model()
    live = LiveSteps(model, _head(model), Timeline(rate=parse_rate(10)))
    before = live.state

    def fed(chunks: Any) -> None:
        live.state = before
        for chunk in chunks:
            live.feed(chunk.features, chunk.times)

    lines = root / "input.jsonl"
    rows = [{"time": index / 10, "features": row.tolist()} for index, row in enumerate(frames[:5].round(3))]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read_lines() -> None:
        with lines.open(encoding="utf-8") as file:
            fed(from_lines(file, WIDTH))

    yield Kind("standard input jsonl", lines, read_lines, LINES)
    raw = root / "input.float32"
    raw.write_bytes(frames[:5].astype("<f4").tobytes())
    yield Kind("standard input float32", raw, lambda: fed(from_bytes(io.BytesIO(raw.read_bytes()), WIDTH)), mutated)
    np.save(root / "array.npy", frames[:9])
    yield Kind("array npy", root / "array.npy", lambda: fed(from_array(root / "array.npy", WIDTH, 8)), NPY)
    growing = root / "growing"
    growing.mkdir()
    np.save(growing / "1.npy", frames[:4])
    (growing / "END").touch()
    yield Kind("growing npy", growing / "1.npy", lambda: fed(from_growing(growing, WIDTH, 0.0)), NPY)
    out = root / "said.jsonl"
    out.write_text("".join(json.dumps({"frame": frame, "step": "rest"}) + "\n" for frame in range(6)))
    yield Kind("stream output jsonl", out, lambda: [*_lines_before(out, 4)], LINES)


def _runs(root: Path) -> Iterator[Kind]:
    (root / "run").mkdir(parents=True)
    settings = {
        "data": {"root": "data", "source_rate": "30"},
        "model": {"dim": 32},
        "train": {"steps": 50, "crop": "8s"},
    }
    (root / "run/config.yaml").write_text(json.dumps(settings, indent=1))
    yield Kind("run config yaml", root / "run/config.yaml", partial(run_config, root / "run"), JSON)
    (root / "plain.yaml").write_text(
        "data:\n  root: data\nmodel: {dim: 32, heads: &h 4, predictor_heads: *h}\ntrain:\n  steps: 50\n"
    )
    yield Kind("settings yaml", root / "plain.yaml", partial(read_yaml, root / "plain.yaml"), mutated)
    (root / "recipe.yaml").write_bytes((RECIPES / "gtea.yaml").read_bytes())
    yield Kind("recipe yaml", root / "recipe.yaml", partial(read_recipe, root / "recipe.yaml"), mutated)
    path = root / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in made_results.made_curve(0)[:12]))
    yield Kind("metrics jsonl", path, partial(read_metrics, path), LINES)


def _results(root: Path) -> Iterator[Kind]:
    result = made_results.with_heads(made_results.made_result())
    arrays = made_results.made_arrays(result, slots=60)
    made_results.write_result(root, result, arrays, {"pjepa, seed 0": made_results.made_curve(0)[:8]})

    def told() -> None:
        record, pictures, _ = load_result(root)
        markdown_table(record), main_line(record), report.render_page(record, pictures, {})

    def drawn() -> None:
        _, _, curves = load_result(root)
        list(report.draw_training(curves))

    yield Kind("result json", root / "result.json", told, JSON)
    yield Kind("pictures npz", root / "pictures.npz", told, NPZ)
    yield Kind("training json", root / "training.json", drawn, JSON)
    probes, asked = ProbeCache(root / "probes"), {"data": "x"}
    probe = LinearProbe(np.ones((4, 3), np.float32), np.ones(3, np.float32), 0.1, 50.0, {"frame": 1.0}, False)
    probes.keep(asked, probe, {"v": np.array([0, 1, 2])})
    path = probes.path(asked)
    assert path is not None
    yield Kind("probe npz", path, lambda: probes.find(asked), NPZ)


def _archives(root: Path) -> Iterator[Kind]:
    root.mkdir()
    videos = {"a.pt": release.fact_times(9), "b.pt": release.fact_times(7)}
    torch.save(release.packed(videos), root / "packed.pt")
    torch.save(release.surgical({"v": release.regular_times(6, 1)}, [0, 0, 1, 1, 2, 2]), root / "surgical.pt")

    def opened(path: Path) -> None:
        archive = open_archive(path, verify=True)
        for index in archive.order():
            archive.video(index).features.sum()

    for name in ("packed", "surgical"):
        yield Kind(f"archive pt ({name})", root / f"{name}.pt", partial(opened, root / f"{name}.pt"), TORCH)
    torch.save({"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}, root / "head.pt")
    yield Kind("official head pt", root / "head.pt", partial(official.load_head, root / "head.pt"), TORCH)
    weights = {
        name: torch.from_numpy(array) for name, array in reference.random_weights(np.random.default_rng(0)).items()
    }
    settings = reference.architecture("causal", "1d_flat")
    torch.save({"model_state_dict": weights, "architecture": settings}, root / "encoder.pt")
    yield Kind("official encoder pt", root / "encoder.pt", partial(official.load, root / "encoder.pt"), TORCH)
    rows = [release.egoprocel_row("a.mp4", 0.0, 1.5, 0), release.egoprocel_row("a.mp4", 1.5, 2.5, 3, "pour oil")]
    release.write_csv(root / "manifest.csv", rows)
    yield Kind("manifest csv", root / "manifest.csv", lambda: read_manifests([root / "manifest.csv"]), mutated)


def _weights(root: Path) -> Iterator[Kind]:
    root.mkdir()
    weights = {"module.a.weight": torch.ones(2, 3), "module.a.bias": torch.zeros(2)}
    torch.save({"state_dict": weights, "best": np.float64(3.5), "epoch": 4}, root / "new.pt")
    torch.save({"state_dict": weights}, root / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(root / "arrays.npz", a=np.ones((2, 3)), b=np.zeros(2))
    arrays = {"params": {"Mixed_3b": {"kernel": np.ones((2, 3), np.float32)}}}
    (root / "arrays.ckpt").write_bytes(pickle.dumps(arrays))
    for name, file, mutate in (("new", "new.pt", TORCH), ("old", "old.pt", mutated), ("npz", "arrays.npz", NPZ)):
        yield Kind(f"weights ({name})", root / file, partial(read_tensors, root / file), mutate)
    yield Kind("weights (pickle)", root / "arrays.ckpt", partial(pickled_arrays, root / "arrays.ckpt"), mutated)


def _trees(root: Path) -> Iterator[Kind]:
    trees.assembly101(root / "assembly", frames=150)
    coarse = root / "assembly" / "coarse-annotations"
    yield Kind(
        "actions csv", coarse / "actions.csv", partial(coarse_annotations.read_actions, coarse / "actions.csv"), mutated
    )
    classes = coarse_annotations.read_actions(coarse / "actions.csv")
    taking = partial(coarse_annotations.read_takes, coarse, "train", classes, preparation.Problems())
    yield Kind("coarse list txt", coarse / "coarse_splits/train_coarse_assembly.txt", taking, mutated)
    labels = sorted((coarse / "coarse_labels").glob("assembly_*a00*.txt"))[0]
    yield Kind("coarse labels txt", labels, taking, mutated)
    steps = root / "steps.csv"
    steps.write_text("Start,End,Step\n0.5,3.25,1 crack the egg\n4,6.5,2 whisk, well\n")
    yield Kind("key-steps csv", steps, partial(egoprocel_csv.read_segments, steps), mutated)
    exo = root / "exo"
    takes.write_takes(exo)
    read = partial(egoexo4d_annotations.read_annotations, exo, 1)
    yield Kind("keysteps json", exo / "annotations/keystep_train.json", read, JSON)
    takes.write_benchmark(root / "bench/keystep_benchmark")
    read_benchmark = partial(egoexo4d_annotations.read_annotations, root / "bench")
    yield Kind("label mapping csv", root / "bench/keystep_benchmark/label_mapping.csv", read_benchmark, mutated)
    yield Kind("benchmark json", root / "bench/keystep_benchmark/keystep_segment_train.json", read_benchmark, JSON)
    listed = root / "exo/takes.json"
    known = [egoexo4d_annotations.Take(name, uid, "") for name, uid in zip(takes.TAKES, takes.UIDS, strict=True)]
    listed.write_text(json.dumps([{"take_uid": take.uid, "participant_uid": 7, "capture_uid": "c"} for take in known]))
    yield Kind("takes json", listed, lambda: egoexo4d_annotations.read_persons(exo, known), JSON)
