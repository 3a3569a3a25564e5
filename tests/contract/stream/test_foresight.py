"""What is foreseen on a stream is what is foreseen on the whole video, and `keystep stream --foresight` prints it."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.cli.live_view import LiveView
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.evals.forecasting import fit_forecaster
from keystep.foresight import Forecaster
from keystep.heads import Affine, LinearHead, linear_head
from keystep.loading import check_head
from keystep.stream import LiveSteps, Reading
from keystep.terminal import Terminal

MakeModel = Callable[..., keystep.PJEPA]
Run = Callable[..., tuple[int, str, str]]
NAMES = ("wait", "cut", "tie")
TIMELINE = Timeline(rate=Fraction(2))
CAUSAL = {"kind": "causal", "window": 7}
BLOCKS = {"kind": "block_causal", "block": 4}


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    rng = np.random.default_rng(0)

    labels = [np.repeat([0, 1, 2], rng.integers(5, 20, 3)) for _ in range(7)]
    frames = [(rng.normal(size=(len(ids), 16)) + ids[:, None]).astype(np.float32) for ids in labels]
    return fit_forecaster(frames[:5], labels[:5], frames[5:], labels[5:], names=NAMES, rate=2, horizons=(1.0, 3.0))


@pytest.fixture
def head() -> LinearHead:
    generator = torch.Generator().manual_seed(3)
    return linear_head(Affine(torch.randn(3, 16, generator=generator), torch.zeros(3)), names=NAMES)


def features(frames: int = 30) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(frames, 5)).astype(np.float32)


def assert_foreseen(readings: list[Reading], forecaster: Forecaster, latents: np.ndarray) -> None:
    whole = forecaster.forecast(latents)
    for index, reading in enumerate(readings):
        found, expected = reading.forecast, whole.at(index)
        assert found is not None
        assert found.later == pytest.approx(expected.later, abs=1e-5)
        assert found.following == pytest.approx(expected.following, abs=1e-5)
        for one, other in zip(found.start + found.remaining, expected.start + expected.remaining, strict=True):
            assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("pattern", [CAUSAL, BLOCKS], ids=str)
@pytest.mark.parametrize("size", [1, 7, 30])
def test_forecasts_on_a_stream_are_those_of_the_whole_video(
    make_model: MakeModel, head: LinearHead, forecaster: Forecaster, pattern: dict, size: int
) -> None:
    model, frames = make_model(pattern), features()
    live, readings = LiveSteps(model, head, TIMELINE, forecaster=forecaster), []
    for start in range(0, len(frames), size):
        readings += live.feed(frames[start : start + size])
    readings += live.close()
    assert len(readings) == 30
    assert_foreseen(readings, forecaster, model.encode(frames).numpy())


def test_after_a_restart_the_elapsed_time_begins_again(
    make_model: MakeModel, head: LinearHead, forecaster: Forecaster
) -> None:
    model, frames = make_model(CAUSAL), features(12)
    live = LiveSteps(model, head, TIMELINE, on_gap="restart", forecaster=forecaster)
    readings = live.feed(frames, [*np.arange(6) / 2, *(20 + np.arange(6) / 2)])
    assert_foreseen(readings[6:], forecaster, model.encode(frames[6:]).numpy())


def test_a_forecaster_of_other_latents_is_refused(
    make_model: MakeModel, head: LinearHead, forecaster: Forecaster
) -> None:
    model = make_model(CAUSAL)
    with pytest.raises(InputError, match="latents of width 16 at 4 Hz; the stream has 16 at 2 Hz"):
        LiveSteps(model, head, TIMELINE, forecaster=replace(forecaster, rate=4.0))
    with pytest.raises(InputError, match="was fitted on another model"):
        check_head(replace(forecaster, origin={"weights": "0"}), model)


def test_the_view_shows_the_next_step_and_the_time_left(
    make_model: MakeModel, head: LinearHead, forecaster: Forecaster
) -> None:
    live = LiveSteps(make_model(CAUSAL), head, TIMELINE, forecaster=forecaster)
    console = Terminal(record=True, width=100)
    view = LiveView(console, "bench", head, forecaster)
    view.show(live.feed(features(4)), 0.001)
    console.print(view.render())
    said = console.export_text()
    assert "next step: " in said and "left: 0:" in said


def test_the_command_prints_what_is_foreseen(
    shared_mstcn: Path, make_model: MakeModel, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shell: Run = request.getfixturevalue("keystep")
    model = make_model(CAUSAL, input_dim=6)
    model.save_pretrained(tmp_path / "model")
    data, out = keystep.open_dataset(shared_mstcn, source_rate=1), tmp_path / "out"
    config = {"probe": {"penalties": [0.01]}}
    keystep.evaluate(data, {"a": tmp_path / "model"}, task="anticipate", quick=True, config=config, out=out)
    video, name = str(shared_mstcn / "features" / "video.4.npy"), "a-causal-seed0.safetensors"
    status, said, error = shell(
        *("stream", str(tmp_path / "model"), video, "--source-rate", "1"),
        *("--head", str(out / "heads" / name), "--foresight", str(out / "foresight" / name)),
    )
    assert status == 0, error
    lines = [json.loads(line)["foresight"] for line in said.splitlines()]
    assert len(lines) == 40
    loaded = keystep.foresight.load_forecaster(out / "foresight" / name)
    whole = loaded.records(loaded.forecast(model.encode(data.vectors("video.4")).numpy()))
    assert [line["next"] for line in lines] == [record["next"] for record in whole]
    assert [line["remaining"] for line in lines] == pytest.approx([r["remaining"] for r in whole], abs=0.02)
    status, _, error = shell(
        *("stream", str(tmp_path / "model"), video, "--source-rate", "1"),
        *("--head", str(out / "heads" / name), "--foresight", str(out / "heads" / name)),
    )
    assert status and "not a forecaster that keystep wrote" in error
