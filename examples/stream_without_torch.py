"""Latents of a feature file, a few frames at a time, where there is no PyTorch: numpy and onnxruntime are enough.

    keystep export runs/pjepa --out exported
    python examples/stream_without_torch.py exported features.npy latents.npy

``features.npy`` is (T, D_in) at the rate of ``step.json``. Frames behind the last whole call are left unanswered.
"""

import json
import sys

import numpy as np
import onnxruntime

folder, source, target = sys.argv[1:4]
with open(f"{folder}/step.json", encoding="utf-8") as file:  # noqa: PTH123
    step = json.load(file)
session = onnxruntime.InferenceSession(f"{folder}/step.onnx")
names = [output.name for output in session.get_outputs()]
state = {part["input"]: np.full(part["shape"], part["initial"], part["dtype"]) for part in step["state"]}
features = np.load(source).astype(np.float32)
assert np.isfinite(features).all(), "a NaN would stay in the state"
latents = []
for start in range(0, len(features) - step["frames"] + 1, step["frames"]):
    chunk = features[None, start : start + step["frames"]]  # (1, n, D_in): one stream
    outputs = dict(zip(names, session.run(names, {"features": chunk, **state}), strict=True))
    state = {part["input"]: outputs[part["output"]] for part in step["state"]}
    latents.append(outputs["latents"][0])
np.save(target, np.concatenate(latents))
