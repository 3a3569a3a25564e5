"""The authors' checkpoints: parity with their code on its golden files, and every way a file can be wrong."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from safetensors.torch import load_file

from keystep import PJEPA
from keystep.batch import SequenceBatch
from keystep.config import ObjectiveConfig, TargetConfig
from keystep.errors import InputError
from keystep.interop import official
from keystep.interop.official import checkpoints
from keystep.objectives import count_frames, frame_sums
from keystep.target import EmaTarget

TOLERANCE = {"atol": 3e-4, "rtol": 0}


class Golden:
    """One of the authors' cases: our model with its weights, and what theirs made of the inputs."""

    def __init__(self, folder: Path, case: dict) -> None:
        self.model = official.load(folder / case["checkpoint"], case["architecture"])
        self.stored = load_file(folder / case["tensors"])
        self.lengths = self.stored["segment_lengths"] if case["segments_passed_to_model"] else None
        self.valid, self.hidden = self.stored["valid_mask"], self.stored["target_mask"]

    @property
    def batch(self) -> SequenceBatch:
        return self.model.batch(self.stored["features"], self.valid, self.lengths)

    def teacher(self) -> EmaTarget:
        target = EmaTarget(self.model.encoder, TargetConfig(kind="ema"))
        for parameter in target.parameters():
            parameter.mul_(0.97).add_(0.01)
        return target


def test_encode_equals_the_authors(golden: Path, case: dict) -> None:
    here = Golden(golden, case)
    latents = here.model.encode(here.stored["features"], here.valid, here.lengths)
    torch.testing.assert_close(latents, here.stored["encode"], **TOLERANCE)
    assert not latents[~here.valid].any()


def test_context_predictions_teacher_and_loss_equal_the_authors(golden: Path, case: dict) -> None:
    here = Golden(golden, case)
    with torch.no_grad():
        output = here.model(here.batch, here.hidden, visible=here.stored["context_mask"])
        targets = here.teacher()(here.batch, here.model.config.attention)
    torch.testing.assert_close(output.latents, here.stored["student_context"], **TOLERANCE)
    assert not output.latents[~here.stored["context_mask"]].any()
    predicted, expected = output.predictions[here.valid], here.stored["predictor_full"][here.valid]
    torch.testing.assert_close(predicted, expected, **TOLERANCE)
    torch.testing.assert_close(targets, here.stored["teacher_full"], **TOLERANCE)
    objective = ObjectiveConfig(distance="l1", visible_weight=0)
    sums = frame_sums(output.predictions, targets, here.hidden, here.valid, objective)
    loss = sums.loss(0, *count_frames(here.hidden, here.valid))
    torch.testing.assert_close(loss, here.stored["loss"].squeeze(), atol=5e-6, rtol=0)


def test_sequences_that_begin_inside_their_videos_equal_the_authors(golden: Path, cases: list[dict]) -> None:
    """The authors' offsets exist for block-causal attention with one-axis positions only."""
    compared = 0
    for here in (Golden(golden, case) for case in cases):
        if "encode_offset" in here.stored:
            latents = here.model.encode(here.stored["features"], here.valid, starts=here.stored["position_offsets"])
            torch.testing.assert_close(latents, here.stored["encode_offset"], **TOLERANCE)
            assert (latents - here.stored["encode"]).abs().max() > 0.01, "tiled angles are no function of distances"
            compared += 1
    assert compared


def test_a_longer_sequence_equals_the_authors(golden: Path, cases: list[dict]) -> None:
    (here,) = (Golden(golden, case) for case in cases if case["name"] == "block_causal_1d")
    latents = here.model.encode(here.stored["long_features"])
    torch.testing.assert_close(latents, here.stored["long_encode"], **TOLERANCE)


def test_an_architecture_inside_the_file_is_found(golden: Path, cases: list[dict]) -> None:
    for case in cases:
        if case["checkpoint_layout"] != "bare":
            found = official.load(golden / case["checkpoint"]).config
            assert found == official.model_config(case["architecture"], "golden")


# From here on: small files in the authors' layouts, made on the spot.

ARCHITECTURE = reference.architecture("block_causal", "1d_flat")


def weights() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in reference.random_weights(np.random.default_rng(0)).items()}


