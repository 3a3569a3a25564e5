import re
from pathlib import Path

import pytest

from keystep.config import RunConfig
from keystep.config.base import build, read_yaml
from keystep.config.presets import preset_settings
from keystep.interop import official

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
UNLABELLED = ("lemon_plstitch_block32",)


def read(recipe: Path) -> RunConfig:
    """The run that the command in the recipe's comment starts."""
    (command,) = re.findall(r"^#   (keystep pretrain .*)$", recipe.read_text(), flags=re.MULTILINE)
    assert str(recipe.relative_to(FOLDER.parent)) in command
    preset = re.search(r"--preset (\w+)", command)
    return build(
        RunConfig,
        preset_settings(preset[1] if preset else "tiny"),
        read_yaml(recipe),
        {"data": {"root": "DATA"}},
    )


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_a_whole_run(recipe: Path) -> None:
    config = read(recipe)
    if recipe.stem not in UNLABELLED:
        assert config.data.split is not None, "it trains on one split's training videos, or its eval is not honest"
    assert ("ORACLE" in recipe.read_text()) == config.model.oracle


@pytest.mark.parametrize("released", official.RELEASED, ids=lambda released: released.name)
def test_the_recipe_of_a_released_encoder_makes_that_encoder(released: official.Released) -> None:
    """Sizes and attention of the file; only the rotary variant is ours, until it is asked for."""
    config = read(FOLDER / "official" / released.name.replace(".pt", ".yaml"))
    ours = config.model.model_copy(update={"input_dim": released.architecture["d_in"], "rotary": "tiled"})
    theirs = official.model_config(released.architecture, released.name)
    heads = {"predictor_heads": theirs.predictor_heads}
    assert ours.model_copy(update=heads) == theirs


SHARED = {
    "target": {"kind": "ema", "layers": 1, "normalise": "none", "momentum": 0.999, "final_momentum": None},
    "masking": {"kind": "random"},
    "objective": {"distance": "l1", "visible_weight": 0.0, "average": "parts"},
    "train": {
        "epochs": 1000,
        "learning_rate": 1e-4,
        "schedule": "drop",
        "warmup": 0,
        "weight_decay": 0.04,
        "decay_all": True,
        "clip": 1.0,
        "precision": "32-true",
    },
}
"""OFFICIAL.md 1.6, for all five."""
EPOCH_500, EPOCH_601 = 0.499, 0.6
OWN = {  # masking ratio; takes a step, accumulated parts; first epoch at a tenth; segments or frames a crop; buckets
    "assembly101_tsm_block64": (0.6, 48, 2, EPOCH_500, {"crop_segments": 32, "bucket": None}),
    "assembly101_tsm_clip": (0.6, 48, 2, EPOCH_500, {"crop_segments": 32, "bucket": None}),
    "egoprocel_fact_features_clip": (0.8, 8, 2, EPOCH_500, {"crop_segments": 20, "bucket": None}),
    "egoprocel_pooled_clip": (0.6, 8, 2, EPOCH_500, {"crop_segments": 20, "bucket": None}),
    "lemon_plstitch_block32": (0.6, 64, 1, EPOCH_601, {"crop_segments": None, "crop": 4096, "bucket": 50}),
}
"""What OFFICIAL.md 1.6 says of each."""


@pytest.mark.parametrize("name", OWN)
def test_the_authors_recipes_say_what_their_code_does(name: str) -> None:
    settings = read(FOLDER / "official" / f"{name}.yaml").model_dump(mode="json")
    for section, values in SHARED.items():
        assert {key: settings[section][key] for key in values} == values
    ratio, takes, parts, drop_at, crops = OWN[name]
    train = settings["train"]
    assert settings["masking"]["ratio"] == ratio
    assert (train["batch_size"], train["accumulate"], train["drop_at"]) == (takes, parts, drop_at)
    assert {key: train[key] for key in crops} == crops
    assert settings["data"]["with_valid"] == (name not in UNLABELLED), "theirs have no validation part"


def test_every_official_recipe_is_checked() -> None:
    assert {path.stem for path in (FOLDER / "official").iterdir()} == set(OWN)
