"""What lies in the work folder is taken as it is only if it can be what was written."""

from pathlib import Path

import numpy as np
import pytest

from keystep.serve.kept import kept

WRITTEN = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    "found",
    [WRITTEN[:3], WRITTEN[:, :2], WRITTEN.astype(np.float64), WRITTEN[0], -WRITTEN],
    ids=["shorter", "narrower", "another type", "fewer axes", "impossible"],
)
def test_an_array_that_does_not_fit_is_made_again(tmp_path: Path, found: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", found)
    again = kept(tmp_path / "a.npy", lambda: WRITTEN, (4, 3), np.float32, lambda rows: bool((rows >= 0).all()))
    np.testing.assert_array_equal(again, WRITTEN)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), WRITTEN)


def test_a_damaged_file_is_made_again_and_a_sound_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"no array")

    def never() -> np.ndarray:
        raise AssertionError

    np.testing.assert_array_equal(kept(tmp_path / "a.npy", lambda: WRITTEN, (4, 3), np.float32), WRITTEN)
    assert isinstance(kept(tmp_path / "a.npy", never, (4, None), np.float32), np.memmap)
