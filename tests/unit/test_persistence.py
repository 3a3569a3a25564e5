import json
from pathlib import Path

import pytest
import torch

import keystep
from keystep.config import ModelConfig, RunConfig
from keystep.config.base import build
from keystep.errors import InputError
from keystep.pjepa import Origin

CONFIG = ModelConfig(input_dim=5, dim=16, depth=2, heads=2, output_dim=7)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[keystep.PJEPA, Path]:
    torch.manual_seed(0)
    model = keystep.PJEPA(CONFIG).eval()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_a_model_comes_back_bit_for_bit(saved: tuple[keystep.PJEPA, Path]) -> None:
    model, folder = saved
    again = keystep.PJEPA.from_pretrained(folder)
    assert again.config == model.config and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    features = torch.randn(1, 9, 5)
    assert torch.equal(model.encode(features), again.encode(features))
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_cut_off_weight_file_is_refused(saved: tuple[keystep.PJEPA, Path]) -> None:
    weights = saved[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
        keystep.PJEPA.from_pretrained(saved[1])


def test_weights_of_another_width_are_refused_with_both_shapes(saved: tuple[keystep.PJEPA, Path]) -> None:
    path = saved[1] / "config.json"
    record = json.loads(path.read_text())
    record["model"]["input_dim"] = 6
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"misshapen.*encoder\.proj\.0\.deviation is \(5,\), the model needs \(6,\)"):
        keystep.PJEPA.from_pretrained(saved[1])


def test_missing_and_unexpected_tensors_are_counted_and_named(saved: tuple[keystep.PJEPA, Path]) -> None:
    path = saved[1] / "config.json"
    record = json.loads(path.read_text())
    record["model"]["depth"] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"12 missing \(encoder\.blocks\.2"):
        keystep.PJEPA.from_pretrained(saved[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "unreadable"),
        ('{"format": "other"}', "not a keystep model"),
        ('{"format": "keystep-pjepa", "version": 9}', "format version 9"),
        (
            '{"format": "keystep-pjepa", "version": 4, "model": {"dims": 3}}',
            r"json: unknown setting dims \(did you mean",
        ),
    ],
)
def test_a_foreign_config_is_refused(saved: tuple[keystep.PJEPA, Path], text: str, message: str) -> None:
    (saved[1] / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        keystep.PJEPA.from_pretrained(saved[1])


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused() -> None:
    with pytest.raises(InputError, match="no such folder"):
        keystep.PJEPA.from_pretrained("no/such/folder/anywhere")


def test_a_full_disk_keeps_the_old_model(saved: tuple[keystep.PJEPA, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keystep.persistence.save_tensors", full)
    with pytest.raises(InputError, match="No space left on device; nothing was changed"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no temporary is left"


def test_a_model_of_another_format_version_is_refused(saved: tuple[keystep.PJEPA, Path]) -> None:
    path = saved[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(InputError, match="format version 2; this keystep reads 4"):
        keystep.PJEPA.from_pretrained(saved[1])


def test_the_card_says_what_the_model_is_and_what_is_not_known(saved: tuple[keystep.PJEPA, Path]) -> None:
    model, folder = saved
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: keystep\n") and model.fingerprint in card
    assert "features of 5 numbers a frame" in card and "Licence of these features: unknown." in card
    assert "Not known: the model was not loaded from its run." in card
    model.save_pretrained(folder, features_licence="CC BY 4.0")
    assert "Licence of these features: CC BY 4.0." in (folder / "README.md").read_text()


def test_a_card_that_somebody_changed_is_not_replaced(saved: tuple[keystep.PJEPA, Path]) -> None:
    model, folder = saved
    (folder / "README.md").write_text("# Ours\n")
    with pytest.raises(InputError, match=r"model: holds 'README\.md', which would be lost"):
        model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Ours\n"


def test_the_card_of_a_run_names_its_data_without_their_path(saved: tuple[keystep.PJEPA, Path]) -> None:
    model, folder = saved
    data = {"root": "/home/somebody/kitchen", "split": "2", "source_rate": 30, "rate": 5}
    config = build(RunConfig, {"data": data, "train": {"steps": 700}})
    model.origin = Origin("runs/a/model", Path("runs/a"), config, ("one", "two"), "0123abcd")
    model.save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert "at 5 Hz" in card and "Folder 'kitchen', training videos of split 2: 2 videos." in card
    assert "SHA-256 `0123abcd`" in card and "steps: 700" in card and "somebody" not in card
