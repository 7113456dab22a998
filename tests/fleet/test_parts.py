"""Which scans are split over a cluster, and into what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detectors.registry import preset_names, runs_after
from modelaudit.fleet.node import Parcel
from modelaudit.fleet.parts import is_split, parts_of
from modelaudit.lanes import threads_of_each
from modelaudit.options import ScanOptions
from tests.detectors.test_plugins import install_example

SCAN = ScanOptions(Path("m.onnx"), Path("images"), detectors=("mm-bd", "l-red-sparse", "l-red"))
PARCEL = Parcel("0", SCAN, (), None, None, False, threads=2)
SETTINGS = {"l-red": {"tau_max": "2"}, "mm-bd": {"steps": "5"}}


def options_of_parts(**changes: Any) -> list[ScanOptions]:
    """The scans that one with such options is split into."""
    return [one.options for one in parts_of(replace(PARCEL, options=replace(SCAN, **changes)))]


def test_a_part_has_the_threads_that_its_detector_has_in_the_whole() -> None:
    for threads in (1, 2, 8):
        parts = parts_of(replace(PARCEL, threads=threads))
        each = threads_of_each("cpu", threads, len(SCAN.detectors))
        assert {one.threads for one in parts} == {each}
        assert all(one.part for one in parts)
    on_gpu = replace(PARCEL, options=replace(SCAN, device="cuda"), threads=8)
    assert {one.threads for one in parts_of(on_gpu)} == {8}  # there is no other beside it


def test_the_models_that_full_rounds_leave_over_are_split() -> None:
    def split(models: int, at_once: int) -> list[int]:
        return [left for left in range(models, 0, -1) if is_split(left, models, at_once)]

    assert split(1, 1) == split(7, 1) == split(4, 4) == split(8, 4) == []
    assert split(1, 2) == [1]
    assert split(3, 4) == split(7, 8) == []  # there is little to gain
    assert split(3, 8) == [3, 2, 1]
    assert split(10, 4) == [2, 1]


def test_every_detector_is_a_part_with_its_own_settings_the_dearest_first() -> None:
    parts = options_of_parts(settings=SETTINGS, alpha=0.01, seed=3)
    assert [one.detectors for one in parts] == [("l-red-sparse",), ("l-red",), ("mm-bd",)]
    assert [dict(one.settings) for one in parts] == [
        {},
        {"l-red": SETTINGS["l-red"]},
        {"mm-bd": SETTINGS["mm-bd"]},
    ]
    assert {(one.model, one.alpha, one.seed) for one in parts} == {(SCAN.model, 0.01, 3)}
    by_default = options_of_parts(detectors=())
    apart = {name for name in preset_names("default") if not runs_after(name)}
    assert {one.detectors[0] for one in by_default} == apart


def test_what_cannot_be_split_is_scanned_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_example(tmp_path))
    for changes in (
        {"time_budget": 600},  # of one process
        {"detectors": ("l-red",)},
        {"detectors": ("l-red", "l-red")},
        {"detectors": ("l-red", "example-bias")},
        {"detectors": ("l-red", "mm-bd", "no-such")},
        {"settings": {"l-red": {"no-such": "1"}}},
        {"settings": {"neural-cleanse": {"steps": "1"}}},
    ):
        assert not options_of_parts(**changes)
    parts = options_of_parts(detectors=("example-bias", "mm-bd", "l-red"))
    assert [one.detectors for one in parts] == [("l-red",), ("mm-bd",)]
