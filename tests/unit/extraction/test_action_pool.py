"""The action-pool: learns from labels of training videos alone, and says so."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from keystep.data.annotation import IGNORED, UNLABELLED
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.data.store import FeatureStore
from keystep.data.timeline import Timeline
from keystep.errors import InputError
from keystep.extraction.action_pool import PIECE, ActionPoolConfig, Fitted, _batches, fit_action_pool
from keystep.files import write_lines

TOKENS, WIDTH = 4, 16
CLASSES = ("wait", "cut", "stir")
QUICK = ActionPoolConfig(heads=2, depth=0, steps=60, batch_size=8, learning_rate=1e-2, looks=3)


def write_tokens(root: Path, videos: int = 8, seed: int = 0) -> FeatureFolder:
    """One of four tokens, now this, now that, shows the step of its slot and a mark; the others show steps at random.

    Videos 0-4 train, 5 validates, 6 and 7 test; the last slots of each video have no label.
    """
    rng = np.random.default_rng(seed)
    looks, mark = 1.5 * rng.normal(size=(len(CLASSES), WIDTH)), 2 * rng.normal(size=WIDTH)
    store = FeatureStore(root, Timeline(rate=Fraction(4)), provenance={"tokens": TOKENS}).create()
    write_lines(root / "mapping.txt", [f"{i} {name}" for i, name in enumerate(CLASSES)])
    for index in range(videos):
        length = 60 + index
        ids = np.repeat(rng.integers(len(CLASSES), size=length), 6)[:length]
        tokens = looks[rng.integers(len(CLASSES), size=(length, TOKENS))]
        tokens[np.arange(length), rng.integers(TOKENS, size=length)] = looks[ids] + mark
        tokens = (tokens + 0.3 * rng.normal(size=tokens.shape)).astype(np.float32)
        names = [CLASSES[i] for i in ids[:-5]] + [UNLABELLED] * 5
        store.add(f"video{index}", tokens.reshape(length, -1), labels=names)
    for part, chosen in (("train", range(5)), ("valid", [5]), ("test", [6, 7])):
        write_lines(root / "splits" / f"{part}.split1.bundle", [f"video{i}.txt" for i in chosen])
    store.finish()
    return open_dataset(root)


def test_what_labels_teach_is_to_look_at_the_token_that_shows_the_step(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens")
    fitted = fit_action_pool(folder, folder.split("1"), QUICK)
    assert fitted.origin["validation_accuracy"] > 80
    assert "training videos" in fitted.origin["labels"] and "video6" not in fitted.origin["labelled_videos"]


def test_test_videos_are_never_opened(tmp_path: Path) -> None:
    first = write_tokens(tmp_path / "tokens")
    whole = fit_action_pool(first, first.split("1"), QUICK)
    for name in ("video6", "video7"):  # the same lengths, other features and labels
        features = np.load(tmp_path / "tokens" / "features" / f"{name}.npy")
        np.save(tmp_path / "tokens" / "features" / f"{name}.npy", np.full_like(features, np.nan))
        write_lines(tmp_path / "tokens" / "groundTruth" / f"{name}.txt", ["cut"] * len(features))
    changed = open_dataset(tmp_path / "tokens")
    again = fit_action_pool(changed, changed.split("1"), QUICK)
    for name, tensor in whole.pooler.state_dict().items():
        assert torch.equal(again.pooler.state_dict()[name], tensor), name


def test_every_labelled_training_slot_and_no_other_is_learned_from(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens")
    labels = {name: folder.labels(name) for name in folder.split("1").train}
    known = {name: ids != IGNORED for name, ids in labels.items()}
    expected = np.concatenate([folder.features(name)[known[name]] for name in labels])
    wanted = np.concatenate([labels[name][known[name]] for name in labels])
    pieces = sum(-(-len(ids) // PIECE) for ids in labels.values())
    config = ActionPoolConfig(steps=1, batch_size=pieces)  # one pass
    ((features, classes),) = _batches(folder, folder.split("1").train, labels, config)
    order, right = np.lexsort(features.numpy().T), np.lexsort(expected.T)
    assert np.array_equal(features.numpy()[order], expected[right])
    assert np.array_equal(classes.numpy()[order], wanted[right])


def test_a_saved_pooler_gives_the_same_vectors(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens")
    fitted = fit_action_pool(folder, folder.split("1"), QUICK.model_copy(update={"dim": 24, "depth": 1, "steps": 5}))
    fitted.save(tmp_path / "pooler")
    loaded = Fitted.load(tmp_path / "pooler")
    features = np.concatenate([folder.features(f"video{i}") for i in range(8)] * 2)  # more than pooled at once
    pooled = loaded.pooler.pool(features)
    assert pooled.shape == (len(features), 24) and pooled.dtype == np.float32
    assert np.array_equal(pooled, fitted.pooler.pool(features)) and loaded.origin == fitted.origin
    np.testing.assert_allclose(loaded.pooler.pool(features[600:601])[0], pooled[600], atol=1e-5)


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens")
    with pytest.raises(InputError, match="must be a multiple of the 3 heads"):
        fit_action_pool(folder, folder.split("1"), QUICK.model_copy(update={"heads": 3}))
    for name in folder.split("1").train:
        write_lines(tmp_path / "tokens" / "groundTruth" / f"{name}.txt", [UNLABELLED] * folder.length(name))
    with pytest.raises(InputError, match="no labelled slot in the train videos"):
        fit_action_pool(open_dataset(tmp_path / "tokens"), folder.split("1"), QUICK)
    record = json.loads((tmp_path / "tokens" / "store.json").read_text())
    record["provenance"] = {}
    (tmp_path / "tokens" / "store.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="one token per slot"):
        fit_action_pool(open_dataset(tmp_path / "tokens"), folder.split("1"), QUICK)
