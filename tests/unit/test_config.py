import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from keystep.config import ModelConfig, RunConfig, TargetConfig, TrainConfig
from keystep.config.attention import AttentionPattern
from keystep.config.base import assignments, build, read_yaml, write_yaml
from keystep.config.presets import PRESETS, preset_settings
from keystep.errors import InputError

DATA: dict[str, Any] = {"data": {"root": "features"}}


def run(*layers: dict[str, Any]) -> RunConfig:
    return build(RunConfig, DATA, *layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trian": {}}, r"unknown setting trian \(did you mean train\?\)"),
        ({"train": {"stps": 3}}, r"unknown setting train\.stps \(did you mean steps\?\)"),
        ({"model": {"attention": {"knd": "causal"}}}, r"model\.attention\.knd \(did you mean kind\?\)"),
        ({"model": {"live_attention": {"windw": 3}}}, r"model\.live_attention\.windw \(did you mean window\?\)"),
        ({"masking": {"zzz": 3}}, "unknown setting masking.zzz; known: kind, ratio, shortest, longest"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(settings)


def test_everything_that_is_wrong_is_said_at_once_in_one_line() -> None:
    with pytest.raises(InputError) as caught:
        run({"train": {"steps": -1, "clip": "much", "lr": 1}, "masking": {"ratio": 1.5}, "extra": 1})
    said = str(caught.value)
    for part in ("train.steps: ", ", not -1", "train.clip: ", "'much'", "train.lr", "masking.ratio: ", "1.5", "extra"):
        assert part in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masking": {"shortest": 9, "longest": 3}}, "masking: shortest 9 must not exceed longest 3"),
        ({"model": {"dim": 100, "heads": 3}}, "model: dim 100 must be a multiple of heads 3"),
        ({"model": {"dim": 32, "heads": 8}}, "model: dim 32 must be a multiple of heads 8, at least 8 times"),
        ({"model": {"dim": 48, "predictor_heads": 5}}, "dim 48 must be a multiple of heads 5"),
        ({"model": {"live_attention": {"kind": "bidirectional"}}}, "live_attention 'bidirectional' is not causal"),
        ({"train": {"batch_size": 6, "accumulate": 4}}, r"batch_size 6 must be a multiple of 4 \(1 nodes x 1 devices"),
        ({"train": {"devices": 4}}, r"batch_size 2 must be a multiple of 4 .*; set train\.batch_size to 4"),
        ({"data": {"rate": "fast"}}, r"data\.rate.*'fast' is no rate in Hz"),
        ({"data": {"rate": 0}}, r"data\.rate.*above 0 Hz"),
        ({"data": {"on_error": "ignore"}}, r"data\.on_error.*'ignore'"),
        (
            {"target": {"offsets": [0, float("inf")]}},
            r"target\.offsets\.1: Input should be a finite number.*, not inf$",
        ),
        ({"train": {"learning_rate": float("nan")}}, r"train\.learning_rate: Input should be a finite number"),
        ({"model": {"boundaries": "discovered"}}, "^unknown setting model.boundaries"),
        ({"target": {"kind": "pixels"}}, r"target\.kind.*'pixels'"),
        ({"target": {"momentum": 1.01}}, r"target\.momentum.*1\.01"),
        ({"target": {"smooth": 4}}, "smooth must be odd, not 4"),
        ({"target": {"spread": -0.1}}, r"target\.spread.*-0\.1"),
        ({"target": {"offsets": ["7.2 tau", "8 sec"]}}, r"target\.offsets\.1: .*such as 7\.2tau or 8s, not '8 sec'$"),
        ({"masking": {"longest": "-6tau"}}, r"masking\.longest: Input should be at least one frame, not '-6tau'"),
        ({"train": {"crop": 0}}, r"train\.crop: Input should be at least one frame, not 0"),
        ({"train": {"crop": 7.5}}, r"train\.crop: Input should be a whole number of frames, or text.*, not 7\.5$"),
        ({"data": {"tau": 0}}, r"data\.tau.*not 0"),
        (
            {"model": {"bands": ["context", "frame"]}},
            r"bands \['context', 'frame'\]: list each band once, context last",
        ),
        ({"model": {"bands": ["steady", "frame", "context"]}}, "steady, if used, right before it"),
        ({"model": {"bands": ["steady"]}}, "context last, and steady, if used, right before it"),
        ({"model": {"bands": ["around", "around", "context"]}}, "list each band once"),
        ({"model": {"bands": ["far", "context"]}}, r"model\.bands\.0.*'far'"),
        (
            {"model": {"visible_predictions": "predictor"}},
            "readout_dim 384: .* would not be trained .*set model.readout_dim",
        ),
        ({"objective": {"visible_weight": 0}}, "readout_dim 384: the readout layer would not be trained"),
        ({"target": {"offsets": []}}, "at least 1 item"),
        ({"train": 5}, r"train: .*not 5"),
        (
            {"model": {"attention": {"kind": "block_causal"}}},
            r"model\.attention: kind block_causal needs a block length; set block",
        ),
        (
            {"model": {"attention": {"kind": "causal", "block": 8}}},
            "block 8 applies to kind block_causal only, not to causal",
        ),
        ({"model": {"attention": {"window": 8, "stride": 2}}}, "stride 2 and memory None: set both"),
        (
            {"model": {"attention": {"window": 8, "stride": 2, "memory": 8}}},
            "memory 8 needs a window smaller than itself, not 8",
        ),
        ({"model": {"attention": {"stride": 2, "memory": 8}}}, "memory 8 needs a window smaller than itself, not None"),
        ({"model": {"attention": {"window": 0}}}, r"model\.attention\.window.*not 0"),
    ],
)
def test_a_bad_value_is_named_with_its_path(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(settings)


def test_the_data_folder_is_required() -> None:
    with pytest.raises(InputError, match="data: Field required"):
        build(RunConfig, {})


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        run().train.steps = 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("2.5e-3", 2.5e-3),
        ("3", 3),
        ("0.5", 0.5),
        ("null", None),
        ("true", True),
        ("causal", "causal"),
        ("2e", "2e"),
        ("e5", "e5"),
        ("[1, 1e-3, a]", [1, 1e-3, "a"]),
        ("{kind: causal, window: 8}", {"kind": "causal", "window": 8}),
        ("a=b", "a=b"),
        ("", None),
    ],
)
def test_values_on_the_command_line_are_what_people_mean(text: str, value: object) -> None:
    found = assignments([f"one.two={text}"])
    assert found == {"one": {"two": value}} and type(found["one"]["two"]) is type(value)


