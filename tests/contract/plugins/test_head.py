"""A head from outside, as docs/add_head.md shows it: trained, judged, streamed, saved, loaded, exported, untouched."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small import QUICK, SMALL

import keystep
from keystep import stream
from keystep.errors import InputError
from keystep.heads import build_head, head_config, train_head

NAME = "my_heads:Averaging"
DOCS = Path(__file__).parents[3] / "docs"
FEW = (*QUICK, "--set", "training.epochs=2", "--set", "seeds=1", "--set", "modes=[causal]")
Run = Callable[..., tuple[int, str, str]]


def test_the_page_runs_as_it_stands(page: Callable, shell: Run, mstcn: Path) -> None:
    commands = page("add_head.md").commands
    shutil.copy(mstcn / "features" / "video.5.npy", "video.npy")
    assert [word for command in commands for word in command if word in ("pretrain", "eval", "stream", "export")] == [
        *("pretrain", "eval", "stream", "export")
    ]
    said = {}
    for command in commands:
        verb = command[3] if command[1] == "--plugin" else command[1]
        quick = {"pretrain": SMALL, "eval": FEW}.get(verb, ())
        status, said[verb], error = shell(*command[1:], *quick)
        assert status == 0, f"{command}: {error}"
    file = Path("results/heads/my_heads.Averaging-pjepa-causal-seed0.safetensors")
    assert NAME in Path("results/report.html").read_text()
    keystep.plugins.allow(NAME)
    head, model = keystep.load_head(file), keystep.load("runs/pjepa")
    assert (head.config.kind, head.config.past, head.reach) == (NAME, 4, (4, 0))
    features = np.load("video.npy").T
    right = head.predict(model.encode(features, pattern=model.config.stream_attention))
    lines = [line for line in said["stream"].splitlines() if line.startswith("{")]
    assert [line.split('"step": "')[1].split('"')[0] for line in lines] == [head.name(i) for i in right.tolist()]


def test_the_memory_on_the_page_is_the_same_on_a_stream_and_on_padded_videos(page: Callable) -> None:
    code, memory = re.findall(r"```python\n(.*?)```", (DOCS / "add_head.md").read_text(), re.DOTALL)
    page("add_head.md")
    Path("my_heads.py").write_text(f"{code}\n\n{memory}")
    keystep.plugins.allow("my_heads:Fading")
    videos = [(torch.randn(length, 6).numpy(), np.arange(length) % 3) for length in (12, 9)]
    head = train_head(head_config("my_heads:Fading", {"past": 3}), videos, videos, classes=3).head
    features = torch.randn(2, 12, 6)
    whole = head.probabilities(features[:, :9])
    first, state = stream.step(head, features[:, :5], stream.init(head, 2), [5, 2])
    rest, _ = stream.step(head, features[1:, 2:9].expand(2, -1, -1), state, [0, 7])
    assert torch.allclose(first[0].softmax(-1), whole[0, :5], atol=1e-5)
    assert torch.allclose(rest[1].softmax(-1), whole[1, 2:], atol=1e-5)


def test_a_file_alone_does_not_bring_its_code_in(page: Callable, shell: Run, tmp_path: Path) -> None:
    page("add_head.md")
    Path("my_heads.py").write_text(
        Path("my_heads.py").read_text() + "\nfrom pathlib import Path\nPath('ran').touch()\n"
    )
    keystep.plugins.allow(NAME)
    build_head(head_config(NAME), 6, 3).save("head.safetensors")
    Path("ran").unlink()
    del __import__("sys").modules["my_heads"]
    keystep.plugins._allowed.clear()
    with pytest.raises(InputError, match=r"head\.safetensors: head my_heads:Averaging: no file may choose") as caught:
        keystep.load_head("head.safetensors")
    assert f"keystep --plugin {NAME}" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("ran").exists() and "my_heads" not in __import__("sys").modules
    keystep.plugins.allow(NAME)
    assert keystep.load_head("head.safetensors").config.kind == NAME and Path("ran").exists()


def test_an_installed_head_is_named_shortly_and_loads_without_a_word(page: Callable, install: Callable) -> None:
    page("add_head.md")
    install("acme", "keystep.heads", averaging="my_heads:Averaging")
    build_head(head_config("averaging", {"past": 2}), 6, 3).save("head.safetensors")
    assert keystep.load_head("head.safetensors").config.model_dump() == {"kind": "averaging", "past": 2}


def test_a_head_that_sees_the_whole_video_is_not_judged_as_a_live_one(page: Callable, mstcn: Path) -> None:
    code = page("add_head.md").code
    assert "    @property\n    def reach" in code
    Path("my_heads.py").write_text(
        code.replace("    @property\n    def reach", "    delay = None\n\n    @property\n    def reach")
    )
    data, config = keystep.open_dataset(mstcn, source_rate=4), {"probe": {"penalties": [0.01]}, "seeds": 1}
    with pytest.raises(InputError, match=f"head {NAME}: sees the whole video .* judge it with modes="):
        keystep.evaluate(data, heads=["linear", NAME], modes=["causal"], config=config)


WRONG = {
    "return self.classify(cat([x, mean], dim=-1))[None]": (
        ("return self.classify(cat([x, mean], dim=-1))", r"run returned \(1, 20, 3\) .*expected \(1, 1, 20, 3\)"),
        (
            "return self.classify(cat([x, x.cumsum(1)], dim=-1))[None]",
            "scores on a stream differ from those on the whole video",
        ),
        ("return self.classify(cat([x, x.roll(-1, 1)], dim=-1))[None]", "beyond its delay, 0"),
    ),
    "config: AveragingConfig": (("config", "has no argument config annotated"),),
    "class Averaging(Head)": (
        ("class Averaging", "lacks "),
        ("class Other(Head)", "cannot be imported: AttributeError"),
    ),
}


@pytest.mark.parametrize(("old", "new", "words"), [(old, *case) for old, cases in WRONG.items() for case in cases])
def test_what_is_wrong_with_a_head_is_said_in_one_line(page: Callable, old: str, new: str, words: str) -> None:
    keystep.plugins.allow(NAME)
    videos = [(torch.randn(12, 6).numpy(), np.arange(12) % 3)]
    said = page("add_head.md").refused(
        old, new, words, lambda: train_head(head_config(NAME), videos, videos, classes=3)
    )
    assert "Averaging" in said
