"""Small downloaded trees in the exact published layouts: a helper of tests."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 2048
RECORDINGS = tuple(
    f"nusar-2021_action_both_90{10 + number}-a{number:02d}_90{10 + number}_user_id_2021-02-01_1537{number:02d}"
    for number in range(6)
)
ACTIONS = ("attach cabin", "attach arm connector", "inspect toy", "screw chassis")
COOKED = {"1": "Pour-Pour 1 egg", "3": "Coat -Coat a cup", "7": "Pour-Pour 1 egg", "9": "Serve"}
SPILT = {"tag": "Technique Error", "description": "spilt"}
LATE = {"tag": "Order Error", "description": "too late"}
COOKING: dict[str, list[tuple[int, float, float, list[dict[str, str]]]]] = {
    "1_7": [(3, 1.2, 4.0, []), (1, 6.5, 9.0, []), (9, 9.0, 12.0, [])],
    "1_10": [(3, 0.0, 3.0, []), (1, 3.0, 6.0, [])],
    "1_28": [(3, 0.0, 3.0, [SPILT]), (1, 3.0, 6.0, [])],
    "2_3": [(7, 0.0, 5.0, []), (9, 4.0, 8.0, [])],
    "2_30": [(7, 2.0, 5.5, [SPILT, LATE]), (9, -1.0, -1.0, [{"tag": "Missing Step", "description": ""}])],
}
COOKING_SPLIT = {"train": ["1_7", "1_28"], "val": ["1_10"], "test": ["2_3", "2_30"]}
MakeTree = Callable[..., Path]


def frame_features(recording: str, view: str, frames: Sequence[int]) -> np.ndarray:
    """(n, 2048) float32: the recording's number, the view's, the frame's, and noise that the frame's action shifts."""
    rows = np.random.default_rng(0).normal(size=(len(frames), WIDTH)).astype(np.float32)
    rows[:, 0] = RECORDINGS.index(recording)
    rows[:, 1] = int(view.split("_")[0][1:]) if view.startswith("C") else 0
    rows[:, 2] = frames
    return rows


def write_views(root: Path, views: Sequence[str], lengths: Mapping[str, int], first: int = 1) -> None:
    """``TSM_features/<view>/data.mdb`` with frames ``first`` to ``first + length - 1`` of each recording."""
    import lmdb

    for view in views:
        folder = root / "TSM_features" / view
        folder.mkdir(parents=True)
        environment = lmdb.open(str(folder), map_size=1 << 28, sync=False)
        with environment.begin(write=True) as transaction:
            for recording, length in lengths.items():
                frames = range(first, first + length)
                for frame, row in zip(frames, frame_features(recording, view, frames), strict=True):
                    transaction.put(f"{recording}/{view}/{view}_{frame:010d}.jpg".encode(), row.tobytes())
        environment.close()


def write_arrays(root: Path, views: Sequence[str], lengths: Mapping[str, int]) -> None:
    """``TSM_features/<recording>/<view>/features.npy``, (2048, T), frame 0 first."""
    for view in views:
        for recording, length in lengths.items():
            folder = root / "TSM_features" / recording / view
            folder.mkdir(parents=True)
            np.save(folder / "features.npy", frame_features(recording, view, range(length)).T)


def write_coarse(root: Path, segments: Mapping[str, Sequence[tuple[Any, ...]]], parts: Mapping[str, str]) -> Path:
    """``coarse-annotations`` with ``segments`` of sequences (start, end, action) and each one's part."""
    folder = root / "coarse-annotations"
    (folder / "coarse_labels").mkdir(parents=True)
    (folder / "coarse_splits").mkdir()
    rows = [
        f"{label},0,{label},{name},{name.split()[0]},{name.split(maxsplit=1)[1]}" for label, name in enumerate(ACTIONS)
    ]
    header = "action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls"
    (folder / "actions.csv").write_text("\n".join([header, *rows]) + "\n")
    for part in ("train", "val", "test"):
        for kind in ("assembly", "disassembly"):
            names = [name for name, own in parts.items() if own == part and name.startswith(f"{kind}_")]
            toy = "" if part == "test" else "\ta30\tsuv"
            lines = [f"{name}.txt\tnotshared{toy}\n" for name in names]
            (folder / "coarse_splits" / f"{part}_coarse_{kind}.txt").write_text("".join(lines))
    for name, own in segments.items():
        withheld = parts[name] == "test"
        spelt = name.replace("disassembly", "disassebly") if withheld else name
        lines = [f"{start:09d}\t{end:09d}\t" + ("" if withheld else f"{action}\t") for start, end, action in own]
        (folder / "coarse_labels" / f"{spelt}.txt").write_text("\n".join(lines))
    return folder