def surgical_config() -> dict[str, Any]:
    names = {"d_in": "input_dim", "d_model": "dim"}
    in_ssl = ("student_encoder_attention", "student_encoder_block_size", "rope_mode")
    return {
        "model": {names.get(key, key): value for key, value in ARCHITECTURE.items() if key not in in_ssl},
        "ssl": {key: ARCHITECTURE[key] for key in in_ssl} | {"mask_ratio": 0.6},
    }


LAYOUTS = {
    "bundle": lambda: {"model_state_dict": weights(), "architecture": ARCHITECTURE},
    "versioned bundle": lambda: {
        "version": "pjepa_feature_v1",
        "model_state_dict": weights(),
        "architecture": ARCHITECTURE,
        "epoch": 3,
    },
    "training snapshot": lambda: {
        "model_state_dict": weights(),
        "architecture": ARCHITECTURE,
        "teacher_state_dict": {},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "selection": {"metric": "lin_combined", "value": 1.5},
    },
    "surgical": lambda: {
        "version": "lemon_pjepa_best_v2",
        "model_state_dict": weights(),
        "config": surgical_config(),
        "epoch": 3,
    },
    "half precision": lambda: {
        "model_state_dict": {name: tensor.half() for name, tensor in weights().items()},
        "architecture": ARCHITECTURE,
    },
}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "bare.pt"
    torch.save(weights(), path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_converts_and_loads_again_to_the_same_bits(layout: str, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](), tmp_path / "theirs.pt")
    model = official.load(tmp_path / "theirs.pt")
    model.save_pretrained(tmp_path / "ours")
    again = PJEPA.from_pretrained(tmp_path / "ours")
    features = torch.randn(2, 30, 5)
    assert torch.equal(model.encode(features), again.encode(features))
    assert again.config == model.config
    assert model.mask_token.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training and not again.training


