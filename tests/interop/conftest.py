import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"] if GOLDEN.exists() else []
"""The authors' code run on random weights; its README says how, and how near another implementation comes."""


@pytest.fixture(scope="session")
def golden() -> Path:
    if not CASES:
        pytest.skip(f"no folder {GOLDEN}: the authors' reference tensors are not part of this repository")
    return GOLDEN


@pytest.fixture(scope="session")
def cases(golden: Path) -> list[dict]:
    return CASES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take a ``case`` run on each of the authors' ten, or once, to say that these are not here."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES or [{"name": "no golden files"}], ids=lambda case: case["name"])
