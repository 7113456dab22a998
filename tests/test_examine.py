"""Examinations in a scan: what runs unasked, what is asked for, what is skipped and why."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from detectors.examinations import ExaminationInput, Labelled, examined
from detectors.examinations.spectral import SpectralSignatures
from detectors.examinations.strip import Strip
from modelaudit import examine, given, scanning
from modelaudit.errors import ImagesError, UsageError
from modelaudit.formats.text import render_text
from modelaudit.options import ScanOptions
from modelaudit.plain import from_plain, to_plain
from modelaudit.report import Report, schema
from modelaudit.suspect import Suspect, prepare
from tests.conftest import BUNDLED
from tests.test_scan import SHORT
from tests.triggered import IMAGES, copy_stamped, files_of, trigger

CHEAP = ["latent-view", "fine-pruning", "strip"]


@cache
def scanned(model: str, **options: Any) -> scanning.ScanResult:
    """A scan with four images per class, which holds four back."""
    chosen = ScanOptions(
        BUNDLED / model, IMAGES, detectors=("l-red",), images_per_class=4, **options
    )
    return scanning.scan(chosen)


def short(model: str = "clean.onnx", **options: Any) -> Report:
    """A scan that finds nothing, quickly."""
    chosen = ScanOptions(
        BUNDLED / model, IMAGES, detectors=("l-red",), settings=SHORT, images_per_class=2, **options
    )
    return scanning.scan(chosen).report


def test_after_a_finding_the_cheap_ones_run_unasked_within_the_budget() -> None:
    report = scanned("global.pt").report
    assert [one.name for one in report.examinations] == CHEAP
    detectors = sum(d.image_passes for d in report.detectors)
    cost = sum(one.image_passes for one in report.examinations)
    assert 0 < cost <= examine.UNASKED_SHARE * report.image_passes
    assert cost + detectors <= report.image_passes
    latent, pruning, strip = report.examinations
    assert (latent.status, pruning.status, strip.status) == ("done", "done", "skipped")
    assert "--examine strip" in strip.reason
    assert latent.target == report.targets[0].index == 7
    assert latent.numbers["stamped"] < latent.numbers["sources"]
    assert pruning.numbers["flip_rate"][0] > 0.5


def test_report_survives_the_worker_and_fits_the_schema() -> None:
    report = scanned("global.pt").report
    plain = json.loads(json.dumps(to_plain(report), allow_nan=False))
    assert from_plain(Report, plain) == from_plain(Report, to_plain(report))
    jsonschema.Draft202012Validator(schema()).validate(report.to_dict())
    assert report.schema_version == "1.4"
    text = render_text(report)
    assert "Examinations  (evidence beside the verdict" in text
    assert "skipped: it would take" in text


def test_all_of_them_are_asked_for() -> None:
    result = scanned("global.pt", examine=("all",))
    found = {one.name: one for one in result.report.examinations}
    assert set(found) == set(examine.EXAMINATIONS)
    skipped = {name for name, one in found.items() if one.status == "skipped"}
    assert skipped == {"spectral-signatures", "activation-clustering"}
    assert all("--train-dir" in found[name].reason for name in skipped)
    assert found["strip"].numbers["superpositions"] == len_clean(result)
    pictures = next(one for one in result.examinations if one.name == "grad-cam").pictures
    assert pictures["heatmaps"].shape[1:] == (28, 28)
    assert pictures["heatmaps"].shape[0] == pictures["stamped"].shape[0] > 0


def len_clean(result: scanning.ScanResult) -> int:
    return min(100, len(result.suspect.chosen))


def test_without_a_finding_nothing_runs_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "unseen", None)  # nor are images gathered for it
    assert short().examinations == ()


def test_what_is_asked_for_without_a_finding_is_skipped_with_the_reason() -> None:
    (one,) = short(examine=("fine-pruning",)).examinations
    assert (one.status, one.target, one.summary) == ("skipped", None, "")
    assert "no detector found one" in one.reason


def test_nothing_is_examined_where_the_model_does_not_fit_the_images() -> None:
    report = short(examine=("strip",), suspect_dir=IMAGES, accuracy_floor=1.0)
    (one,) = report.examinations
    assert report.verdict == "inconclusive"
    assert (one.status, one.image_passes) == ("skipped", 0)
    assert "do not fit together" in one.reason


def test_the_verdict_is_the_same_with_and_without_them() -> None:
    with_all, without = scanned("global.pt", examine=("all",)).report, scanned("global.pt")
    assert with_all.verdict == without.report.verdict
    ours = [(d.p_holm, d.target) for d in with_all.detectors]
    assert ours == [(d.p_holm, d.target) for d in without.report.detectors]


def test_suspects_are_judged_and_broken_ones_are_named(tmp_path: Path) -> None:
    for label in (0, 1, 2):
        copy_stamped("global", files_of(label)[0], tmp_path / f"{label}.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (one,) = short("global.pt", suspect_dir=tmp_path).examinations
    assert (one.name, one.status) == ("strip", "done")
    assert one.numbers["suspects"]["images"] == 3
    assert one.numbers["suspects"]["auc"] > 0.6
    assert "broken.png" in one.notes[0]


def prepared(model: str) -> Suspect:
    return prepare(ScanOptions(BUNDLED / model, IMAGES), lambda stage, share: None)


def examinable(suspect: Suspect, **images: Any) -> ExaminationInput:
    clean = examine.labelled(suspect.chosen)
    none = clean.where(torch.zeros(len(clean), dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    return ExaminationInput(suspect.classifier, clean, none, generator, **images)


def test_triggered_inputs_have_less_entropy_in_the_backdoored_model_than_in_a_clean_one() -> None:
    aucs = []
    for model in ("global.pt", "clean.onnx"):
        suspect = prepared(model)
        chosen = suspect.chosen
        data = examinable(suspect, suspects=trigger("global", chosen.pixels[chosen.labels != 7]))
        aucs.append(examined(Strip(superpositions=32), data).numbers["suspects"]["auc"])
    assert aucs[0] > aucs[1] + 0.05


def test_poisoned_training_images_stick_out_in_the_backdoored_model() -> None:
    """Class 7 in the training set of the backdoored model, in small: 8 clean and 6 stamped."""
    suspect = prepared("global.pt")
    clean = examine.labelled(suspect.chosen)
    others = clean.where((clean.labels != 7) & (torch.arange(len(clean)) % 11 == 0))
    own = clean.where(clean.labels == 7)
    train = Labelled(
        torch.cat([own.pixels, trigger("global", others.pixels)]),
        torch.full((len(own) + len(others),), 7),
        tuple(["clean"] * len(own) + ["poisoned"] * len(others)),
    )
    data = examinable(suspect, train=train)
    spectral = examined(SpectralSignatures(epsilon=0.15, least=8), data).numbers["classes"]["7"]
    assert set(spectral["removed"]) == {"poisoned"}


def test_training_images_are_read_from_class_folders(tmp_path: Path) -> None:
    for label in range(10):
        shutil.copytree(IMAGES / f"{label:02d}", tmp_path / f"{label:02d}")
    report = short("global.pt", train_dir=tmp_path)
    assert [one.name for one in report.examinations] == [
        "spectral-signatures",
        "activation-clustering",
    ]
    for one, least in zip(report.examinations, (20, 50), strict=True):
        assert f"at least {least} training images" in one.reason
    assert report.settings["train_dir"] == str(tmp_path)


def test_training_images_are_bounded_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    suspect = prepared("clean.onnx")
    options = ScanOptions(BUNDLED / "clean.onnx", IMAGES, train_dir=IMAGES)
    monkeypatch.setattr("modelaudit.images._POOL_BYTES", 0)
    monkeypatch.setattr(given, "_TRAIN_BYTES", 3 * 10 * 28 * 28 * 4)
    read = given.read_given(options, suspect)
    assert read.train is not None
    assert len(read.train) == 30
    assert "30 of 80 training images were looked at" in read.notes["train"]


def test_names_and_folders_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected all or one of latent-view"):
        short(examine=("nope",))
    with pytest.raises(ImagesError, match="holds no images"):
        short(suspect_dir=tmp_path)
    with pytest.raises(ImagesError, match="no class folders"):
        short(train_dir=tmp_path)


def test_thorough_asks_for_all() -> None:
    options = ScanOptions(BUNDLED / "clean.onnx", IMAGES, preset="thorough")
    assert set(examine.asked_examinations(options)) == set(examine.EXAMINATIONS)