def test_dots_make_levels_and_later_settings_win() -> None:
    found = assignments(["a.b.c=1", "a.b.d=2", "e=3", "a.b.c=4"])
    assert found == {"a": {"b": {"c": 4, "d": 2}}, "e": 3}


@pytest.mark.parametrize("setting", ["train.steps", "=3", ""])
def test_a_setting_without_a_value_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="is not NAME=VALUE"):
        assignments([setting])


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[1, .*is not a YAML value"):
        assignments(["a=[1, "])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_survives_its_file(name: str, tmp_path: Path) -> None:
    config = run(preset_settings(name))
    write_yaml(tmp_path / "config.yaml", config)
    assert build(RunConfig, read_yaml(tmp_path / "config.yaml")) == config


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="unknown preset 'huge'; expected one of tiny, small, surgical, paper"):
        preset_settings("huge")


def test_the_paper_preset_is_the_paper() -> None:
    config = run(preset_settings("paper"))
    assert (config.model.dim, config.model.depth, config.model.heads, config.model.predictor_depth) == (1408, 4, 16, 2)
    assert config.model.predictor_attention == AttentionPattern(kind="causal")
    assert (config.target.kind, config.target.momentum, config.target.layers) == ("ema", 0.999, 1)
    assert (config.masking.kind, config.masking.ratio) == ("random", 0.6)
    assert (config.objective.distance, config.objective.visible_weight) == ("l1", 0)
    train = config.train
    assert (train.learning_rate, train.schedule, train.weight_decay, train.decay_all) == (1e-4, "drop", 0.04, True)
    assert not config.model.oracle and config.model.averaged_blocks == 1
    assert (config.model.bands, config.model.context_dim) == (("context",), 1408)
    assert not config.needs_tau and config.settled(None, 1).train.crop == 2048


