"""What stands side by side in a row: controls in bands, and latents with one more."""

import numpy as np
import pytest

from keystep.evals.candidates import Candidates
from keystep.evals.judge import Banded
from keystep.evals.study import apply_control, concatenate, with_bands, without_bands

RANDOM = np.random.default_rng(0)
RAW = {name: RANDOM.normal(size=(length, 3)).astype(np.float32) for name, length in (("a", 40), ("b", 25))}
CANDIDATES = Candidates(list(RAW.values()), 2.0, 1.5)


def test_a_control_of_several_parts_is_a_representation_in_bands() -> None:
    together = CANDIDATES.together(
        CANDIDATES.smoothing(causal=True)[2], CANDIDATES.offsets(causal=True)[0], causal=True
    )
    found = apply_control(together, RAW)
    assert isinstance(found, Banded) and list(found.widths) == list(together.parts)
    start = 0
    for name, width in found.widths.items():
        for video, features in RAW.items():
            part = together.parts[name].transform(features)
            np.testing.assert_array_equal(found.videos[video][:, start : start + width], part)
        start += width
    single = apply_control(CANDIDATES.histories(causal=True)["clock"], RAW)
    assert not isinstance(single, Banded) and without_bands(single) is single


@pytest.mark.parametrize(
    ("bands", "chosen", "read"),
    [
        ({}, {}, {"latents": 3}),
        ({"frame": 1, "memory": 2}, {"frame": 1.0, "memory": 0.3}, {"frame": 1, "memory": 2}),
        ({"frame": 1, "memory": 2}, {"frame": 0.0, "memory": 1.0}, {"memory": 2}),
    ],
)
def test_what_stands_beside_latents_is_one_more_band_behind_those_that_their_probe_reads(
    bands: dict[str, int], chosen: dict[str, float], read: dict[str, int]
) -> None:
    latents = with_bands(RAW, bands)
    control = apply_control(CANDIDATES.histories(causal=True)["clock"], RAW)
    both = concatenate(latents, control, "control", chosen)
    assert both.widths == {**read, "control": 2}
    assert both.chosen == ({band: chosen[band] for band in read} if bands else {"latents": 1.0})
    kept = sum(read.values())
    for video, features in RAW.items():
        np.testing.assert_array_equal(both.videos[video][:, :kept], features[:, 3 - kept :])
        np.testing.assert_array_equal(both.videos[video][:, kept:], without_bands(control)[video])
