"""A scan as a node of a cluster does it: with what was sent, and names as they are elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelaudit import __version__
from modelaudit.errors import ModelFileError
from modelaudit.finished import FinishedDetector
from modelaudit.fleet import node as fleet_node
from modelaudit.fleet.node import Parcel, scan_parcel
from modelaudit.fleet.parts import parts_of
from modelaudit.isolation.limits import Limits
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain
from modelaudit.report import Report
from modelaudit.scan_files import content_of, image_content, image_listing, model_files
from tests.brightest import brightest, write_images
from tests.fleet.timeless import timeless


@pytest.fixture
def options(tmp_path: Path) -> ScanOptions:
    there = tmp_path / "there"
    there.mkdir()
    model = brightest(there / "m.onnx")
    (there / "names.txt").write_text("a\nb\nc\nd\ne\n")
    images = write_images(there / "images")
    (images / "loose.png").write_bytes(b"")
    settings = {"l-red": {"tau_max": "2"}}
    names = there / "names.txt"
    return ScanOptions(model, images, names, detectors=("l-red",), settings=settings)


def parcel(options: ScanOptions, **changes: Any) -> tuple[Parcel, dict[str, bytes]]:
    files = content_of(model_files(options.model), options.model.parent)
    assert options.labels is not None
    sent = Parcel(
        version=__version__,
        options=options,
        listing=image_listing(options.clean_dir),
        labels=options.labels.read_bytes(),
        limits=Limits(),
        default_memory=True,
        threads=1,
    )
    return replace(sent, **changes), files


def fail() -> Mapping[str, bytes]:
    raise AssertionError("the images need not be fetched")


def test_a_node_that_sees_nothing_says_what_one_says_that_sees_all(options: ScanOptions) -> None:
    sent, files = parcel(options)
    near = from_plain(Report, scan_parcel(sent, files, fail)["report"])
    images = image_content(options.clean_dir)
    options.model.parent.rename(options.model.parent.with_name("gone"))
    far = from_plain(Report, scan_parcel(sent, files, lambda: images)["report"])
    assert str(options.clean_dir) in near.images.warnings[0]
    assert far.environment["isolation"]["limits"] == "set by the system"
    assert timeless(far) == timeless(near)


def test_parts_and_what_is_left_give_the_same_numbers_as_the_whole(options: ScanOptions) -> None:
    settings = {**options.settings, "mm-bd": {"steps": "5"}}
    options = replace(options, detectors=("l-red", "mm-bd", "l-red-sparse"), settings=settings)
    whole, files = parcel(options, threads=2)
    here = from_plain(Report, scan_parcel(whole, files, fail)["report"])
    found: list[FinishedDetector] = []
    for part in parts_of(whole)[1:]:  # one is lost
        plain = scan_parcel(part, files, fail)["finished"]
        found += from_plain(tuple[FinishedDetector, ...], plain)
    assert [one.report.detector for one in found] == ["l-red", "mm-bd"]
    last = replace(whole, finished=tuple(found))
    there = from_plain(Report, scan_parcel(last, files, fail)["report"])
    assert timeless(there) == timeless(here)
    # They were taken over: a search that runs again would not take exactly as long.
    seconds = {one.detector: one.seconds for one in there.detectors}
    assert {one.report.detector: one.report.seconds for one in found}.items() <= seconds.items()


def test_a_part_finds_nothing_where_looking_would_prove_nothing(
    options: ScanOptions, tmp_path: Path
) -> None:
    shifted = write_images(tmp_path / "shifted", folders=tuple("12340"))
    sent, files = parcel(replace(options, clean_dir=shifted))
    assert scan_parcel(sent, files, fail)["report"]["verdict"] == "inconclusive"
    assert scan_parcel(replace(sent, part=True), files, fail) == {"finished": []}


def test_a_part_of_what_cannot_be_scanned_fails_as_the_whole_does(options: ScanOptions) -> None:
    options.model.write_bytes(b"nothing")
    sent, files = parcel(options)
    assert scan_parcel(replace(sent, part=True), files, fail) == scan_parcel(sent, files, fail)


def test_a_node_needs_torch_in_the_worker_only() -> None:
    code = "import sys, modelaudit.fleet.ray; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_come_back_with_the_paths_that_the_user_knows(options: ScanOptions) -> None:
    options.model.write_bytes(b"nothing")
    sent, files = parcel(options)
    error = scan_parcel(sent, files, fail)["error"]
    assert (error["kind"], error["stage"]) == (ModelFileError.__name__, "loading the model")
    assert str(options.model) in error["message"]
    assert "modelaudit-" not in error["message"]


def test_other_versions_are_refused(options: ScanOptions) -> None:
    sent, files = parcel(options, version="0.0")
    error = scan_parcel(sent, files, fail)["error"]
    assert error["kind"] == "UsageError"
    assert "the same version" in error["message"]


def test_a_fault_is_an_error_of_that_model(
    options: ScanOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(fleet_node, "scan_in_worker", broken)
    assert scan_parcel(*parcel(options), fail)["error"]["message"] == (
        "internal error: KeyError: 'x'"
    )


def test_the_default_memory_is_the_nodes(
    options: ScanOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Limits | None] = []

    def watch(options: ScanOptions, limits: Limits | None, **_: Any) -> None:
        given.append(limits)
        raise ModelFileError("seen")

    monkeypatch.setattr(fleet_node, "scan_in_worker", watch)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    small = Limits(memory=2**20, stall=7)
    for changes in (
        {"limits": small},
        {"limits": small, "threads": 8},
        {"limits": small, "default_memory": False},
        {"limits": None, "default_memory": False},
    ):
        scan_parcel(*parcel(options, **changes), fail)
    everything = Limits().memory
    assert given == [
        replace(small, memory=everything // 4),
        replace(small, memory=everything),
        small,
        None,
    ]
