from pathlib import Path

import pytest

from keystep.config import RunConfig, build, preset_settings, read_yaml

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_is_a_whole_run(recipe: Path) -> None:
    config = build(RunConfig, preset_settings("tiny"), read_yaml(recipe), {"data": {"root": "DATA"}})
    assert config.data.split is not None, "a recipe trains on one split's training videos, or its eval is not honest"
    assert recipe.read_text().startswith("#"), "it says what the data are and how to run it"


def test_there_are_recipes() -> None:
    assert RECIPES
