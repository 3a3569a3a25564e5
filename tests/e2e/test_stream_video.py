"""``keystep stream VIDEO``: what a head may and may not decide, and what live sources cannot do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clips import write_clip

import keystep
from keystep.heads import Affine, linear_head

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stream(keystep: Run, make_model: Callable[..., keystep.PJEPA], tmp_path: Path) -> Callable[..., str]:
    """Run ``keystep stream`` of a tiny model whose head has a record of its features; what it complains of."""
    make_model({"kind": "causal"}).save_pretrained(tmp_path / "model")
    video = write_clip(tmp_path / "video.mp4", frames=10, height=16, width=16)

    def run(record: object, *options: object, source: object = video) -> str:
        origin = {} if record is None else {"extraction": record if isinstance(record, str) else json.dumps(record)}
        head = linear_head(Affine(torch.zeros(3, 16), torch.zeros(3)), origin=origin)
        head.save(tmp_path / "head.safetensors")
        status, _, error = keystep(
            "stream", tmp_path / "model", source, "--head", tmp_path / "head.safetensors", *options
        )
        assert status == 2 and "Traceback" not in error, error
        return error

    return run


def recorded(backbone: str) -> dict[str, object]:
    return {"extraction": {"backbone": backbone, "rate": "4", "window": "right"}, "weights": "0" * 64}


def test_a_head_never_decides_which_code_runs(
    stream: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("open('ran', 'w').close()\ndef backbone(): pass\n")
    assert "give --backbone stranger:backbone if you trust it" in stream(recorded("stranger:backbone"))
    assert "give --backbone hf:somebody/model if you trust it" in stream(recorded("hf:somebody/model"))
    assert not (tmp_path / "ran").exists()
    assert "is not a backbone" in stream(recorded("stranger:backbone"), "--backbone", "stranger:backbone")
    assert (tmp_path / "ran").exists(), "it was asked for"


@pytest.mark.parametrize("record", ["x", '"x"', '{"extraction": {}}', '{"extraction": {}, "weights": null}'])
def test_a_damaged_record_is_one_line(stream: Callable[..., str], record: str):
    assert "is damaged" in stream(record)


def test_other_weights_and_widths_are_named(stream: Callable[..., str]):
    assert "are not those of the head's features" in stream(recorded("efficientnet-lite0"))
    given = ("--backbone", "efficientnet-lite0", "--source-rate", "4")
    assert "gives features 1280 wide" in stream(None, *given)
    assert "does not say how its features were made" in stream(None)


def test_a_camera_cannot_be_gone_on_with(stream: Callable[..., str], tmp_path: Path):
    toy = ("--backbone", "efficientnet-lite0", "--source-rate", "4")
    assert "1280 wide" in stream(None, *toy, source="0")
    assert "leave --backbone" in stream(recorded("efficientnet-lite0"), "--backbone", "i3d", source="0")
