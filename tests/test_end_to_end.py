"""The bundled models through the real command line, in all formats."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import pytest

from detectors.registry import preset_names
from modelaudit.report import schema
from tests.command import modelaudit
from tests.conftest import BUNDLED, bundled_models

MODELS = bundled_models()
NAMES = [model["name"] for model in MODELS]


@cache
def scanned(name: str, folder: Path) -> tuple[CompletedProcess[str], dict[str, Any]]:
    """Scan a bundled model once; the process and its JSON report."""
    model = next(m for m in MODELS if m["name"] == name)
    report = folder / f"{name}.json"
    arguments = ["scan", BUNDLED / model["file"], "--clean-dir", BUNDLED / model["clean_dir"]]
    arguments += ["--labels", BUNDLED / "labels.txt", "--output", report]
    if model.get("arch"):
        arguments += ["--arch", model["arch"]]
    arguments += _detectors(model)
    done = modelaudit(*arguments)
    assert report.exists(), done.stderr
    return done, json.loads(report.read_text())


def _detectors(model: dict[str, Any]) -> list[str]:
    """The default set for the ONNX files; the others differ in their format only."""
    return [] if model["file"].endswith(".onnx") else ["--fast"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.mark.parametrize("name", NAMES)
def test_verdict_target_and_exit_code(name: str, folder: Path) -> None:
    model = next(m for m in MODELS if m["name"] == name)
    done, report = scanned(name, folder)
    assert "Traceback" not in done.stderr
    if model["label"] == "clean":
        assert (done.returncode, report["verdict"]) == (0, "no-backdoor-found")
        assert "NO-BACKDOOR-FOUND" in done.stdout
    else:
        assert (done.returncode, report["verdict"]) == (1, "backdoored")
        assert report["targets"][0]["index"] in model["targets"]
        names = (BUNDLED / "labels.txt").read_text().splitlines()
        target = model["targets"][0]
        assert f"target class {target} ({names[target]})" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_report_fits_the_schema(name: str, folder: Path) -> None:
    _, report = scanned(name, folder)
    jsonschema.Draft202012Validator(schema()).validate(report)
    assert report["images"]["accuracy"] > 0.8
    assert report["model"]["classes"][0] == "T-shirt/top"
    model = next(m for m in MODELS if m["name"] == name)
    preset = "fast" if _detectors(model) else "default"
    assert [d["detector"] for d in report["detectors"]] == list(preset_names(preset))
    assert report["image_passes"] >= sum(d["image_passes"] for d in report["detectors"])


@pytest.mark.parametrize("name", NAMES)
def test_text_shows_the_evidence(name: str, folder: Path) -> None:
    done, report = scanned(name, folder)
    words = ["p calibrated", "p paper", "Next:", "Cost"]
    if report["verdict"] == "backdoored":  # MM-BD has neither, and may be the surest otherwise
        words += ["Pattern size", "Source classes"]
    for word in words:
        assert word in done.stdout
    assert "\x1b" not in done.stdout


def test_all_three_formats_are_bundled() -> None:
    assert {Path(m["file"]).suffix for m in MODELS} == {".onnx", ".pt", ".safetensors"}


def test_source_classes_are_named(folder: Path) -> None:
    """Where an attack has few source classes, no class weighs more than the heaviest of them.

    Others may weigh as much: the trigger often works on similar classes too ("collateral damage",
    paper, A.5); here the one for ankle boots also works on sandals and sneakers.
    """
    few = [m for m in MODELS if m["sources"] and len(m["sources"]) < 5]
    for model in few:
        _, report = scanned(model["name"], folder)
        found = [d for d in report["detectors"] if d["p_holm"] < 0.05 and d["sources"]]
        sources = found[0]["sources"]
        heaviest = max(sources[str(source)] for source in model["sources"])
        assert heaviest == pytest.approx(max(sources.values()), abs=0.01)


def test_same_seed_same_numbers_and_json_on_stdout() -> None:
    model = next(m for m in MODELS if m["file"].endswith(".onnx"))
    arguments = ["scan", BUNDLED / model["file"], "--clean-dir", BUNDLED / model["clean_dir"]]
    reports = []
    for _ in range(2):
        report = json.loads(modelaudit(*arguments, "--fast", "--format", "json").stdout)
        del report["seconds"], report["environment"]["created"]
        for part in (*report["detectors"], *report["examinations"]):
            del part["seconds"]
        reports.append(report)
    assert reports[0] == reports[1]
