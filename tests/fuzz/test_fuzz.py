"""Damaged files of every kind are read or refused in one line, and nothing that a checksum covers changes silently.

``make fuzz`` does the same with 100,000 files; ``docs/reliability.md`` has its table.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the harness is no package: `make fuzz` runs it as a script

from harness import Kind, corpus_name, fuzz, replay  # noqa: E402
from kinds import all_kinds  # noqa: E402

COUNT, SECONDS = 300, 0.3
"""Files of each kind, or as many as take so long; the kinds that build networks come to fewer."""
CORPUS = sorted((HERE / "corpus").glob("*"))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kind]]:
    yield all_kinds(tmp_path_factory.mktemp("fuzz"))


def test_damaged_files_of_every_kind_are_read_or_refused_in_one_line(kinds: dict[str, Kind]) -> None:
    findings = []
    for kind in kinds.values():
        tally = fuzz(kind, COUNT, seed=0, budget=SECONDS)
        assert tally.count, f"{kind.name}: too slow, {tally.slowest:.1f} s a file"
        findings += tally.findings
    assert not findings, "\n".join(f"{finding.name}: {finding.what}" for finding in findings[:5])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_once_not_handled_is(kinds: dict[str, Kind], path: Path) -> None:
    plain = {corpus_name(name): kind for name, kind in kinds.items()}
    finding = replay(plain[path.name.rpartition("-")[0]], path.read_bytes())
    assert finding is None, finding.what


def test_every_kind_is_read_when_it_is_sound(kinds: dict[str, Kind]) -> None:
    assert len(kinds) >= 45
    for kind in kinds.values():
        kind.read()