def assembly101(root: Path, frames: int = 150) -> dict[str, list[tuple[int, int, str]]]:
    """Annotations of six recordings, two sequences each: four train, one is the validation's, one the test's."""
    rng = np.random.default_rng(1)
    segments: dict[str, list[tuple[int, int, str]]] = {}
    parts = {}
    for number, recording in enumerate(RECORDINGS):
        part = "train" if number < 4 else ("val" if number == 4 else "test")
        for kind, start in (("assembly", 5), ("disassembly", frames // 2)):
            edges = [start, start + 13, start + 30, start + frames // 2 - 10]
            actions = [ACTIONS[label] for label in rng.integers(len(ACTIONS), size=3)]
            segments[f"{kind}_{recording}"] = list(zip(edges[:-1], edges[1:], actions, strict=True))
            parts[f"{kind}_{recording}"] = part
    write_coarse(root, segments, parts)
    return segments


def mstcn(
    root: Path, classes: Sequence[str], videos: int = 6, splits: int = 2, width: int = 16, name: str = "P0{}.cam01_v1"
) -> Path:
    """A data set in the MS-TCN layout: (D, T) arrays, lists that end in .txt, no newline at the end of a file."""
    rng = np.random.default_rng(0)
    for part in ("features", "groundTruth", "splits"):
        (root / part).mkdir(parents=True)
    (root / "mapping.txt").write_text("\n".join(f"{label} {name}" for label, name in enumerate(classes)))
    names = [name.format(number, number // 2) for number in range(videos)]
    looks = rng.normal(size=(len(classes), width))
    for number, name in enumerate(names):
        ids = np.repeat(rng.integers(len(classes), size=8), 12)[: 80 + number]
        features = looks[ids] + 0.3 * rng.normal(size=(len(ids), width))
        np.save(root / "features" / f"{name}.npy", features.T.astype(np.float32))
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(classes[label] for label in ids))
    for split in range(1, splits + 1):
        test = {(split + shift) % videos for shift in range(2)}
        for part, inside in (("train", False), ("test", True)):
            chosen = [f"{name}.txt" for number, name in enumerate(names) if (number in test) == inside]
            (root / "splits" / f"{part}.split{split}.bundle").write_text("\n".join(chosen))
    return root


PROCEDURE = ("background", "crack the egg", "whisk", "pour oil")
RECORDED = ("S07_Brownie_7150991-1431", "01.tent.090617.gopro", "Head_5", "0003", "OP01-R03", "OP02-R03")


def fact_tree(root: Path, final_newline: bool = True) -> Path:
    """FACT's tree as its loader reads it: (T, 2048) arrays here 7 wide, names with dots, the background first."""
    data = root / "data" / "egoprocel"
    for part in ("features", "groundTruth"):
        (data / part).mkdir(parents=True)
    end = "\n" if final_newline else ""
    (data / "mapping.txt").write_text("\n".join(f"{i} {name}" for i, name in enumerate(PROCEDURE)) + end)
    rng = np.random.default_rng(0)
    for index, name in enumerate(RECORDED):
        slots = 60 + 3 * index
        np.save(data / "features" / f"{name}.npy", rng.normal(size=(slots, 7)).astype(np.float32))
        labels = [PROCEDURE[slot // 10 % 4] for slot in range(slots)]
        (data / "groundTruth" / f"{name}.txt").write_text("\n".join(labels) + end)
    (data / "split1.train").write_text("\n".join(RECORDED[:4]) + end)
    (data / "split1.test").write_text("\n".join(RECORDED[4:]) + end)
    return root / "data"


def captaincook4d(root: Path) -> Path:
    """Annotations and omnivore features of five recordings of two recipes."""
    complete, errors = {}, []
    for name, steps in COOKING.items():
        own: list[dict[str, Any]] = [
            {"step_id": step, "start_time": start, "end_time": end, "description": COOKED[str(step)]}
            for step, start, end, _ in steps
        ]
        activity = {"activity_id": int(name[0]), "activity_name": f"Recipe {name[0]}", "person_id": 3, "environment": 8}
        flags = [{**one, "has_errors": bool(found)} for one, (*_, found) in zip(own, steps, strict=True)]
        complete[name] = {"recording_id": name, **activity, "steps": flags}
        tagged = [{**one, **({"errors": found} if found else {})} for one, (*_, found) in zip(own, steps, strict=True)]
        errors.append({"recording_id": name, "activity_id": 1, "is_error": True, "step_annotations": tagged})
    files = {
        "annotation_json/complete_step_annotations.json": complete,
        "annotation_json/error_annotations.json": errors,
        "annotation_json/step_idx_description.json": COOKED,
        "data_splits/recordings_data_split_combined.json": COOKING_SPLIT,
    }
    for path, content in files.items():
        (root / "annotations" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "annotations" / path).write_text(json.dumps(content, indent=4))
    (root / "features" / "omnivore").mkdir(parents=True)
    for number, name in enumerate(COOKING):
        features = np.full((12, 5), number, dtype=np.float32)
        np.savez(root / "features" / "omnivore" / f"{name}_360p.mp4_1s_1s.npz", features)
    return root
