"""EgoExo4D's keysteps as its downloader leaves them, small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

UIDS = [f"{index}7cd56fc-6b68-4c7f-814b-81545484dd2d" for index in range(4)]
TAKES = ["georgiatech_covid_07_6", "uniandes_bike_01_2", "iiith_cooking_59_4", "nus_covidtest_01_1"]
STEPS = {843: "Unbox package", 824: "Read the instructions", 1567: "Stir the mixture"}
LABELS = {1567: 0, 824: 1, 843: 2}
SEGMENTS = [(0.85598, 33.20377, 843), (33.204, 56.61153, 824), (60.0, 60.1, 843)]


def segment(take: int, start: float, end: float, step: int, part: str) -> dict[str, Any]:
    folder = {"test_unannotated": "test"}.get(part, part)
    name = f"{folder}/{TAKES[take]}/start{start}_end{end}_aria02_214-1.mp4"
    known = {"step_unique_id": step, "label_id": LABELS[step], "step_name": STEPS[step]}
    return {
        "segment_name_list": [name],
        "ego_segment_name": name,
        "take_uid": UIDS[take],
        "take_name": TAKES[take],
        "start_time": start,
        "end_time": end,
        **(known if part != "test_unannotated" else {}),
    }


def write_takes(root: Path) -> None:
    """``keystep_train.json`` and ``keystep_val.json`` as the documentation's sample has them."""
    (root / "annotations").mkdir(parents=True)
    for part, takes in (("train", (0, 1)), ("val", (2,))):
        annotations = {
            UIDS[take]: {
                "take_uid": UIDS[take],
                "take_name": TAKES[take],
                "scenario": "Covid-19 Rapid Antigen Test",
                "annotation_meta": {"annotator_id": 5792777457490871},
                "segments": [
                    {
                        **{"start_time": start, "end_time": end, "step_id": 31, "step_name": STEPS[step]},
                        **{"step_description": "", "is_essential": True, "step_unique_id": step},
                    }
                    for start, end, step in SEGMENTS
                ],
            }
            for take in takes
        }
        taxonomy = {"Covid-19 Rapid Antigen Test": {"0": {"id": 0, "is_leafnode": False, "parent_id": None}}}
        record = {"annotations": annotations, "taxonomy": taxonomy, "vocabulary": {str(k): v for k, v in STEPS.items()}}
        (root / "annotations" / f"keystep_{part}.json").write_text(json.dumps(record))


def write_benchmark(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = "".join(f"{label},{step},{STEPS[step]},cooking\n" for step, label in LABELS.items())
    (folder / "label_mapping.csv").write_text("label_id,step_unique_id,step_name,scenario_name\n" + rows)
    for part, takes in (("train", (0, 1)), ("val", (2,)), ("test_unannotated", (3,))):
        segments = [segment(take, *bounds, part) for take in takes for bounds in SEGMENTS]
        record = {"date": "04/02/2024", "description": "", "splits": part, "segments": segments}
        (folder / f"keystep_segment_{part}.json").write_text(json.dumps(record))


def write_features(root: Path, suffix: str = "_aria02_rgb.pt", transposed: bool = False) -> None:
    """The official names; cameras of the others' view lie beside the egocentric one."""
    folder = root / "features" / "omnivore_video"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, uid in enumerate(UIDS):
        array = torch.from_numpy(rng.normal(size=(130 + index, 6)).astype(np.float32))
        torch.save(array.T.contiguous() if transposed else array, folder / f"{uid}{suffix}")
        torch.save(torch.zeros(130, 6), folder / f"{uid}_cam01_0.pt")


def egoexo4d(root: Path) -> Path:
    """Annotations, the benchmark's files, features."""
    write_takes(root)
    write_benchmark(root / "keystep_benchmark")
    write_features(root)
    return root
