"""What is kept of a detector is all that the rest of a scan needs of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detectors.finding import finding_of
from detectors.types import DetectorResult
from modelaudit.finished import FinishedDetector
from modelaudit.plain import from_plain, harmless, to_plain
from modelaudit.reporting import class_names, detector_report
from modelaudit.resume import detector_key, kept, restored, scan_key
from modelaudit.scanning import ScanOptions, ScanResult, build_detectors, scan
from tests.conftest import BUNDLED

KEY = "0" * 64
#: Detectors of all kinds: with and without patterns, fitted and all-to-all, and one without a test.
SETTINGS = {
    "l-red": {"per_class": "1"},
    "l-red-generator": {"tau_max": "24"},
    "l-red-all-to-all": {"per_class": "1"},
    "neural-cleanse": {"steps": "20"},
    "mm-bd": {"starts": "2", "steps": "5"},
    "l-red-neurons": {"per_class": "1"},
    "l-red-warp": {"tau_max": "1"},
}
OPTIONS = ScanOptions(
    BUNDLED / "badnets.onnx",
    BUNDLED / "images",
    images_per_class=2,
    detectors=tuple(SETTINGS),
    settings=SETTINGS,
)


@pytest.fixture(scope="module")
def scanned() -> ScanResult:
    return scan(OPTIONS)


def there_and_back(result: DetectorResult, scanned: ScanResult) -> DetectorResult:
    """As JSON text, as it comes from a worker and lies on a disk."""
    one = kept(KEY, result, scanned.suspect)
    assert one is not None
    text = json.dumps(to_plain(one), allow_nan=False)
    return restored(from_plain(FinishedDetector, harmless(json.loads(text))))


@pytest.mark.parametrize("name", SETTINGS)
def test_everything_comes_back(scanned: ScanResult, name: str) -> None:
    before = next(one for one in scanned.results if one.detector == name)
    after = there_and_back(before, scanned)
    names = class_names(scanned.suspect)
    assert detector_report(after, None, names) == detector_report(before, None, names)
    assert after.applicable == before.applicable
    critical = before.critical(0.01) if before.critical else None
    assert (after.critical(0.01) if after.critical else None) == critical
    if before.searched is None:
        assert after.searched is None
    else:
        assert torch.equal(after.searched, before.searched)  # type: ignore[arg-type]
    found, again = finding_of(before), finding_of(after)
    assert (found is None) == (again is None)
    if found and again:
        images = scanned.suspect.chosen.pixels
        assert torch.equal(found.stamped(images), again.stamped(images))


def test_some_of_these_have_patterns_and_some_have_none(scanned: ScanResult) -> None:
    with_pattern = {one.detector for one in scanned.results if finding_of(one)}
    assert {"l-red", "l-red-generator"} <= with_pattern
    assert "mm-bd" not in with_pattern


def test_what_has_no_plain_form_is_not_kept(scanned: ScanResult) -> None:
    result = scanned.results[0]
    odd = dataclasses.replace(result, stamp=lambda x, theta: x)
    assert kept(KEY, odd, scanned.suspect) is None
    odd = dataclasses.replace(result, critical=lambda level: 1.0)
    assert kept(KEY, odd, scanned.suspect) is None


def test_numbers_do_not_depend_on_what_ran_before(scanned: ScanResult) -> None:
    name = "l-red-generator"  # the last to run, and the one that draws the most random numbers
    settings = {name: SETTINGS[name]}
    alone = scan(dataclasses.replace(OPTIONS, detectors=(name,), settings=settings)).report
    (after,) = (one for one in scanned.report.detectors if one.detector == name)
    (first,) = alone.detectors
    assert dataclasses.replace(first, seconds=0, p_holm=None) == dataclasses.replace(
        after, seconds=0, p_holm=None
    )


def key(scanned: ScanResult, **changed: Any) -> str:
    """A key of the same scan with other options, or with another suspect."""
    suspect = changed.pop("suspect", scanned.suspect)
    return scan_key(dataclasses.replace(OPTIONS, **changed), suspect, threads=1)


def test_the_key_changes_with_all_that_the_numbers_depend_on(
    scanned: ScanResult, tmp_path: Path
) -> None:
    suspect = scanned.suspect
    other = tmp_path / "badnets.onnx"
    other.write_bytes((BUNDLED / "clean.onnx").read_bytes())
    brighter = dataclasses.replace(suspect.chosen, pixels=suspect.chosen.pixels * 0.5)
    relabelled = dataclasses.replace(suspect.chosen, labels=suspect.chosen.labels.flip(0))
    keys = [
        key(scanned),
        key(scanned, seed=1),
        key(scanned, model=other),
        key(scanned, num_classes=10),
        key(scanned, suspect=dataclasses.replace(suspect, chosen=brighter)),
        key(scanned, suspect=dataclasses.replace(suspect, chosen=relabelled)),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_is_the_same_for_all_that_they_do_not_depend_on(
    scanned: ScanResult, tmp_path: Path
) -> None:
    copy = tmp_path / "badnets.onnx"
    copy.write_bytes(OPTIONS.model.read_bytes())
    assert key(scanned, model=copy, alpha=0.01, time_budget=5, examine=("strip",)) == key(scanned)


def test_what_is_said_beside_the_model_is_in_the_key(scanned: ScanResult, tmp_path: Path) -> None:
    model = tmp_path / "badnets.onnx"
    model.write_bytes(OPTIONS.model.read_bytes())
    before = key(scanned, model=model)
    (tmp_path / "modelaudit.toml").write_text("num_classes = 10\n")
    assert key(scanned, model=model) != before


def test_settings_are_in_a_detectors_key_and_other_packages_have_none() -> None:
    (usual,) = build_detectors(("mm-bd",), {}).values()
    (other,) = build_detectors(("mm-bd",), {"mm-bd": {"steps": "5"}}).values()
    keys = {detector_key("mm-bd", one, about) for one in (usual, other) for about in "ab"}
    assert len(keys) == 4
    assert detector_key("another-package", usual, "a") is None


def test_a_detector_that_sees_others_has_these_in_its_key() -> None:
    (joint,) = build_detectors(("joint",), {}).values()
    (usual,) = build_detectors(("mm-bd",), {}).values()
    (other,) = build_detectors(("mm-bd",), {"mm-bd": {"steps": "5"}}).values()
    keys = {detector_key("joint", joint, "a", before) for before in ([], [usual], [other])}
    assert len(keys) == 3
