"""Frames of a video beside each other."""

import pytest

from keystep.cli.film import fitting


@pytest.mark.parametrize("ratio", [0.2, 9 / 16, 1.0, 4 / 3, 16 / 9, 3.2, 40.0])
def test_frames_keep_their_proportions_and_fill_the_strip(ratio: float) -> None:
    strip = 11.0
    count, across, down = fitting(ratio, strip)
    assert across * strip / count / down == pytest.approx(ratio)
    assert across < 1 and down <= 1
    assert max(across, down) > 0.97, "each takes what its place offers"
    assert abs(count - strip / ratio) <= 0.5 or count == 1
