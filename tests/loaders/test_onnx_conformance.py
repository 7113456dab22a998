"""The official ONNX operator cases: all in scope pass, the list of the rest is true."""

from __future__ import annotations

import fnmatch
import tomllib

import onnx
import pytest

from fixtures.onnx_conformance import RESULTS, SCOPE, exclusions, outcomes, summary

LISTED = tomllib.loads(SCOPE.read_text())["onnx"]
same_release = pytest.mark.skipif(
    onnx.__version__.rsplit(".", 1)[0] != LISTED, reason=f"the list is for onnx {LISTED}"
)


def test_every_case_in_scope_passes() -> None:
    failures = {o.name: o.failure for o in outcomes() if o.reason is None and o.failure}
    report = "\n".join(f"{name}: {failure}" for name, failure in failures.items())
    assert not failures, f"{summary()}\n{report}"


def test_far_more_than_a_thousand_cases_pass() -> None:
    assert sum(o.failure is None for o in outcomes()) >= 1600, summary()


@same_release
@pytest.mark.parametrize(
    "pattern", [pattern for entry in exclusions() for pattern in entry.patterns]
)
def test_every_exclusion_is_needed(pattern: str) -> None:
    cases = [o for o in outcomes() if fnmatch.fnmatchcase(o.name, pattern)]
    assert cases, "matches no case"
    assert any(o.failure for o in cases), "every case that it matches passes"


@same_release
def test_committed_result_is_current() -> None:
    committed = RESULTS.read_text()
    assert summary().partition(": ")[2] in committed
