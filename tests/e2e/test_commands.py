"""The commands as a user types them: what they write, what they say, how they refuse."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import yaml
from small import QUICK, SMALL

Run = Callable[..., tuple[int, str, str]]


def pretrain(keystep: Run, data: Path, run: Path, *options: object) -> None:
    status, _, error = keystep("pretrain", data, "--source-rate", 4, "--split", 1, "--out", run, *SMALL, *options)
    assert status == 0, error


def test_pretrain_eval_report_from_end_to_end(keystep: Run, data: Path, tmp_path: Path) -> None:
    pretrain(keystep, data, tmp_path / "a")
    pretrain(keystep, data, tmp_path / "b", "--set", "target.offsets=[0]")
    models = ("--model", f"pjepa={tmp_path / 'a'}", "--model", f"reconstruction={tmp_path / 'b'}")
    result = tmp_path / "result"
    status, said, error = keystep("eval", data, "--source-rate", 4, *models, "--out", result, *QUICK)
    assert status == 0, error
    assert "untrained encoder" in said and "not enough seeds" in said and "report.html" in said
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("No claim, not enough seeds (1, 3 needed): pjepa alone")
    record = json.loads((result / "result.json").read_text())
    learned, control = record["models"]
    assert len(learned["settings"]["target"]["offsets"]) == 15 and control["settings"]["target"]["offsets"] == [0]
    tau = learned["settings"]["data"]["tau"]
    assert tau > 0 and learned["settings"]["model"]["tau"] == pytest.approx(4 * tau)
    assert learned["weights"] != control["weights"] and record["data"]["fingerprint"] and record["command"]
    families = {row["name"]: row["family"] for row in record["rows"]}
    assert families["pjepa"] == "learned" and families["reconstruction"] == "reconstruction"
    page = (result / "report.html").read_text()
    assert f'<p class="main">{sentence}</p>' in unescape(page)
    assert "pjepa ++ moving average" in page and list((result / "pictures").glob("*.png"))
    (result / "report.html").unlink()
    status, said, _ = keystep("report", result, "--markdown")
    assert status == 0 and "|" in said and (result / "report.html").exists()


def test_latents_in_the_mstcn_layout_are_a_data_set_that_other_code_reads(
    keystep: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    arguments = ("encode", trained, data, "--source-rate", 4, "--rate", 2, "--layout", "mstcn", "--out", out)
    status, said, error = keystep(*arguments)
    assert status == 0, error
    width = 6 + (9 + 16) * 6 + (4 * 6 + 1) + 4 * 6 + 2 * 24
    assert f"{width} dimensions (frame 6 + around 150 + memory 25 + ahead 24 + steady 24 + context 24)" in said
    for name in ("video0", "video7"):
        latents = np.load(out / "features" / f"{name}.npy")
        labels = (out / "groundTruth" / f"{name}.txt").read_text().splitlines()
        assert latents.shape == (width, len(labels)), "(D, T) with a label for each column"
        assert np.array_equal(latents[:, 0], latents[:, 1]), "each latent is held for the two frames it stands for"
    assert (out / "splits" / "train.split1.bundle").exists() and (out / "mapping.txt").exists()
    status, said, _ = keystep("inspect", out, "--picture", tmp_path / "p.png")
    assert status == 0 and f"8 videos, {width} dimensions" in said
    times = {path: path.stat().st_mtime_ns for path in (out / "features").glob("*.npy")}
    assert keystep(*arguments)[0] == 0
    assert times == {path: path.stat().st_mtime_ns for path in (out / "features").glob("*.npy")}, "done is done"


def test_latents_in_the_native_layout_are_read_again_at_their_own_rate(
    keystep: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    status, _, error = keystep(
        "encode", trained, data, "--source-rate", 4, "--rate", 2, "--out", out, "--half", "--live"
    )
    assert status == 0, error
    latents = np.load(out / "features" / "video0.npy")
    assert latents.shape == (25, 6 + (6 + 8) * 6 + (4 * 6 + 1) + 2 * 24) and latents.dtype == np.float16
    assert json.loads((out / "features" / "video0.json").read_text())["timeline"]["rate"] == "2"
    bands = json.loads((out / "store.json").read_text())["provenance"]["bands"]
    assert bands == {"frame": 6, "around": 84, "memory": 25, "steady": 24, "context": 24}
    assert not (out / "groundTruth").exists(), "labels at another rate would not fit"


def test_inspect_says_what_is_there_and_lists_every_problem(keystep: Run, data: Path, tmp_path: Path) -> None:
    broken = np.load(data / "features" / "video2.npy")
    broken[3, 7] = np.nan
    np.save(data / "features" / "video2.npy", broken)
    whole = (data / "features" / "video3.npy").read_bytes()
    (data / "features" / "video3.npy").write_bytes(whole[:-40])
    (data / "groundTruth" / "forgotten.txt").write_text("cut\n")
    status, said, _ = keystep("inspect", data, "--source-rate", 4, "--picture", tmp_path / "p.png")
    assert status == 1
    assert "labels but no features for 'forgotten'" in said
    assert "video2.npy: NaN or infinite value in frame 7" in said and "video3.npy" in said and "tie a knot" in said
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def corrupt_nothing(data: Path) -> None:
    pass


def drop_column(data: Path) -> None:
    array = np.load(data / "features" / "video1.npy")
    np.save(data / "features" / "video1.npy", array[:5])


def poison(data: Path) -> None:
    array = np.load(data / "features" / "video1.npy")
    array[0, 11] = np.inf
    np.save(data / "features" / "video1.npy", array)


def empty_split(data: Path) -> None:
    (data / "splits" / "train.split1.bundle").write_text("")


def double(data: Path) -> None:
    (data / "splits" / "test.split1.bundle").write_text("video0.txt\nvideo6.txt\n")


def unknown_class(data: Path) -> None:
    path = data / "groundTruth" / "video1.txt"
    path.write_text(path.read_text().replace("cut", "slice"))


def cut_labels(data: Path) -> None:
    path = data / "groundTruth" / "video1.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:20]))


def no_features(data: Path) -> None:
    for path in (data / "features").glob("*"):
        path.unlink()


def test_ctrl_c_is_one_line_where_nothing_can_be_resumed(keystep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keystep.doctor.examine", stop)
    assert keystep("doctor")[::2] == (130, "keystep: stopped\n")


def test_an_empty_argument_is_not_the_current_folder(keystep: Run, data: Path) -> None:
    status, _, error = keystep("encode", "", data, "--out", "latents")
    assert status == 2 and "an empty argument; is a variable of the shell not set?" in error


@pytest.mark.parametrize(
    ("corrupt", "options", "message"),
    [
        (drop_column, (), "video1.npy: width 5"),
        (poison, (), "video1.npy: NaN or infinite value in frame 11"),
        (empty_split, (), "train.split1.bundle: an empty split"),
        (double, (), "'video0' both in train and in test"),
        (no_features, (), "no features/*.npy here"),
        (corrupt_nothing, ("--split", "9"), "no split '9'"),
        (corrupt_nothing, ("--rate", "3"), "4 Hz cannot be pooled to 3 Hz"),
        (corrupt_nothing, ("--set", "train.step=3"), "unknown setting train.step (did you mean steps?)"),
        (corrupt_nothing, ("--set", "masking.ratio=2"), "masking.ratio"),
        (corrupt_nothing, ("--set", "model.heads=5"), "must be a multiple of heads 5"),
        (corrupt_nothing, ("--preset", "big"), "unknown preset 'big'"),
        (corrupt_nothing, ("--config", "absent.yaml"), "absent.yaml: no such file or folder"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_bad_input_is_one_line_and_leaves_nothing(
    keystep: Run, data: Path, tmp_path: Path, corrupt, options: tuple[str, ...], message: str
) -> None:
    corrupt(data)
    run = tmp_path / "run"
    status, _, error = keystep("pretrain", data, "--source-rate", 4, "--split", 1, "--out", run, *SMALL, *options)
    assert status == 2
    assert message in error and len(error.strip().splitlines()) == 1 and "Traceback" not in error
    assert not run.exists()


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (unknown_class, "class 'slice' is not in mapping.txt"),
        (cut_labels, "55 frames of features (shape (6, 55)) but 20 labels"),
    ],
)
def test_bad_labels_stop_eval_but_never_pretraining(
    keystep: Run, data: Path, tmp_path: Path, corrupt, message: str
) -> None:
    corrupt(data)
    pretrain(keystep, data, tmp_path / "run")
    options = ("--model", f"pjepa={tmp_path / 'run'}", "--out", tmp_path / "result")
    status, _, error = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "result").exists()


def test_skip_goes_on_without_the_bad_videos_and_lists_them(keystep: Run, data: Path, tmp_path: Path) -> None:
    poison(data)
    pretrain(keystep, data, tmp_path / "run", "--on-error", "skip")
    options = ("--model", f"pjepa={tmp_path / 'run'}", "--out", tmp_path / "result", "--on-error", "skip", *QUICK)
    status, said, error = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 0, error
    assert "left out" in said and "video1.npy" in said
    record = json.loads((tmp_path / "result" / "result.json").read_text())
    assert record["data"]["videos"]["train"] == 3 and list(record["data"]["left_out"]) == ["video1"]


def test_models_of_another_width_are_refused(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    for path in (data / "features").glob("*.npy"):
        np.save(path, np.load(path)[:4])
    for command in (("encode", trained, data), ("eval", data, "--model", f"pjepa={trained}")):
        status, _, error = keystep(*command, "--source-rate", 4, "--out", tmp_path / "out")
        assert status == 2 and "6" in error and "4" in error and len(error.strip().splitlines()) == 1
        assert not (tmp_path / "out" / "features").exists()


def test_eval_says_when_a_model_has_seen_the_test_videos(keystep: Run, data: Path, tmp_path: Path) -> None:
    status, _, error = keystep("pretrain", data, "--source-rate", 4, "--out", tmp_path / "run", *SMALL)
    assert status == 0, error
    options = ("--model", f"all={tmp_path / 'run'}", "--out", tmp_path / "result", *QUICK)
    status, said, _ = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 0 and "without labels, on 3 of the test videos" in " ".join(said.split())
    assert "test videos" in json.loads((tmp_path / "result" / "result.json").read_text())["data"]["notes"][0]


def test_a_run_is_not_overwritten(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    status, _, error = keystep("pretrain", data, "--source-rate", 4, "--out", trained, *SMALL)
    assert status == 2 and "not empty" in error and "--resume" in error


def test_convert_refuses_what_it_does_not_know(keystep: Run, tmp_path: Path) -> None:
    status, _, error = keystep("convert", "official", tmp_path / "none.pt", "--out", tmp_path / "model")
    assert status == 2 and "no such file" in error and not (tmp_path / "model").exists()
    (tmp_path / "some.pt").touch()
    status, _, error = keystep("convert", "lightly", tmp_path / "some.pt", "--out", tmp_path / "model")
    assert status == 2 and "unknown format 'lightly'; expected official" in error


def test_convert_makes_a_model_folder_of_the_authors_file(keystep: Run, tmp_path: Path) -> None:
    weights = reference.random_weights(np.random.default_rng(0))
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "theirs.pt")
    settings = reference.architecture("clip_causal", "2d_clip_frame")
    (tmp_path / "architecture.yaml").write_text(yaml.safe_dump(settings))
    options = ("convert", "official", tmp_path / "theirs.pt", "--out", tmp_path / "model")
    status, _, error = keystep(*options)
    assert status == 2 and "give its architecture: d_in" in error and not (tmp_path / "model").exists()
    options += ("--architecture", tmp_path / "architecture.yaml")
    status, _, error = keystep(*options, "--sha256", "0123456789")
    assert status == 2 and "SHA-256 is" in error and not (tmp_path / "model").exists()
    status, said, _ = keystep(*options)
    assert status == 0 and "ORACLE: needs true segment boundaries" in said
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1, "both can be read by the same"


def test_config_prints_a_file_that_makes_the_same_run(keystep: Run, tmp_path: Path) -> None:
    from keystep.config import RunConfig
    from keystep.config.base import build, read_yaml
    from keystep.config.presets import preset_settings

    for preset in ("tiny", "paper"):
        status, said, _ = keystep("config", "--preset", preset)
        assert status == 0 and "# " in said
        (tmp_path / "c.yaml").write_text(said)
        base = {"data": {"root": "DATA"}}
        assert build(RunConfig, read_yaml(tmp_path / "c.yaml")) == build(RunConfig, base, preset_settings(preset))
    assert json.loads(keystep("config", "--schema")[1])["title"] == "RunConfig"


def test_help_is_instant_because_torch_is_not_loaded() -> None:
    code = "import sys; sys.argv=['keystep','--help']\nfrom keystep.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "inspect", "pretrain", "encode", "eval", "report", "config", "convert", "import"):
        assert command in done.stdout


def test_nothing_of_the_users_is_ever_deleted_to_make_room(
    keystep: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "results" / "first").mkdir(parents=True)
    (tmp_path / "results" / "notes.md").write_text("mine")
    options = ("--model", f"pjepa={trained}", "--out", tmp_path / "results", *QUICK)
    status, _, error = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 2 and "would be lost" in error
    assert (tmp_path / "results" / "notes.md").read_text() == "mine"


def test_one_model_three_times_is_not_three_seeds(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    pretrain(keystep, data, tmp_path / "other", "--set", "train.seed=1", "--set", "masking.ratio=0.5")
    run, model, other = trained, trained / "model", tmp_path / "other"
    for names, message in (
        ((f"p={run}", f"p={run}"), "used twice"),
        ((f"moving average={run}",), "stands for a control"),
        ((f"p={run},{model}",), "same weights"),
        ((f"p={run},{other}",), "more than the seed"),
    ):
        models = [part for name in names for part in ("--model", name)]
        status, _, error = keystep("eval", data, "--source-rate", 4, *models, "--out", tmp_path / "result", *QUICK)
        assert status == 2 and message in error, names


def test_another_rate_than_in_training_is_said(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ("encode", trained / "model", data, "--source-rate", 4, "--rate", 2, "--out", tmp_path / "out")
    status, said, _ = keystep(*arguments)
    assert status == 0 and "was trained at 4 Hz and reads 2 Hz here" in " ".join(said.split())


def test_latents_of_another_model_are_not_mixed_in(keystep: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    pretrain(keystep, data, tmp_path / "b", "--set", "train.seed=1")
    assert keystep("encode", trained, data, "--source-rate", 4, "--out", tmp_path / "out")[0] == 0
    status, _, error = keystep("encode", tmp_path / "b", data, "--source-rate", 4, "--out", tmp_path / "out")
    assert status == 2 and "choose another folder" in error


def test_divergence_and_a_launcher_that_does_not_fit_are_one_line(
    keystep: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("pretrain", data, "--source-rate", 4, *SMALL)
    settings = ("--set", "train.learning_rate=1e30", "--set", "train.warmup=0")
    status, _, error = keystep(*arguments, "--out", tmp_path / "a", *settings)
    assert status == 2 and "lower train.learning_rate" in error
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, error = keystep(*arguments, "--out", tmp_path / "b")
    assert status == 2 and "the launcher started 2 processes" in error and len(error.strip().splitlines()) == 1


def test_a_run_that_died_before_its_first_checkpoint_can_be_resumed(keystep: Run, data: Path, tmp_path: Path) -> None:
    pretrain(keystep, data, tmp_path / "run")
    whole = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.rmtree(tmp_path / "run" / "model")
    assert keystep("pretrain", "--resume", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == whole


def test_a_folder_with_gaps_and_explicit_times_goes_through_every_command(
    keystep: Run, data: Path, tmp_path: Path
) -> None:
    (data / "times").mkdir()
    for index in range(8):
        path = data / "groundTruth" / f"video{index}.txt"
        lines = path.read_text().split("\n")
        path.write_text("\n".join(["(unlabelled)"] * 9 + lines[9:20] + ["(unlabelled)"] * 6 + lines[26:]))
        if index < 5:
            np.save(data / "times" / f"video{index}.npy", np.arange(50 + 5 * index) / 4 + 0.05)
    status, said, _ = keystep("inspect", data, "--source-rate", 4, "--picture", tmp_path / "p.png")
    said = " ".join(said.split())
    assert status == 0 and "unlabelled: 120 frames" in said
    assert "5 of 8 videos have explicit times, up to 0.050 s from the regular timeline at 4 Hz" in said
    pretrain(keystep, data, tmp_path / "run", "--set", "model.attention.kind=segment_causal")
    options = ("--model", f"pjepa={tmp_path / 'run'}", "--out", tmp_path / "result", *QUICK)
    status, _, error = keystep("eval", data, "--source-rate", 4, "--rate", 2, *options)
    assert status == 2 and "was trained at 4 Hz, but the data are read at 2 Hz; omit --rate" in error
    status, _, error = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 0, error
    status, _, error = keystep("eval", data, "--source-rate", 4, *options)
    assert status == 2 and "holds a result already; give --overwrite" in error
    status, _, error = keystep("eval", data, "--source-rate", 4, *options, "--overwrite", "--quick")
    assert status == 0, error
    options = ("--source-rate", 4, "--rate", 2, "--out", tmp_path / "latents")
    assert keystep("encode", tmp_path / "run", data, *options)[0] == 0
    carried = np.load(tmp_path / "latents" / "times" / "video1.npy")
    np.testing.assert_allclose(carried[:3], [0.175, 0.675, 1.175])
    assert len(carried) == 28 and not (tmp_path / "latents" / "times" / "video6.npy").exists()


def test_inspect_lists_times_and_segments_that_do_not_fit(keystep: Run, data: Path, tmp_path: Path) -> None:
    for part in ("times", "segments"):
        (data / part).mkdir()
    np.save(data / "times" / "video1.npy", np.arange(5) / 4)
    (data / "segments" / "video2.txt").write_text("1\n")
    status, said, _ = keystep("inspect", data, "--source-rate", 4, "--picture", tmp_path / "p.png")
    assert status == 1 and "5 times for 55 slots" in said and "its 1 segments have 1 frames" in said


def test_a_test_video_without_any_label_is_refused_before_the_judging(keystep: Run, data: Path, tmp_path: Path) -> None:
    (data / "groundTruth" / "video7.txt").write_text("(unlabelled)\n" * 85)
    status, _, error = keystep("eval", data, "--source-rate", 4, "--out", tmp_path / "result", *QUICK)
    assert status == 2 and "no frame of 'video7' has a label" in error
