"""Every kind of file that keystep reads, with a small sound one and the reader that commands use."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import made_results
import numpy as np
import reference
import release
import takes
import torch
import trees
from clips import write_clip
from harness import Kind
from model_kinds import CLASSES, WIDTH, checkpoints, models, runs, streams
from mutations import JSON, LINES, NPY, NPZ, TORCH, mutated
from serve_kinds import served

from keystep.data.clips import TrimmedClip, read_clips, write_clips
from keystep.data.folder import open_dataset
from keystep.data.inspection import inspect_dataset
from keystep.data.mistakes import Mistake, read_mistakes, write_mistakes
from keystep.data.spans import Span
from keystep.data.store import FeatureStore
from keystep.data.tasks import find_tasks
from keystep.data.timeline import Timeline
from keystep.datasets import (
    assembly101_mistakes,
    coarse_annotations,
    egoexo4d_annotations,
    egoprocel_csv,
    preparation,
)
from keystep.datasets.registry import preparer
from keystep.errors import plain
from keystep.evals import report
from keystep.evals.headline import main_line
from keystep.evals.probe import LinearProbe
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.results import load_result
from keystep.evals.table import markdown_table
from keystep.exchange import export_annotations
from keystep.exchange.formats import format_of
from keystep.exchange.importing import read_annotations
from keystep.exchange.media import Media
from keystep.extraction.action_pool import ActionPoolConfig, ActionPooler, Fitted
from keystep.extraction.backbones.preprocessing import preprocessing
from keystep.extraction.backbones.weights import read_tensors
from keystep.extraction.config import ExtractionConfig
from keystep.extraction.folder import Writing
from keystep.extraction.labels import FrameLabels, SourceFrames
from keystep.extraction.loading import load_extractor
from keystep.extraction.video import open_video
from keystep.interop import official
from keystep.interop.official.archives import open_archive
from keystep.interop.official.manifests import read_manifests
from keystep.plugins import allow
from keystep.procedure import Order, learn_graph, read_graph, write_graph
from keystep.procedure.text import to_dot, to_mermaid
from keystep.reading import open_npy, read_json
from keystep.serve.annotations import AnnotationStore
from keystep.types import parse_rate

allow("toy_backbones:colours")


def all_kinds(root: Path) -> dict[str, Kind]:
    """By name, each with files of its own below ``root``."""
    makers = (_features, _annotation, _extracted, models, checkpoints, streams, runs, _results, _archives, _weights)
    makers += (_trees, _videos, _exchanged, _procedures, served)
    return {kind.name: kind for make in makers for kind in make(root / make.__name__.strip("_"))}


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
    labelled = root / "labelled"
    labelled.mkdir()
    store = AnnotationStore(labelled, {"a": 20, "b": 5})
    store.add_class("cut"), store.add_class("tie a knot")
    store.save("a", [Span(1, 3, "tie a knot"), Span(7, 9, "cut")], 0, "Ada"), store.save("b", [], 0, "")

    def labels() -> None:
        again = AnnotationStore(labelled, {"a": 20, "b": 5}, read_only=True)
        again.labels("a"), again.labels("b"), again.current("a")

    yield Kind("annotations jsonl", labelled / "annotations.jsonl", labels, LINES)
    yield Kind("clips json", root / "clips.json", lambda: read_clips(root / "clips.json", 3), JSON)


def _extracted(root: Path) -> Iterator[Kind]:
    folder, given = _folder(root), root / "given"
    source = SourceFrames(count=23, seconds=2.3, rate=Fraction(10), holes=((4, 1),))
    record = folder / "features/video1.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "complete"} | source.to_json()))
    shutil.copytree(folder / "groundTruth", given / "groundTruth")
    shutil.copy(folder / "mapping.txt", given)
    store = FeatureStore(folder, Timeline(rate=parse_rate(10)))
    writing = Writing(store, labels=FrameLabels(given))

    def labelled() -> None:
        writing.check_labels("video1"), writing.label("video1"), writing.lengths("video1")

    yield Kind("video json, labelled", record, labelled, JSON)
    yield Kind("seen npy, labelled", folder / "seen/video1.npy", labelled, NPY)
    yield Kind("labels txt, taken along", given / "groundTruth/video1.txt", labelled, mutated)
    (folder / "labels.json").write_text(json.dumps({"rate": None, "sha256": "0" * 64}))
    along = partial(FrameLabels(given).copy_to, folder)
    yield Kind("labels json", folder / "labels.json", along, JSON)
    settings = {
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.2, 0.2, 0.2],
        "resample": 3,
    }
    path = root / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    yield Kind("preprocessor json", path, lambda: preprocessing(read_json(path), str(path)), JSON)
    Fitted(ActionPooler(8, 2, ActionPoolConfig(heads=1)), {"split": "1"}).save(root / "pooler")
    yield Kind("pooler json", root / "pooler/config.json", partial(Fitted.load, root / "pooler"), JSON)


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
            torch.from_numpy(archive.video(index).features).sum()

    for name in ("packed", "surgical"):
        yield Kind(f"archive pt ({name})", root / f"{name}.pt", partial(opened, root / f"{name}.pt"), TORCH)
    index = release.write_lemon(root / "lemon", {"a": 5, "b": 4, "c": 6})
    yield Kind("archive pt (sharded)", index, partial(opened, index), TORCH)
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
    yield Kind("weights (pickle)", root / "arrays.ckpt", partial(read_tensors, root / "arrays.ckpt"), mutated)


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
    known = [
        egoexo4d_annotations.AnnotatedTake(name, uid, "") for name, uid in zip(takes.TAKES, takes.UIDS, strict=True)
    ]
    listed.write_text(json.dumps([{"take_uid": take.uid, "participant_uid": 7, "capture_uid": "c"} for take in known]))
    yield Kind("takes json", listed, lambda: egoexo4d_annotations.read_persons(exo, known), JSON)


VIDEOS = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "ts": "mpeg2video", "webm": "libvpx", "mov": "mjpeg"}
"""Endings and codecs of the videos that are damaged."""


def _videos(root: Path) -> Iterator[Kind]:
    if find_spec("av") is None:
        return
    root.mkdir()
    extractor = load_extractor(ExtractionConfig(backbone="toy_backbones:colours", rate=Fraction(10)), None, "cpu")

    def watched(path: Path) -> None:
        video = open_video(path)
        for _ in extractor.stream(video.frames(), batch=8):
            pass
        for _ in open_video(path).at([Fraction(0), Fraction(1, 2), Fraction(1, 5)]):
            pass
        for line in (*video.damage, *video.notes):
            assert plain(line) == line and "\n" not in line, repr(line)

    for ending, codec in VIDEOS.items():
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        path = root / f"clip.{ending}"
        write_clip(path, frames=16, height=32, width=32, codec=codec, keyframe_every=6, pixel_format=pixels)
        yield Kind(f"video {ending} ({codec})", path, partial(watched, path), mutated)


def _procedures(root: Path) -> Iterator[Kind]:
    """The graph of a procedure, and mistakes in its runs."""
    folder = _folder(root / "data")
    video = open_dataset(folder)
    write_mistakes(folder, "video1", [Mistake(2, 5, "swapped", "cut"), Mistake(9, 9, "omitted", "tie a knot")])
    yield Kind("mistakes csv", folder / "mistakes/video1.csv", partial(read_mistakes, video, "video1"), mutated)
    runs = [[Span(0, 5, "bring"), Span(5, 9, "cut, twice"), Span(9, 12, "tie")]] * 12
    write_graph(root / "graph.json", learn_graph(runs, 2.0, source="made"))
    yield Kind("procedure json", root / "graph.json", partial(_asked, root / "graph.json"), JSON)
    labels = root / "labels.csv"
    labels.write_text("0,9,attach,cabin,chassis,correct,\n9,20,attach,wheel,cabin, mistake ,wrong order\n")
    yield Kind("mistake labels csv", labels, partial(assembly101_mistakes.read_mistake_labels, labels), mutated)
    recipes = trees.captaincook4d(root / "recipes")
    for name in ("complete_step_annotations", "error_annotations", "step_idx_description"):
        path = recipes / "annotations/annotation_json" / f"{name}.json"
        yield Kind(f"{name} json", path, partial(preparer("captaincook4d", {}).survey, recipes), JSON)


def _asked(path: Path) -> None:
    order = Order(graph := read_graph(path))
    order.score([step.name for step in graph.steps[:5]])
    to_dot(graph), to_mermaid(graph)


def _exchanged(root: Path) -> Iterator[Kind]:
    """Files of other annotation programs, as `keystep annotations import` reads them before it writes."""
    media = Media(open_dataset(_folder(root)), None, 25)
    formats = {"labelstudio": JSON, "cvat": mutated, "webvtt": mutated, "csv": mutated, "mstcn": mutated}
    for kind, damage in (formats | ({"elan": mutated} if find_spec("pympi") else {})).items():
        done = export_annotations(media.folder, kind, root / kind, names=["video1"], frame_rate=25)
        path = next(path for path in done.paths if path.suffix == format_of(kind).ending and path.name != "mapping.txt")
        yield Kind(f"annotations ({kind})", path, partial(read_annotations, media, [path], kind), damage)
