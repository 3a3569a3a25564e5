"""Latents and steps of a feature file, a few frames at a time, without PyTorch: numpy and onnxruntime are enough.

    keystep export runs/pjepa --out exported --window 512 --head results/heads/pjepa-causal-seed0.safetensors
    python examples/stream_without_torch.py exported features.npy latents.npy steps.txt

``features.npy`` is (T, D_in) or (D_in, T) at the rate of ``step.json``. Frames after the last whole call are left
unanswered. ``steps.txt`` has the class of each frame on a line of its own; without ``--head`` there are latents only.
"""

import json
import sys

import numpy as np
import onnxruntime

folder, source, target, *steps = sys.argv[1:]
with open(f"{folder}/step.json", encoding="utf-8") as file:  # noqa: PTH123
    step = json.load(file)
session = onnxruntime.InferenceSession(f"{folder}/step.onnx")
names = [output.name for output in session.get_outputs()]
if steps and "probabilities" not in names:
    sys.exit(f"{folder}: exported without --head, so there are no steps; leave {steps[0]} out")
state = {part["input"]: np.full(part["shape"], part["initial"], part["dtype"]) for part in step["state"]}
features = np.load(source).astype(np.float32)
if features.shape[1] != step["features"]["shape"][2]:
    features = features.T  # as MS-TCN's folders have it
assert np.isfinite(features).all(), "a NaN would stay in the state"
latents, probabilities = [], []
for start in range(0, len(features) - step["frames"] + 1, step["frames"]):
    chunk = features[None, start : start + step["frames"]]  # (1, n, D_in): one stream
    outputs = dict(zip(names, session.run(names, {"features": chunk, **state}), strict=True))
    state = {part["input"]: outputs[part["output"]] for part in step["state"]}
    latents.append(outputs["latents"][0])
    if steps:
        probabilities.append(outputs["probabilities"][0])  # (n, C)
np.save(target, np.concatenate(latents))
if steps:
    with open(steps[0], "w", encoding="utf-8") as file:  # noqa: PTH123
        file.writelines(f"{step['classes'][best]}\n" for best in np.concatenate(probabilities).argmax(1))
