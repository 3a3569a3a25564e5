"""Discovered segments: written whole, and refused where they do not fit."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from keystep.config import MaskingConfig, TrainConfig
from keystep.data.crops import Crops
from keystep.data.discovered import check_free, read_boundaries, write_boundaries
from keystep.data.folder import FeatureFolder, open_dataset
from keystep.errors import InputError

MakeFolder = Callable[..., Path]
RECORD = {
    "settings": {},
    "rate": "2",
    "look_ahead_slots": 3,
    "threshold": 0.5,
    "scale": [1.0, 2.0],
    "width": 2,
    "fitted_on": ["a"],
}


@pytest.fixture
def found(tmp_path: Path) -> Path:
    write_boundaries(tmp_path / "found", {"a": [3, 4], "b": [5]}, RECORD)
    return tmp_path / "found"


@pytest.fixture
def root(make_folder: MakeFolder) -> Path:
    return make_folder(lengths={"a": 14, "b": 9, "c": 4}, splits={"train.split1": ["a", "b"], "test.split1": ["c"]})


def opened(root: Path, found: Path | None) -> FeatureFolder:
    return open_dataset(root, source_rate=Fraction(4), rate=Fraction(2), boundaries=found)


def test_a_folder_gives_true_and_discovered_segments_to_those_who_read_them(root: Path, found: Path) -> None:
    folder = opened(root, found)
    assert folder.segments("a", "discovered") == [3, 4] and folder.segments("a", "discovered", 1, 6) == [2, 3]
    assert folder.segments("a", "true") == folder.segment_lengths("a") and folder.segments("a", None) is None
    assert folder.discovered is not None and folder.discovered.delay(["a", "b"]) == (5 + 3) / 2
    with pytest.raises(InputError, match=r"found: no c\.txt; run 'keystep segment' on all videos"):
        folder.segments("c", "discovered")
    with pytest.raises(InputError, match="no discovered boundaries; give the folder"):
        opened(root, None).segments("a", "discovered")


def test_crops_carry_the_discovered_segments_of_their_frames(root: Path, found: Path) -> None:
    train = TrainConfig(steps=20, batch_size=1, crop=4)
    crops = Crops(opened(root, found), ["a"], train, MaskingConfig(), segments="discovered")
    segments = {tuple(crops.sample(index)[2] or ()) for index in range(20)}
    assert segments == {(3, 1), (2, 2), (1, 3), (4,)}


def test_other_boundaries_are_other_data(root: Path, found: Path, tmp_path: Path) -> None:
    before = opened(root, found).fingerprint()
    assert before == opened(root, found).fingerprint() != opened(root, None).fingerprint()
    write_boundaries(found, {"a": [4, 3], "b": [5]}, RECORD)
    assert opened(root, found).fingerprint() != before
    write_boundaries(found, {"a": [3, 4], "b": [5]}, RECORD | {"threshold": 0.6})
    assert opened(root, found).fingerprint() != before


def test_the_same_boundaries_by_another_command_are_the_same_data(root: Path, found: Path) -> None:
    named = {"command": "keystep segment ./a", "data": {"name": "a"}, "fitted_on": ["b", "a"]}
    before = opened(root, found).fingerprint()
    write_boundaries(found, {"a": [3, 4], "b": [5]}, RECORD | named)
    assert opened(root, found).fingerprint() == before


def test_what_the_model_of_a_segmenter_was_trained_on_belongs_to_its_past(root: Path, found: Path) -> None:
    def past(model: dict | None) -> tuple[set[str], bool]:
        write_boundaries(found, {"a": [3, 4], "b": [5]}, RECORD | {"model": model})
        discovered = opened(root, found).discovered
        assert discovered is not None
        return set(discovered.fitted_on), discovered.whole_past

    model = {"source": "runs/a", "weights": "0123"}
    assert past(None) == ({"a"}, True)
    assert past(model | {"videos": ["a", "c"]}) == ({"a", "c"}, True)
    assert past(model) == ({"a"}, False), "of a model that says nothing, nothing is known"


def no_record(found: Path) -> None:
    (found / "segmenter.json").unlink()


def foreign(found: Path) -> None:
    (found / "segmenter.json").write_text('{"format": "else"}')


def damaged(found: Path) -> None:
    record = json.loads((found / "segmenter.json").read_text())
    del record["look_ahead_slots"]
    (found / "segmenter.json").write_text(json.dumps(record))


def says(**changes: object) -> Callable[[Path], None]:
    def harm(found: Path) -> None:
        record = json.loads((found / "segmenter.json").read_text())
        (found / "segmenter.json").write_text(json.dumps(record | changes))

    return harm


def other_rate(found: Path) -> None:
    record = json.loads((found / "segmenter.json").read_text())
    (found / "segmenter.json").write_text(json.dumps(record | {"rate": "3"}))


def too_short(found: Path) -> None:
    (found / "a.txt").write_text("3\n")


def no_number(found: Path) -> None:
    (found / "b.txt").write_text("five\n")


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (no_record, "segmenter.json: no such file; 'keystep segment' writes folders"),
        (foreign, "not a segmenter of format"),
        (damaged, r"segmenter\.json: damaged: look_ahead_slots: Field required; run 'keystep segment' again"),
        (says(settings=[1]), r"segmenter\.json: damaged: settings: Input should be a valid dictionary"),
        (says(settings=None), "damaged: settings: Input should be a valid dictionary"),
        (says(settings="window"), "damaged: settings: Input should be a valid dictionary"),
        (says(scale=[1.0, 0.0]), r"damaged: scale\.1: Input should be greater than 0"),
        (says(scale=[1.0, float("inf")]), r"damaged: scale\.1: Input should be a finite number"),
        (says(scale=[]), "damaged: scale: Tuple should have at least 1 item"),
        (says(threshold=float("nan")), "damaged: threshold: Input should be a finite number"),
        (says(fitted_on="a"), "damaged: fitted_on: Input should be a valid tuple"),
        (says(fitted_on=[["a"]]), r"damaged: fitted_on\.0: Input should be a valid string"),
        (says(model="runs/a"), "damaged: model: Input should be a valid dictionary"),
        (says(rate=["2"]), r"damaged: rate: .* is no rate in Hz"),
        (other_rate, "boundaries at 3 Hz do not fit features at 2 Hz; give --rate 3"),
        (too_short, r"a\.txt: its 1 segments have 3 frames; the video has 7"),
        (no_number, r"b\.txt, line 1: 'five' is no segment length"),
    ],
)
def test_what_does_not_fit_is_one_line(root: Path, found: Path, harm: Callable[[Path], None], line: str) -> None:
    harm(found)
    with pytest.raises(InputError, match=line) as caught:
        opened(root, found)
    assert "\n" not in str(caught.value)


def test_only_a_folder_of_boundaries_is_replaced(found: Path) -> None:
    check_free(found, ["a", "b"])
    (found / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which would be lost"):
        write_boundaries(found, {"a": [7], "b": [5]}, RECORD)
    (found / "thesis.txt").unlink()
    write_boundaries(found, {"a": [7]}, RECORD, known=["b"])
    assert read_boundaries(found, Fraction(2), {"a": 7, "b": 5}).videos == {"a": (7,)}