def test_positions_of_half_an_hour_survive_bfloat16(bare: Path) -> None:
    """bfloat16 cannot tell frame 7200 from 7201, so angles of that precision would give other latents altogether."""
    model = official.load(bare, ARCHITECTURE)
    features, starts = torch.randn(1, 40, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([7200])
    exact = model.encode(features, starts=starts)
    rough = model.bfloat16().encode(features, starts=starts).float()
    collapsed = model.encode(features, starts=starts + 40).float()
    assert (rough - exact).abs().mean() < 0.03
    assert (collapsed - exact).abs().mean() > 0.1, "as far as another place in the video would be"


def test_a_file_from_before_zip_archives_loads(tmp_path: Path) -> None:
    torch.save(LAYOUTS["bundle"](), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert official.load(tmp_path / "old.pt").config.dim == 20


def test_a_loaded_model_does_not_need_its_file_any_more(bare: Path) -> None:
    model = official.load(bare, ARCHITECTURE)
    before = model.encode(torch.ones(1, 9, 5))
    bare.write_bytes(b"something else" * 10_000)
    assert torch.equal(model.encode(torch.ones(1, 9, 5)), before)


def test_a_bare_file_without_architecture_is_refused_in_one_line(bare: Path) -> None:
    with pytest.raises(InputError, match=r"plain state dict.*give its architecture"):
        official.load(bare)


def test_a_released_file_is_known_by_its_hash(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(bare.read_bytes()).hexdigest()
    released = checkpoints.Released("released.pt", bare.stat().st_size, digest[:8], ARCHITECTURE)
    monkeypatch.setattr(checkpoints, "RELEASED", (released,))
    assert str(official.load(bare).config.attention) == "block_causal(4)"
    contradiction = ARCHITECTURE | {"student_encoder_attention": "causal"}
    with pytest.raises(InputError, match=r"student_encoder_attention 'block_causal', not 'causal'"):
        official.load(bare, contradiction)


def test_a_file_that_only_bears_the_name_of_a_released_one_is_refused(bare: Path) -> None:
    namesake = bare.rename(bare.with_name("assembly101_tsm_clip.pt"))
    with pytest.raises(InputError, match=r"not the released assembly101_tsm_clip.pt.*583,007,046.*787987c3"):
        official.load(namesake)


def test_an_expected_hash_is_checked(bare: Path) -> None:
    digest = hashlib.sha256(bare.read_bytes()).hexdigest()
    assert official.load(bare, ARCHITECTURE, sha256=digest[:12].upper())
    for wrong in ("0" * 64, digest[:7]):
        with pytest.raises(InputError, match=rf"SHA-256 is {digest}, not {wrong}"):
            official.load(bare, ARCHITECTURE, sha256=wrong)


def test_the_sizes_of_the_released_files_follow_from_their_architectures() -> None:
    for released in official.RELEASED:
        with torch.device("meta"):
            model = PJEPA(official.model_config(released.architecture, released.name))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert 0 < released.size - 4 * parameters < 40_000, released.name


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"enc_heads": 3}, "dim 20 must be a multiple of heads 3"),
        ({"d_model": 40}, "d_model is 40 in the architecture, but 20 in"),
        ({"enc_depth": 3}, "enc_depth is 3 in the architecture, but 2 in"),
        ({"enc_depth": 1}, "enc_depth is 1 in the architecture, but 2 in"),
        ({"student_encoder_attention": "sideways"}, "unknown mode 'sideways'"),
        ({"rope_mode": None}, "unknown mode None"),
        ({"student_encoder_block_size": 0}, "invalid architecture: attention.block"),
        ({"flash": True}, "has unknown 'flash'"),
    ],
)
def test_a_wrong_architecture_is_one_line(bare: Path, change: dict, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        official.load(bare, ARCHITECTURE | change)
    assert str(bare) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_incomplete_architecture_names_what_is_missing(bare: Path) -> None:
    with pytest.raises(InputError, match="lacks enc_heads, rope_mode"):
        official.load(bare, {k: v for k, v in ARCHITECTURE.items() if k not in ("enc_heads", "rope_mode")})


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a checkpoint ran code",)


WRONG = {
    "a pickle with code": lambda: {"model_state_dict": _Code()},
    "a list": lambda: [1, 2, 3],
    "no state dict": lambda: {"model_state_dict": 3, "architecture": ARCHITECTURE},
    "a number among the weights": lambda: {"model_state_dict": weights() | {"mask_token": 1.0}, "architecture": {}},
    "whole numbers": lambda: {"model_state_dict": weights() | {"mask_token": torch.zeros(1, 1, 20).int()}},
    "NaN": lambda: {"model_state_dict": weights() | {"mask_token": torch.full((1, 1, 20), torch.nan)}},
    "an architecture that is none": lambda: {"model_state_dict": weights(), "architecture": "paper"},
    "a config without sizes": lambda: {"model_state_dict": weights(), "config": {"ssl": {}}},
    "a linear head": lambda: {"fc.weight": torch.zeros(3, 20), "fc.bias": torch.zeros(3)},
    "no numbers": lambda: with_weights(mask_token=torch.empty(1, 1, 20, device="meta")),
    "a sparse tensor": lambda: with_weights(mask_token=torch.zeros(1, 1, 20).to_sparse()),
    "eight bits": lambda: with_weights(mask_token=torch.zeros(1, 1, 20).to(torch.float8_e4m3fn)),
    "one number for many": lambda: with_weights(mask_token=torch.zeros(1).expand(1, 1, 20)),
    "a number for a name": lambda: {"model_state_dict": {1: torch.zeros(2), **weights()}, "architecture": ARCHITECTURE},
    "a number for a key": lambda: {1: torch.zeros(2), **weights()},
    "a name for a terminal": lambda: with_weights(**{"evil\nline\x1b[31m": torch.zeros(3)}),
    "an endless setting": lambda: with_architecture(student_encoder_attention=["x"] * 100_000),
    "a setting of many digits": lambda: with_architecture(enc_depth=10**5000),
    "settings of tensors": lambda: with_architecture(d_model=torch.tensor([20, 20])),
    "settings without names": lambda: {"model_state_dict": weights(), "architecture": ARCHITECTURE | {1: 2, None: 3}},
    "weights of something else": lambda: {"model_state_dict": {"a": torch.ones(3)}, "architecture": ARCHITECTURE},
}


def with_weights(**more: torch.Tensor) -> dict[str, Any]:
    return {"model_state_dict": weights() | more, "architecture": ARCHITECTURE}


def with_architecture(**more: Any) -> dict[str, Any]:
    return {"model_state_dict": weights(), "architecture": ARCHITECTURE | more}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_checkpoint_is_refused_in_one_line(wrong: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "wrong.pt"
    torch.save(WRONG[wrong](), path)
    with pytest.raises(InputError, match=r"wrong\.pt") as caught:
        official.load(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    assert not capsys.readouterr().out, "nothing of the file is ever run"


def test_damaged_and_absent_files_are_refused(bare: Path) -> None:
    whole = bare.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 100):
        bare.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=rf"bare\.pt: (an empty file|truncated: {size:,} bytes); download it again"
        ):
            official.load(bare, ARCHITECTURE)
    with pytest.raises(InputError, match="no such file"):
        official.load(bare.with_name("absent.pt"))
    with pytest.raises(InputError, match="cannot be read: a folder"):
        official.load(bare.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"enc_depth": 200}, r"enc_depth is 200 in the architecture, but \d+ in"),
        ({"pred_depth": 200}, r"pred_depth is 200 in the architecture, but \d+ in"),
        ({"d_model": 2000}, r"d_model is 2000 in the architecture, but \d+ in"),
        ({"enc_depth": 2 * 10**7}, "invalid architecture: depth: Input should be less than or equal to 256"),
        ({"d_model": 10**30 * 20}, "invalid architecture: dim: Input should be less than"),
    ],
)
def test_an_absurd_architecture_is_refused_before_a_model_of_it_is_built(
    tmp_path: Path, change: dict, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(with_architecture(**change), tmp_path / "huge.pt")
    monkeypatch.setattr(checkpoints, "PJEPA", lambda config: pytest.fail("a model was built"))
    with pytest.raises(InputError, match=rf"huge\.pt: {said}"):
        official.load(tmp_path / "huge.pt")


def test_another_file_than_expected_is_refused_before_it_is_unpickled(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("the file was unpickled"))
    with pytest.raises(InputError, match="SHA-256 is"):
        official.load(bare, ARCHITECTURE, sha256="0" * 64)


def test_a_flipped_bit_of_a_weight_is_found_though_torch_does_not_look(bare: Path, tmp_path: Path) -> None:
    content = bytearray(bare.read_bytes())
    content[content.index(weights()["student_enc.blocks.0.mlp.fc1.weight"].numpy().tobytes()) + 77] ^= 1
    bare.write_bytes(content)
    torch.load(bare)
    with pytest.raises(InputError, match=r"bare\.pt: damaged: bare/data/\d+ does not match its checksum"):
        official.load(bare, ARCHITECTURE)
    torch.save({"fc.weight": torch.ones(3, 16), "fc.bias": torch.zeros(3)}, tmp_path / "head.pt")
    content = bytearray((tmp_path / "head.pt").read_bytes())
    content[content.index(torch.ones(3, 16).numpy().tobytes())] ^= 1
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"head\.pt: damaged"):
        official.load_head(tmp_path / "head.pt")


BROKEN = {
    "an empty file": (b"", "an empty file; download it again"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "run 'git lfs pull'"),
    "a page": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "text": (
        "Zugriff verweigert: ä\n".encode(),
        "a text file, not a torch file; it starts with 'Zugriff verweigert: ä",
    ),
    "three bytes": (b"PK\x03", "truncated: 3 bytes of 583,007,046; download it again"),
    "the beginning": (b"PK\x03\x04" + bytes(5000), "truncated: 5,004 bytes of 583,007,046; download it again"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_downloads_are_told_apart_in_one_line_without_warnings(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    content, message = BROKEN[kind]
    path = tmp_path / "assembly101_tsm_clip.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"assembly101_tsm_clip\.pt: .*{message}") as refusal:
        official.load(path)
    assert str(refusal.value).isprintable() and not caplog.text and not recwarn.list


def test_parameters_load_as_the_tensors_that_they_are(tmp_path: Path) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in weights().items()}
    torch.save({"model_state_dict": parameters, "architecture": ARCHITECTURE}, tmp_path / "p.pt")
    assert torch.equal(official.load(tmp_path / "p.pt").mask_token, weights()["mask_token"])
