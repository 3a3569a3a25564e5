"""A model and a head on one stream: the offline answers, saved and resumed to the same bits with any causal head."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.heads import Affine, Head, build_head, head_config, linear_head
from keystep.loading import check_head
from keystep.stream import LiveSteps, Smoothing

MakeModel = Callable[..., keystep.PJEPA]
PATTERNS = [
    {"kind": "causal", "window": 7},
    {"kind": "block_causal", "block": 4},
    {"kind": "causal", "window": 5, "stride": 3, "memory": 17},
]
CAUSAL = {
    "linear": ("linear", {}),
    "linear with background": ("linear", {"background": 1}),
    "attentive": ("attentive", {"dim": 16, "heads": 2, "window": 9, "chunk": 3}),
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2, "causal": True}),
    "context": (
        "context",
        {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11, "causal": True},
    ),
}
OFFLINE = {
    "mstcn": ("mstcn", {"maps": 8, "layers": 3, "refinements": 1, "refinement_layers": 2}),
    "context": ("context", {"dim": 16, "stages": 2, "layers": 2, "window": 4, "stride": 3, "memory": 11}),
}


BANDS = {"readout_dim": 24, "tau": 2.5}


def make_head(kind: str, settings: dict, width: int = 16) -> Head:
    head = build_head(head_config(kind, settings), width, 3, seed=0).eval()
    head.names = ("wait", "cut", "tie")
    return head


def features(frames: int = 61) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 5)).astype(np.float32)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("fields", [{}, BANDS], ids=["plain", "bands"])
def test_results_are_the_offline_ones_and_hold_latents_and_names_of_the_same_frames(
    make_model: MakeModel, name: str, pattern: dict, fields: dict
) -> None:
    model, frames = make_model(pattern, **fields), features()
    head = make_head(*CAUSAL[name], width=model.latent_dim())
    stream = keystep.Stream(model, head)
    results = [stream.push(frames[start : start + 5]) for start in range(0, 61, 5)]
    now = stream.provisional()
    results.append(stream.flush())
    latents = model.encode(torch.from_numpy(frames)[None])
    for result in results:
        assert len(result.latents) == len(result.probabilities) == len(result.labels) == len(result)  # type: ignore[arg-type]
    assert [result.first for result in results] == np.cumsum([0, *map(len, results[:-1])]).tolist()
    torch.testing.assert_close(torch.cat([r.latents for r in results]), latents[0], atol=1e-5, rtol=0)
    found = torch.cat([r.probabilities for r in results])  # type: ignore[misc]
    torch.testing.assert_close(found, head.probabilities(latents)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(now.probabilities, results[-1].probabilities, atol=1e-6, rtol=0)
    assert [label for r in results for label in r.labels] == [head.name(int(i)) for i in head.choose(found)]
    records = [record for result in results for record in result.to_records()]
    assert [record["frame"] for record in records] == list(range(61)) and set(records[0]) == {
        "frame",
        "label",
        "probability",
    }


@pytest.mark.parametrize("at", [0, 1, 29])
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_saved_stream_goes_on_to_the_same_bits(
    make_model: MakeModel, tmp_path: Path, name: str, pattern: dict, at: int
) -> None:
    model, head, frames = make_model(pattern), make_head(*CAUSAL[name]), features()
    stream = keystep.Stream(model, head)
    for start in range(0, at, 3):
        stream.push(frames[start : min(at, start + 3)])
    stream.save(tmp_path / "stream")
    again = keystep.Stream.resume(tmp_path / "stream", make_model(pattern), make_head(*CAUSAL[name]))
    for start in range(at, 61, 4):
        one, two = stream.push(frames[start : start + 4]), again.push(frames[start : start + 4])
        assert one.first == two.first and torch.equal(one.latents, two.latents)
        assert torch.equal(one.probabilities, two.probabilities)  # type: ignore[arg-type]
    assert torch.equal(stream.flush().probabilities, again.flush().probabilities)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CAUSAL)
def test_live_steps_with_any_causal_head_go_on_with_the_same_readings(
    make_model: MakeModel, tmp_path: Path, name: str
) -> None:
    model, head, frames = make_model(PATTERNS[0]), make_head(*CAUSAL[name]), features()
    one, two = (LiveSteps(model, head, Timeline(rate=2), Smoothing(1.0, 1.0)) for _ in range(2))  # type: ignore[arg-type]
    one.feed(frames[:25])
    one.save(tmp_path / "state")
    two.resume(tmp_path / "state")
    first, second = (live.feed(frames[25:]) + live.close() for live in (one, two))
    assert [(r.frame, r.time, r.step, r.probability, r.delay) for r in first] == [
        (r.frame, r.time, r.step, r.probability, r.delay) for r in second
    ]


@pytest.mark.parametrize("name", OFFLINE)
def test_heads_that_see_the_future_are_refused_in_one_line(make_model: MakeModel, name: str) -> None:
    with pytest.raises(InputError, match=f"this {name} head reads the whole video; train one with causal=true") as line:
        keystep.Stream(make_model(PATTERNS[0]), make_head(*OFFLINE[name]))
    assert "\n" not in str(line.value)


def test_a_head_of_offline_latents_that_have_other_bands_is_refused_in_one_line(make_model: MakeModel) -> None:
    model = make_model({"kind": "bidirectional"}, live_attention=PATTERNS[0], **BANDS)
    head = make_head(*CAUSAL["mstcn"], width=model.latent_dim())
    head.origin = {"mode": "offline"}
    assert check_head(head, model, live=False) == []
    with pytest.raises(InputError, match="this head was fitted on offline latents, which see the future; take the"):
        check_head(head, model)
    with pytest.raises(InputError, match=rf"the head expects latents of width {head.width}; the model has"):
        keystep.Stream(model, head)


def test_a_stream_without_a_head_gives_latents(make_model: MakeModel, tmp_path: Path) -> None:
    model, frames = make_model(PATTERNS[0]), features()
    stream = keystep.Stream(model)
    result = stream.push(torch.from_numpy(frames))
    torch.testing.assert_close(result.latents, model.encode(torch.from_numpy(frames)), atol=1e-5, rtol=0)
    assert result.probabilities is None and result.labels == [] and result.to_records()[2] == {"frame": 2}
    stream.save(tmp_path / "stream")
    assert keystep.Stream.resume(tmp_path / "stream", model).position.frames == 61
    stream.reset()
    assert stream.push(frames[:3]).first == 0


def test_an_error_leaves_the_stream_as_it_was_and_another_head_is_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model, head, frames = make_model(PATTERNS[0]), make_head(*CAUSAL["mstcn"]), features()
    stream, other = keystep.Stream(model, head), keystep.Stream(model, head)
    stream.push(frames[:9])
    broken = frames[9:20].copy()
    broken[4, 1] = np.nan
    with pytest.raises(InputError, match="frame 13 of stream 0 holds NaN"):
        stream.push(broken)
    with pytest.raises(InputError, match=r"features have shape \(5,\)"):
        stream.push(frames[0])
    other.push(frames[:9])
    assert torch.equal(stream.push(frames[9:]).latents, other.push(frames[9:]).latents)
    stream.save(tmp_path / "stream")
    changed = make_head("mstcn", {**CAUSAL["mstcn"][1], "maps": 16})
    with pytest.raises(InputError, match="stream: the state of another head"):
        keystep.Stream.resume(tmp_path / "stream", model, changed)
    with pytest.raises(InputError, match="stream: the state of a model and a head; resume it with exactly these"):
        keystep.Stream.resume(tmp_path / "stream", model)
    with pytest.raises(InputError, match="the head expects latents of width 3; the model has 16"):
        keystep.Stream(model, linear_head(Affine(torch.zeros(2, 3), torch.zeros(2))))
