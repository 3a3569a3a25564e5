import re
from pathlib import Path

import pytest

from keystep.config import RunConfig, build, preset_settings, read_yaml
from keystep.interop import official

FOLDER = Path(__file__).parents[1] / "recipes"
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


def test_the_authors_recipes_share_what_the_paper_says() -> None:
    for recipe in (FOLDER / "official").iterdir():
        config = read(recipe)
        train = config.train
        assert (config.target.kind, config.target.momentum, config.target.layers) == ("ema", 0.999, 1)
        assert (config.masking.kind, config.objective.distance, config.objective.visible_weight) == ("random", "l1", 0)
        assert (train.learning_rate, train.weight_decay, train.clip, train.warmup) == (1e-4, 0.04, 1.0, 0)
        assert train.decay_all and train.schedule == "drop" and config.objective.average == "parts"
        assert train.epochs == 1000
