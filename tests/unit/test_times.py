"""Times with units, and what becomes of them once the data are known."""

from fractions import Fraction
from typing import Any

import pytest

from keystep.config import MaskingConfig, ModelConfig, RunConfig, TargetConfig, TrainConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import build
from keystep.config.run import PYRAMID
from keystep.config.times import averaged_frames, frames, needs_tau, seconds
from keystep.errors import InputError

CAUSAL = AttentionPattern(kind="causal")


def run(*layers: dict[str, Any]) -> RunConfig:
    return build(RunConfig, {"data": {"root": "features"}}, *layers)


@pytest.mark.parametrize(
    ("time", "value"),
    [(8, 8.0), (-0.4, -0.4), ("8s", 8.0), ("-2.5 s", -2.5), ("7.2tau", 10.8), ("-.5tau", -0.75), ("3. tau", 4.5)],
)
def test_an_offset_is_seconds_or_a_text_with_its_unit(time: float | str, value: float) -> None:
    assert TargetConfig(offsets=(time,)).offsets == (time,)
    assert seconds(time, 1.5) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "8", "tau", "s", "8 sec", "1e3s", "8 s ", "--8s", "8tau s", "inf s"])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(InputError, match=r"such as 7\.2tau or 8s, not ") as caught:
        build(TargetConfig, {"offsets": [text]})
    assert str(caught.value).count("Input should be") == 1, "one line for a time, not one for each of its forms"
    with pytest.raises(InputError, match="Input should be a whole number of frames"):
        build(MaskingConfig, {"longest": text})


@pytest.mark.parametrize("span", [0, -3, "0s", "-6tau"])
def test_a_span_is_a_frame_at_least(span: int | str) -> None:
    for kind, name in ((MaskingConfig, "shortest"), (MaskingConfig, "longest"), (TrainConfig, "crop")):
        with pytest.raises(InputError, match=f"{name}: Input should be at least one frame, not {span!r}"):
            build(kind, {name: span})


@pytest.mark.parametrize(
    ("span", "rate", "count"),
    [(7, 5, 7), ("8s", 5, 40), ("8s", Fraction(30000, 1001), 240), ("6tau", 2, 18), ("0.75tau", 2, 2), ("0.01s", 5, 1)],
)
def test_a_span_becomes_the_nearest_number_of_frames(span: int | str, rate: float | Fraction, count: int) -> None:
    assert frames(span, 1.5, rate) == count


def test_only_texts_in_tau_need_tau() -> None:
    assert not needs_tau([0, 3.5, "8s"])
    assert needs_tau(["8s", "0.5tau"])
    assert run().needs_tau
    stated = {"target": {"offsets": ["8s", 0]}, "masking": {"shortest": 3, "longest": "9s"}, "train": {"crop": "60s"}}
    alone = {"model": {"bands": ["context"]}}
    assert run(stated).needs_tau, "for the bands"
    assert not run(stated, alone).needs_tau
    assert run(stated, alone, {"masking": {"longest": "6tau"}}).needs_tau
    assert not run(stated, alone, {"masking": {"longest": "6tau", "kind": "random"}}).needs_tau, "it has no spans"
    assert run(stated, alone, {"train": {"crop": "93tau"}}).needs_tau


def test_settling_gives_offsets_in_seconds_and_spans_in_frames_and_leaves_what_is_settled() -> None:
    config = run({"target": {"offsets": ["-2tau", 0, "8s", 3.5]}}).settled(1.2, 5)
    assert config.target.offsets == (-2.4, 0.0, 3.5, 8.0)
    assert (config.masking.shortest, config.masking.longest) == (round(0.75 * 6), 36)
    assert config.train.crop == config.train.crop_frames == 558
    assert (config.data.tau, config.model.tau) == (1.2, 6.0)
    assert config.settled(1.2, 5) == config


def test_the_default_means_the_same_at_every_time_scale() -> None:
    """Ten times slower features at a tenth of the rate: the same frames."""
    fast, slow = run().settled(1.2, 5), run().settled(12.0, Fraction(1, 2))
    assert fast.masking == slow.masking and fast.model == slow.model and fast.train == slow.train
    assert [10 * offset for offset in fast.target.offsets] == pytest.approx(slow.target.offsets)


def test_the_pyramid_doubles_from_nine_tenths_of_tau_both_ways() -> None:
    offsets = run().settled(1.0, 1000).target.offsets
    assert len(PYRAMID) == len(offsets) == 15
    ahead = [offset for offset in offsets if isinstance(offset, float) and offset > 0]
    assert ahead == pytest.approx([0.9 * 2**level for level in range(7)])
    assert offsets == tuple(-offset for offset in reversed(offsets) if isinstance(offset, float))


def test_without_tau_what_nothing_reads_is_left_alone() -> None:
    stated = {"target": {"offsets": [0]}, "train": {"crop": 64}, "model": {"bands": ["context"]}}
    config = run(stated, {"masking": {"kind": "random"}}).settled(None, 5)
    assert (config.model.tau, config.data.tau, config.train.crop) == (None, None, 64)
    assert config.masking.longest == "6tau"


def test_spans_that_turn_out_in_the_wrong_order_are_refused() -> None:
    config = run({"masking": {"shortest": 30, "longest": "2tau"}})
    assert config.settled(10.0, 5).masking.longest == 100
    with pytest.raises(InputError, match="shortest 30 must not exceed longest 10"):
        config.settled(1.0, 5)


@pytest.mark.parametrize(
    ("width", "odd"), [(0, 1), (0.4, 1), (1, 1), (1.9, 1), (2.1, 3), (3.9, 3), (4.1, 5), (14.4, 15), (100, 101)]
)
def test_averages_are_over_the_nearest_odd_number_of_frames(width: float, odd: int) -> None:
    assert averaged_frames(width) == odd


@pytest.mark.parametrize("tau", [0.3, 1.0, 6.0, 35.0])
def test_the_averages_around_a_frame_reach_as_far_as_the_attention_sees(tau: float) -> None:
    config = ModelConfig(input_dim=3, tau=tau)
    both, past = config.windows(AttentionPattern()), config.windows(CAUSAL)
    assert len(both) == 9 and len(past) == 6
    assert all(width % 2 == 1 for _, width in (*both, *past))
    assert max(shift + width // 2 for shift, width in past) == 0, "up to the frame itself, and no further"
    assert sorted(both) == sorted((-shift, width) for shift, width in both)
    farthest = max(both)
    assert farthest[0] == round(7.2 * tau) and abs(farthest[1] - 3.6 * tau) <= max(1, 3.6 * tau * 0.1)


def test_widths_follow_the_attention_the_features_and_the_settings() -> None:
    full = AttentionPattern()
    config = ModelConfig(input_dim=7, tau=4.0)
    assert config.widths(full) == {"frame": 7, "around": 175, "memory": 29, "ahead": 28, "steady": 384, "context": 384}
    assert config.widths(CAUSAL) == {"frame": 7, "around": 98, "memory": 29, "steady": 384, "context": 384}
    wide = ModelConfig(input_dim=600, tokens=3, tau=4.0, held_components=10, readout_dim=None, dim=96)
    assert wide.widths(full) == {"frame": 200, "around": 250, "memory": 41, "ahead": 40, "steady": 96, "context": 96}
    chosen = ModelConfig(input_dim=7, tau=4.0, bands=("memory", "frame", "context"))
    assert list(chosen.widths(full)) == ["memory", "frame", "context"]
    assert ModelConfig(input_dim=7).widths(full) == {"context": 384}, "nothing is held without tau"
