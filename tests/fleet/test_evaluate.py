"""Manifests, counts with intervals, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from modelaudit import __main__
from modelaudit.counting import Count
from modelaudit.errors import ManifestError
from modelaudit.fleet import evaluate
from modelaudit.fleet import local as fleet_local
from modelaudit.fleet.evaluation import DetectorOutcome, Evaluation, Outcome, evaluation_schema
from modelaudit.fleet.manifest import read_manifest
from modelaudit.fleet.runner import Job
from modelaudit.formats.evaluation_text import evaluation_text
from modelaudit.options import ScanOptions
from modelaudit.preprocess_options import PreprocessOptions
from modelaudit.report import Report
from tests.conftest import BUNDLED, bundled_models
from tests.formats.reports import cut_short


def outcome(name: str, label: str, p: float, right: bool, attack: str = "badnets") -> Outcome:
    return Outcome(
        name=name,
        key="k",
        label=label,
        attack="clean" if label == "clean" else attack,
        verdict="backdoored" if p < 0.05 else "no-backdoor-found",
        targets=(1,) if p < 0.05 else (),
        right=right,
        p=p,
        detectors={"l-red": DetectorOutcome(p, None, p, 1, right)},
        image_passes=100.0,
        seconds=1.0,
        error=None,
        manifest={},
    )


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        (
            outcome("a", "backdoored", 0.001, True),
            outcome("b", "backdoored", 0.3, False),
            outcome("c", "backdoored", 0.01, True, "blended"),
            outcome("d", "clean", 0.2, True),
            outcome("e", "clean", 0.04, False),
        ),
        {"alpha": 0.05},
    )


def test_counts(evaluation: Evaluation) -> None:
    detections = evaluation.detections()
    assert (detections["badnets"].hits, detections["badnets"].total) == (1, 2)
    assert (detections["total"].hits, detections["total"].total) == (2, 3)
    assert (evaluation.false_alarms().hits, evaluation.false_alarms().total) == (1, 2)
    # pairs (backdoored, clean) with the smaller p backdoored: 2 + 0 + 2 of 6
    assert evaluation.auc() == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.30850), (10, 10, 0.69150, 1.0), (3, 10, 0.06674, 0.65245)],
)
def test_clopper_pearson(hits: int, total: int, low: float, high: float) -> None:
    assert Count(hits, total).interval == pytest.approx((low, high), abs=1e-4)


def test_text_and_json(evaluation: Evaluation) -> None:
    text = evaluation_text(evaluation)
    for word in ("badnets", "blended", "total", "clean (false alarms)", "AUC", "2/3"):
        assert word in text
    content = json.loads(json.dumps(evaluation.to_dict()))
    jsonschema.Draft202012Validator(evaluation_schema()).validate(content)
    assert [m["name"] for m in content["models"]] == list("abcde")
    assert content["summary"]["false_alarms"]["hits"] == 1


def test_a_table_of_many_detectors_is_not_cut_off(evaluation: Evaluation) -> None:
    def with_many(one: Outcome) -> Outcome:
        some = next(iter(one.detectors.values()), None)
        many = {f"detector-{place}": some for place in range(20)} if some else {}
        return replace(one, detectors=many)

    text = evaluation_text(replace(evaluation, outcomes=tuple(map(with_many, evaluation.outcomes))))
    assert "19" in text
    assert "…" not in text


def test_bundled_manifest_is_read() -> None:
    models = read_manifest(BUNDLED / "manifest.json")
    assert len(models) == len(bundled_models())
    assert all(model.file.is_file() and model.clean_dir.is_dir() for model in models)
    assert sum(not model.backdoored for model in models) == 1


BAD_MANIFESTS: list[tuple[Any, str]] = [
    ("{", "not JSON"),
    ({}, '"models"'),
    ({"models": []}, "at least one"),
    ({"models": [1]}, "expected an object"),
    ({"models": [{"name": "a"}]}, "'file' is missing"),
    (
        {"models": [{"name": "a", "file": "f", "clean_dir": "d", "label": "odd"}]},
        "clean or backdoored",
    ),
    (
        {"models": [{"name": "a", "file": "f", "clean_dir": "d", "label": "clean"}] * 2},
        "unique",
    ),
    (
        {
            "models": [
                {"name": "a", "file": "f", "clean_dir": "d", "label": "clean", "targets": "3"}
            ]
        },
        "targets",
    ),
]

_ENTRY = {"name": "a", "file": "f", "clean_dir": "d", "label": "clean"}
BAD_MANIFESTS += [
    ({"models": [{**_ENTRY, "preprocess": value}]}, words)
    for value, words in (
        ("imagnet", r"models\[0\]: preprocess: .*did you mean 'imagenet'"),
        ({"mean": 0.5}, r"models\[0\]: preprocess: --mean takes numbers"),
        ({"std": [0.0]}, r"models\[0\]: preprocess: --std must be above 0"),
        ({"size": 3}, "must be a name or an object"),
        (3, "must be a name or an object"),
    )
]


def test_preprocessing_of_a_manifest_is_kept_as_given(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    cases: list[tuple[Any, PreprocessOptions]] = [
        (None, PreprocessOptions()),
        ("auto", PreprocessOptions()),
        ("imagenet", PreprocessOptions("imagenet")),
        ({"layout": "NHWC"}, PreprocessOptions(layout="NHWC")),
        ({"mean": [0.1, 0.2, 0.3]}, PreprocessOptions(mean=(0.1, 0.2, 0.3))),
    ]
    for value, expected in cases:
        path.write_text(json.dumps({"models": [{**_ENTRY, "preprocess": value}]}))
        (model,) = read_manifest(path)
        assert model.preprocessing == expected


@pytest.mark.parametrize(("content", "words"), BAD_MANIFESTS)
def test_bad_manifests(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ManifestError, match=words):
        read_manifest(path)
    assert __main__.run(["evaluate", str(path)]) == 2


def test_right_target() -> None:
    models = {model.name: model for model in read_manifest(BUNDLED / "manifest.json")}
    one = next(m for m in models.values() if m.backdoored and m.targets)
    assert one.targets is not None
    assert one.is_right(one.targets)
    assert not one.is_right((one.targets[0] + 1,))
    assert not one.is_right(())


def test_evaluate_goes_on_after_a_broken_model_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = next(m for m in bundled_models() if m["label"] == "clean")
    entry = {
        **clean,
        "file": str(BUNDLED / clean["file"]),
        "clean_dir": str(BUNDLED / clean["clean_dir"]),
        "own_key": 7,
    }
    broken = {**entry, "name": "broken", "file": "missing.onnx"}
    manifest, output = tmp_path / "manifest.json", tmp_path / "out.json"
    manifest.write_text(json.dumps({"models": [entry, broken]}))
    arguments = ["evaluate", str(manifest), "--output", str(output), "--images-per-class", "1"]
    arguments += ["--detector", "l-red"]
    assert __main__.run(arguments) == 2
    text = capsys.readouterr().out
    assert "broken" in text
    assert "missing.onnx" in text
    written = json.loads(output.read_text())
    jsonschema.Draft202012Validator(evaluation_schema()).validate(written)
    models = written["models"]
    assert [m["name"] for m in models] == [clean["name"], "broken"]
    assert models[0]["manifest"]["own_key"] == 7
    assert models[0]["image_passes"] > 0

    scanned = []

    def spy(options: Any, limits: Any, **others: Any) -> Any:
        scanned.append(options.model.name)
        raise RuntimeError("not scanned again")

    monkeypatch.setattr(fleet_local, "scan_in_worker", spy)
    assert __main__.run(arguments) == 2
    assert scanned == ["missing.onnx"]
    again = json.loads(output.read_text())["models"]
    assert again[0] == models[0]


def test_two_jobs_give_the_same_numbers(tmp_path: Path) -> None:
    clean = next(m for m in bundled_models() if m["label"] == "clean")
    entries = [
        {
            **clean,
            "name": name,
            "file": str(BUNDLED / clean["file"]),
            "clean_dir": str(BUNDLED / clean["clean_dir"]),
        }
        for name in ("one", "two")
    ]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"models": entries}))
    options = evaluate.EvaluateOptions(
        manifest, detectors=("l-red",), images_per_class=1, jobs=2, outputs=(tmp_path / "out.json",)
    )
    first, second = evaluate.evaluate(options).outcomes
    assert first.detectors == second.detectors
    assert first.error is None


def test_foreign_output_file_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.json"
    output.write_text('{"my": "data"}')
    arguments = ["evaluate", str(BUNDLED / "manifest.json"), "--output", str(output)]
    assert __main__.run(arguments) == 2
    assert "not an evaluation report" in capsys.readouterr().err
    assert output.read_text() == '{"my": "data"}'


def test_a_model_whose_truth_was_corrected_is_scanned_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = {"file": "m.onnx", "label": "backdoored", "targets": [3]}
    earlier = SimpleNamespace(name="m", key="k", error=None, manifest=entry, cut_short_after=None)
    monkeypatch.setattr(evaluate, "read_finished", lambda *_: [earlier])
    jobs = [Job("m", "k", ScanOptions(tmp_path / "m.onnx", tmp_path))]

    def finished(**changes: Any) -> bool:
        models: Any = {"m": SimpleNamespace(entry={**entry, **changes})}
        return bool(evaluate._finished([tmp_path / "e.json"], jobs, models))

    assert finished()
    assert finished(file="elsewhere/m.onnx")
    assert not finished(label="clean")
    assert not finished(targets=[4])


def test_a_time_budget_is_for_each_scan_and_what_it_left_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []

    def scan(options: ScanOptions, limits: Any) -> Report:
        budgets.append(options.time_budget)
        return cut_short()

    monkeypatch.setattr(fleet_local, "run_scan", scan)
    clean = next(m for m in bundled_models() if m["label"] == "clean")
    paths = {key: str(BUNDLED / clean[key]) for key in ("file", "clean_dir")}
    manifest, output = tmp_path / "manifest.json", tmp_path / "out.json"
    manifest.write_text(json.dumps({"models": [{**clean, **paths}]}))
    arguments = ["evaluate", str(manifest), "--output", str(output), "--no-isolation"]
    for budget in ("90s", "90s", "60s", "2m"):
        assert __main__.run([*arguments, "--time-budget", budget]) == 0
    assert budgets == [90, 120]
    content = json.loads(output.read_text())
    assert content["settings"]["time_budget"] == 120
    (one,) = (Outcome.from_dict(entry) for entry in content["models"])
    assert (one.left_out, one.cut_short_after) == (("l-red-warp",), 120)
    text = " ".join(capsys.readouterr().out.split())
    assert "cut short by the time budget: 1 (a detector that was left out" in text
    assert __main__.run([*arguments, "--time-budget", "soon"]) == 2
