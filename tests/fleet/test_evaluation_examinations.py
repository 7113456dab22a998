"""What examinations would have said, as yes or no; what has no answer, and what was skipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from detectors.examinations import EXAMINATIONS
from modelaudit import __main__
from modelaudit.examination_report import ExaminationReport
from modelaudit.fleet.evaluation import evaluation_schema, outcome_of
from modelaudit.fleet.evaluation_examinations import (
    SIGNS,
    WITHOUT_SIGN,
    ExaminationOutcome,
    examination_outcome,
    raised_in,
)
from modelaudit.fleet.key import fingerprints
from modelaudit.fleet.manifest import read_manifest
from modelaudit.options import ScanOptions
from tests.conftest import BUNDLED, bundled_models
from tests.formats.reports import backdoored, failed


def signs(name: str, numbers: dict[str, Any], status: str = "done") -> dict[str, bool]:
    report = ExaminationReport(name, status, "", "", None, numbers, "", (), 0.0, 0.0)  # type: ignore[arg-type]
    return dict(examination_outcome(report, 0.05).signs)


def test_every_examination_has_a_sign_or_a_reason_for_none() -> None:
    judged = {sign.examination for sign in SIGNS.values()}
    assert judged | set(WITHOUT_SIGN) == set(EXAMINATIONS)
    assert not judged & set(WITHOUT_SIGN)


@pytest.mark.parametrize(
    ("below", "images", "expected"),
    # P(at least 1 of 5 at 1 %) = 0.049; of 6: 0.059; at least 4 of 100: 0.018; 3: 0.079
    [(0, 100, False), (1, 5, True), (1, 6, False), (3, 100, False), (4, 100, True)],
)
def test_strip_judges_more_than_its_false_rejections(
    below: int, images: int, expected: bool
) -> None:
    judged = {"below": below, "images": images}
    assert signs("strip", {"suspects": judged}) == {"strip, inputs": expected}
    assert signs("strip", {"stamped": judged}) == {"strip, pattern": expected}


@pytest.mark.parametrize(
    ("flips", "expected"),
    [([0.9, 0.6, 0.1], False), ([0.9, 0.45, 0.4], True), ([0.0, 0.0, 0.0], None)],
)
def test_fine_pruning_at_the_tolerated_point(flips: list[float], expected: bool | None) -> None:
    numbers = {"flip_rate": flips, "pruned": [0, 4, 8], "tolerated": 4}
    found = signs("fine-pruning", numbers)
    assert found == ({} if expected is None else {"fine-pruning, pattern": expected})


@pytest.mark.parametrize("suspicious", [True, False])
def test_activation_clustering(suspicious: bool) -> None:
    numbers = {"classes": {"0": {"suspicious": False}, "1": {"suspicious": suspicious}}}
    assert signs("activation-clustering", numbers) == {"activation-clustering, images": suspicious}


def test_what_was_skipped_is_counted_apart() -> None:
    assert signs("strip", {}, "skipped") == {}
    yes, no = (ExaminationOutcome("done", "", "", {"strip, inputs": on}) for on in (True, False))
    skipped = ExaminationOutcome("skipped", "why", "", {})
    raised = raised_in([{"strip": yes}, {"strip": no}, {"strip": skipped}, {}], "strip, inputs")
    assert (raised.count.hits, raised.count.total, raised.skipped) == (1, 2, 2)
    assert str(raised) == "1/2 (+2 skipped)"
    assert str(raised_in([{}], "strip, inputs")) == "- (+1 skipped)"


def test_only_what_was_asked_for_is_kept() -> None:
    (model, *_) = read_manifest(BUNDLED / "manifest.json")
    report = backdoored()
    assert {one.name for one in report.examinations} == {"strip", "spectral"}
    assert not outcome_of(model, "k", report).examinations
    assert set(outcome_of(model, "k", report, ("strip",)).examinations) == {"strip"}
    assert not outcome_of(model, "k", failed(), ("strip",)).examinations


def test_images_of_the_manifest_are_examined(tmp_path: Path) -> None:
    clean = next(m for m in bundled_models() if m["label"] == "clean")
    entry = {**clean, "file": str(BUNDLED / clean["file"]), "suspect_dir": "inputs"}
    entry["clean_dir"] = str(BUNDLED / clean["clean_dir"])
    shutil.copytree(BUNDLED / clean["clean_dir"] / "00", tmp_path / "inputs")
    manifest, output = tmp_path / "manifest.json", tmp_path / "e.json"
    manifest.write_text(json.dumps({"models": [entry]}))
    arguments = ["evaluate", str(manifest), "--images-per-class", "2", "--no-isolation"]
    arguments += ["--detector", "mm-bd", "--set", "mm-bd.steps=2", "--examine", "strip"]
    arguments += ["--output", str(output), "--output", str(tmp_path / "e.html")]
    assert __main__.run(arguments) == 0
    written = json.loads(output.read_text())
    jsonschema.Draft202012Validator(evaluation_schema()).validate(written)
    (model,) = written["models"]
    assert set(model["examinations"]) == {"strip"}
    assert set(model["examinations"]["strip"]["signs"]) == {"strip, inputs"}
    assert "strip, inputs" in (tmp_path / "e.html").read_text()


@pytest.mark.parametrize("key", ["suspect_dir", "train_dir"])
def test_images_to_examine_decide_about_a_resume_and_not_where_they_lie(
    key: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name / "0" for name in ("one", "same", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"a")
    (folders[2] / "b.png").touch()
    plain = ScanOptions(BUNDLED / "badnets.onnx", BUNDLED / "images")
    scans: dict[str, ScanOptions] = {"none": plain}
    scans |= {one.parent.name: replace(plain, **{key: one.parent}) for one in folders}  # type: ignore[arg-type]
    keys = fingerprints(scans, lambda name: None)
    assert keys["one"] == keys["same"]
    assert len({keys["none"], keys["one"], keys["other"]}) == 3


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        ({}, ["--examine", "strap"], "--examine strap"),
        ({"suspect_dir": 3}, [], "suspect_dir must be str"),
    ],
)
def test_mistakes(
    more: dict[str, Any],
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = tmp_path / "manifest.json"
    entry = {"name": "a", "file": "f", "clean_dir": "d", "label": "clean", **more}
    manifest.write_text(json.dumps({"models": [entry]}))
    assert __main__.run(["evaluate", str(manifest), *arguments]) == 2
    assert words in capsys.readouterr().err