def test_later_layers_lie_on_top_and_leave_the_rest() -> None:
    config = run({"train": {"steps": 5, "crop": 7}}, {"train": {"steps": 6}}, {"model": {"live_attention": None}})
    assert (config.train.steps, config.train.crop) == (6, 7) and config.model.live_attention is None


@pytest.mark.parametrize("rate", ["30000/1001", "29.97", 30, 3.75, 0.1])
def test_rates_are_exact_fractions_and_survive_their_file(rate: object, tmp_path: Path) -> None:
    config = run({"data": {"source_rate": rate, "split": "1"}})
    assert config.data.source_rate == Fraction(str(rate))
    write_yaml(tmp_path / "config.yaml", config)
    again = build(RunConfig, read_yaml(tmp_path / "config.yaml"))
    assert again == config and type(again.data.source_rate) is Fraction and again.data.rate is None


def test_numbers_with_an_exponent_are_numbers_in_files_too(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("train:\n  learning_rate: 3e-4\n  steps: 7\n")
    assert run(read_yaml(tmp_path / "x.yaml")).train.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "invalid YAML"), ("- 1\n", "found list"), ("", "found NoneType"), (None, "no such file")],
)
def test_a_config_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"x\.yaml: .*{message}") as caught:
        read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_derived_values_follow_the_settings() -> None:
    causal, block = AttentionPattern(kind="causal"), AttentionPattern(kind="block_causal", block=4)
    assert ModelConfig(depth=3, readout="mean", readout_dim=None).averaged_blocks == 3
    assert ModelConfig(readout="last").averaged_blocks == 1
    assert ModelConfig(attention=block).stream_attention == block
    assert ModelConfig().stream_attention == causal
    assert ModelConfig(live_attention=None).stream_attention is None
    assert ModelConfig(positions="segment").oracle and not ModelConfig().oracle
    segments = AttentionPattern(kind="segment_causal")
    told = ModelConfig(attention=segments)
    assert told.oracle and told.stream_attention == causal and str(segments) == "segment_causal (ORACLE)"
    assert str(AttentionPattern(kind="segment_causal", window=9)) == "segment_causal, window 9 (ORACLE)"


def test_every_setting_that_is_not_plain_has_its_meaning_under_it() -> None:
    plain = {"heads", "mlp_ratio", "clusters", "learning_rate", "weight_decay", "precision", "seed"}

    def undocumented(kind: type[BaseModel]) -> set[str]:
        found = set()
        for name, field in kind.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found |= undocumented(field.annotation)
            elif not field.description:
                found.add(name)
        return found

    assert undocumented(RunConfig) <= plain


def test_momentum_may_stay_or_rise() -> None:
    assert TargetConfig().final_momentum is None and TargetConfig(final_momentum=1).final_momentum == 1


def test_steps_follow_from_the_data_unless_they_are_given() -> None:
    train = TrainConfig(batch_size=2, crop=512)
    assert train.settled_steps([10_000] * 20) == math.ceil(12 * 200_000 / (2 * 512))
    short = [100] * 9_000  # crops are no longer than their videos
    assert train.settled_steps(short) == 12 * 9_000 // 2
    assert train.settled_steps([512] * 30) == 300, "some steps, however little there is"
    assert train.settled_steps([512] * 4) == 80, "but no frame forty times"
    assert train.settled_steps([100]) == 20
    assert TrainConfig(steps=7).settled_steps([10_000] * 20) == 7
    assert TrainConfig(epochs=3, batch_size=4).settled_steps([100] * 10) == 9


def test_an_attention_that_is_given_in_part_keeps_the_kind_of_its_default() -> None:
    """`keystep stream` suggests a window alone; the kind of an attention by itself would be bidirectional."""
    given = {"live_attention": {"window": 512}, "predictor_attention": {"window": 64}}
    for preset in ("tiny", "paper"):
        model = run(preset_settings(preset), {"model": given}).model
        assert model.live_attention == AttentionPattern(kind="causal", window=512)
        assert model.predictor_attention == AttentionPattern(kind="causal", window=64)
    blocks = run({"model": {"live_attention": {"kind": "block_causal", "block": 4}}}).model.live_attention
    assert blocks == AttentionPattern(kind="block_causal", block=4)
