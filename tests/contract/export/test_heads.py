"""Heads in exported programs: causal ones step by step with their model, the others over whole videos."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.errors import InputError
from keystep.export import ExportedStep, export_step, export_video
from keystep.heads import Head, build_head, head_config
from keystep.stream import Stream

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'; make test-all has it")

MakeModel = Callable[..., keystep.PJEPA]
MODEL = {"kind": "block_causal", "block": 2, "window": 6}
CAUSAL = {
    "linear": ("linear", {"background": 0}),
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 3}),
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2, "causal": True}),
    "context": (
        "context",
        {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11, "causal": True},
    ),
}
OFFLINE = {name: (kind, {**settings, "causal": False}) for name, (kind, settings) in list(CAUSAL.items())[2:]}


def make_head(kind: str, settings: dict, width: int = 16) -> Head:
    head = build_head(head_config(kind, settings), width, 3, seed=0).eval()
    head.standardise.mean.normal_(generator=torch.Generator().manual_seed(0))
    return head


def features(frames: int) -> torch.Tensor:
    return torch.randn(1, frames, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_every_causal_head_steps_with_its_model_from_the_start_and_from_a_stream(
    make_model: MakeModel, name: str
) -> None:
    model, head, x = make_model(MODEL), make_head(*CAUSAL[name]), features(120)
    step, expected = ExportedStep(model, 6, 1, head), head.probabilities(model.encode(x))
    stream = Stream(model, head)
    stream.push(x[0, :36])
    for begin, state in ((0, step.initial()), (36, step.taken_over(stream.position))):
        found = []
        for chunk in x[:, begin:].split(6, dim=1):
            _, probabilities, *rest = step(chunk, *state)
            state = tuple(rest)
            found.append(probabilities)
        torch.testing.assert_close(torch.cat(found, dim=1), expected[:, begin:], atol=1e-5, rtol=0)
    state[0].zero_()
    torch.testing.assert_close(step(x[:, :6], *state)[1], expected[:, :6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_causal_head_is_exported_with_its_model(make_model: MakeModel, tmp_path: Path, name: str) -> None:
    """Before the folder is put in place, each file is compared with `keystep.stream`."""
    model, head = make_model(MODEL, depth=1), make_head(*CAUSAL[name])
    record = export_step(model, tmp_path / "out", head=head, streams=2)
    assert record["frames"] == (6 if name == "attentive" else 2)
    assert record["files"]["step.onnx"]["probabilities"]["largest_difference"] < 1e-5
    names = [part["input"] for part in record["state"]]
    assert len(set(names)) == len(names) and any(part.startswith("head.") for part in names) == (name != "linear")


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize(
    ("pattern", "fields"),
    [
        ({"kind": "bidirectional"}, {}),
        ({"kind": "bidirectional", "window": 9}, {"tau": 2.5, "readout_dim": 24}),  # bands do not depend on the window
    ],
    ids=["plain", "window and bands"],
)
def test_heads_that_see_the_future_are_exported_over_whole_videos(
    make_model: MakeModel, tmp_path: Path, name: str, pattern: dict, fields: dict
) -> None:
    model = make_model(pattern, depth=1, **fields)
    head = make_head(*OFFLINE[name], width=model.latent_dim())
    record = export_video(model, tmp_path / "out", head=head, torch_program=True, rate="5")
    assert json.loads((tmp_path / "out" / "video.json").read_text()) == record
    session = onnxruntime.InferenceSession(tmp_path / "out" / "video.onnx")
    for frames in (65, 333):
        x = features(frames)
        latents, probabilities = session.run(None, {"features": x.numpy()})
        right = model.encode(x)
        np.testing.assert_allclose(latents, right.numpy(), atol=1e-5)
        np.testing.assert_allclose(probabilities, head.probabilities(right).numpy(), atol=1e-5)


def test_steps_that_a_head_does_not_have_are_refused_in_one_line(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="this mstcn head reads the whole video, so it has no streaming step"):
        ExportedStep(make_model(MODEL), 2, 1, make_head(*OFFLINE["mstcn"]))
    with pytest.raises(InputError, match=r"frames must be a multiple of 6 for a head with chunks of 3, not 4"):
        ExportedStep(make_model(MODEL), 4, 1, make_head(*CAUSAL["attentive"]))
