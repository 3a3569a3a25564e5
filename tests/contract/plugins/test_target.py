"""A target from outside, as docs/add_target.md shows it: trains, resumes, and its model needs none of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small import SMALL

import keystep
from keystep.config import RunConfig, TargetConfig
from keystep.config.base import assignments, build, read_yaml
from keystep.errors import InputError
from keystep.target import shifts_of

NAME = "my_targets:Motion"
Run = Callable[..., tuple[int, str, str]]


def config(data: Path, **target: object) -> RunConfig:
    given = {"data": {"root": data, "source_rate": 4}, "target": {"kind": NAME, **target}}
    return build(RunConfig, assignments([*SMALL[1::2]]), given)


def test_the_page_runs_as_it_stands(page: Callable, shell: Run, mstcn: Path) -> None:
    train, resume, encode = page("add_target.md").commands
    status, _, error = shell(*train[1:], *SMALL)
    assert status == 0, error
    settled = read_yaml(Path("runs/motion/config.yaml"))
    assert (settled["target"]["kind"], settled["target"]["settings"]) == (NAME, {"lag": 2})
    shifts = shifts_of(settled["target"]["offsets"], 4)
    assert settled["model"]["output_dim"] == 6 * len(shifts) > 6, "predicted at every offset"
    status, _, error = shell(*resume[3:])
    assert status == 2 and f"target {NAME}: no file may choose the code that runs" in error
    status, _, error = shell(*resume[1:])
    assert status == 0, error
    Path("my_targets.py").unlink()
    status, _, error = shell(*encode[1:])
    assert status == 0, error


def test_a_config_file_alone_does_not_bring_its_code_in(page: Callable, shell: Run, mstcn: Path) -> None:
    page("add_target.md")
    Path("my_targets.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    Path("settings.yaml").write_text(f"target:\n  kind: {NAME}\n")
    status, _, error = shell("pretrain", mstcn, "--source-rate", "4", "--out", "run", "--config", "settings.yaml")
    assert status == 2 and "no file may choose the code that runs" in error and not Path("ran").exists()
    with pytest.raises(InputError, match="no file may choose"):
        keystep.pretrain(config(mstcn), "run")
    assert not Path("ran").exists() and not Path("run").exists()


@pytest.mark.parametrize("kind", ["features", "clusters"])
def test_the_own_targets_go_through_the_same_door(kind: str) -> None:
    target = keystep.plugins.TARGETS.find(kind)
    assert (
        target.width(TargetConfig(kind=kind, components=4, clusters=9), 6, 16) == {"features": 4, "clusters": 9}[kind]
    )
    assert (target.ids, target.moves) == (kind == "clusters", False)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "return input_dim",
            "return 5",
            r"gave \(1, 8, 6\) torch.float32 for features .* expected \(1, 8, 5\) numbers",
        ),
        ('"""The change of', 'ids = True\n    """The change of', r"expected \(1, 8\) int64 class ids"),
        ("def width", "def breadth", "lacks width; see keystep.target.TargetKind"),
        ("class Motion(Target)", "class Motion", "lacks ids, moves"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_in_one_line(
    page: Callable, mstcn: Path, old: str, new: str, words: str
) -> None:
    keystep.plugins.allow(NAME)
    page("add_target.md").refused(old, new, words, lambda: keystep.pretrain(config(mstcn), "run"))
    assert not Path("run").exists()


def test_its_settings_are_its_own_and_a_wrong_one_is_named(page: Callable, mstcn: Path) -> None:
    page("add_target.md")
    keystep.plugins.allow(NAME)
    with pytest.raises(InputError, match=r"unknown setting leg \(did you mean lag\?\)"):
        keystep.pretrain(config(mstcn, settings={"leg": 2}), "run")
    with pytest.raises(InputError, match=r"settings\.lag: only targets of your own have these"):
        build(TargetConfig, {"kind": "ema", "settings": {"lag": 2}})
    assert "settings" not in TargetConfig().model_dump() and not Path("run").exists()
