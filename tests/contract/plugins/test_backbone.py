"""A backbone from outside, as docs/add_backbone.md shows it, makes features of a video and of a live stream."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import keystep
from keystep.extraction.backbones.catalogue import CATALOGUE
from keystep.heads import Affine, linear_head
from keystep.plugins import BACKBONES

pytest.importorskip("av", reason="needs the extra 'video'")
from clips import write_clip

NAME = "my_backbones:colours"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def videos() -> Path:
    """One clip of two seconds."""
    Path("videos").mkdir()
    write_clip(Path("videos/tea.mp4"), frames=50, height=64, width=96, rate=25)
    return Path("videos")


def test_the_page_runs_as_it_stands(page: Callable, shell: Run, videos: Path) -> None:
    extract, inspect = page("add_backbone.md").commands
    status, _, error = shell(*extract[1:])
    assert status == 0, error
    data = keystep.open_dataset("features")
    assert (data.width, data.timeline.rate, data.timeline.alignment) == (32, 4, "right")
    assert json.loads(Path("features/store.json").read_text())["provenance"]["extraction"]["backbone"] == NAME
    status, said, error = shell(*inspect[1:])
    assert status == 0 and "1 videos, 32 dimensions" in said, error


def test_by_entry_point_and_in_workers(page: Callable, install: Callable, videos: Path) -> None:
    page("add_backbone.md")
    install("acme", "keystep.backbones", colours=NAME)
    options = {"rate": 4, "window": "right"}
    by_name = keystep.extract(videos, "colours", out="by-name", **options)
    by_place = keystep.extract(videos, NAME, out="by-place", **options)
    first, second = (np.load(done.root / "features" / "tea.npy") for done in (by_name, by_place))
    np.testing.assert_array_equal(first, second)


def test_a_head_alone_does_not_bring_its_backbone_in(
    page: Callable, shell: Run, videos: Path, make_model: Callable[..., keystep.PJEPA]
) -> None:
    page("add_backbone.md")
    made = keystep.extract(videos, NAME, out="features", rate=4, window="right")
    store = json.loads(Path("features/store.json").read_text())["provenance"]
    make_model({"kind": "causal", "window": 8}, input_dim=32).save_pretrained("model")
    origin = {"extraction": json.dumps(store), "rate": "4"}
    linear_head(Affine(torch.zeros(3, 16), torch.zeros(3)), names=("a", "b", "c"), origin=origin).save(
        "head.safetensors"
    )
    command = ("stream", "model", "videos/tea.mp4", "--head", "head.safetensors")
    status, _, error = shell(*command)
    assert status == 2 and f"give --backbone {NAME} if you trust it" in error
    for more in (("--backbone", NAME), ()):
        words = command if more else ("--plugin", NAME, *command)
        status, said, error = shell(*words, *more)
        assert status == 0 and len(said.splitlines()) == len(np.load(made.root / "features" / "tea.npy")), error


def test_every_backbone_with_published_weights_can_be_named() -> None:
    assert {record.backbone for record in CATALOGUE} | {"tsm-online"} == set(BACKBONES.own)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    return from_callable(Colours(), ", "    return dict(", "an object of type dict is not a backbone"),
        ("def colours(device)", "def other(device)", "cannot be imported: AttributeError"),
        (
            "return self.map(self.pool(pictures).flatten(1))",
            "return pictures",
            "returned a tensor of shape .*; expected features",
        ),
    ],
)
def test_what_is_wrong_with_a_backbone_is_said_in_one_line(
    page: Callable, videos: Path, old: str, new: str, words: str
) -> None:
    page("add_backbone.md").refused(old, new, words, lambda: keystep.extract(videos, NAME, out="features"))
    assert not Path("features").exists()
