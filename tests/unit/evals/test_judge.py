"""What is judged: representations as they are or in bands, and what of them is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from two_classes import write_data

from keystep.data.folder import open_dataset
from keystep.errors import InputError
from keystep.evals.judge import Banded, Judge
from keystep.evals.probe import ProbeConfig
from keystep.evals.probe_cache import ProbeCache
from keystep.evals.rows import Row
from keystep.types import parse_rate

PROBE = ProbeConfig(penalties=(0.1, 0.01))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    root = write_data(tmp_path_factory.mktemp("judge") / "data")
    folder = open_dataset(root, source_rate=parse_rate(4), rate=parse_rate(2))
    return Judge(folder, folder.split("1"), PROBE)


@pytest.fixture(scope="module")
def banded(judge: Judge) -> Banded:
    """The features, and beside them noise."""
    random = np.random.default_rng(0)
    raw = {name: judge.folder.vectors(name) for name in judge.videos}
    noisy = {name: np.concatenate([x, random.normal(size=x.shape).astype(np.float32)], 1) for name, x in raw.items()}
    return Banded(noisy, {"frame": 4, "noise": 4})


def test_bands_are_judged_and_their_strengths_kept(judge: Judge, banded: Banded, tmp_path: Path) -> None:
    keeping = replace(judge, kept=ProbeCache(tmp_path))
    first = keeping.run(lambda: banded, key="banded")
    again = keeping.run(lambda: pytest.fail("it was kept"), key="banded")
    assert set(first.probe.strengths) == {"frame", "noise"} and len(first.probe.weight) == 8
    (one, other) = (Row("banded", "control", "causal", runs=[run]).to_json() for run in (first, again))
    assert one == other
    assert one["runs"][0]["strengths"] == first.probe.strengths
    assert one["runs"][0]["penalty_at_edge"] is first.probe.at_edge


def test_columns_without_bands_have_no_strengths(judge: Judge, banded: Banded, tmp_path: Path) -> None:
    keeping = replace(judge, kept=ProbeCache(tmp_path))
    runs = [keeping.run(banded.videos, key="plain") for _ in range(2)]
    assert [run.probe.strengths for run in runs] == [{}, {}]


@pytest.mark.parametrize(
    ("widths", "line"),
    [({"frame": 5}, r"need \(T, 5\)"), ({}, "must not be empty"), ({"a": 4, "b": 0}, "band 'b' has 0 columns")],
)
def test_bands_that_are_not_the_columns_are_refused(banded: Banded, widths: dict[str, int], line: str) -> None:
    with pytest.raises(InputError, match=line):
        Banded(banded.videos, widths)
