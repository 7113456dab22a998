"""Seeded damage to files of every format: an error or a verdict, never anything else.

``python -m fixtures.robustness`` scans many more, and more of them with the real command.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.mutations import mutants, seed_files
from fixtures.robustness import Scanner

COUNT = 112
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_end_in_an_error_or_a_verdict(part: int, tmp_path: Path) -> None:
    scanner = Scanner()
    chosen = mutants(seed_files(tmp_path), COUNT)[part::PARTS]
    outcomes = [scanner(mutant, tmp_path) for mutant in chosen]
    scanner.end()
    assert [outcome for outcome in outcomes if outcome.fault] == []
    assert 2 in {outcome.code for outcome in outcomes}
    assert len({outcome.code for outcome in outcomes}) > 1, "some damage should not matter"


def test_the_same_seed_gives_the_same_damage(tmp_path: Path) -> None:
    for mutant in mutants(seed_files(tmp_path), 14):
        assert mutant.write(tmp_path).read_bytes() == mutant.write(tmp_path).read_bytes()
