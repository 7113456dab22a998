"""The other formats of an evaluation: text, Markdown, JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelaudit import __main__
from modelaudit.errors import UsageError
from modelaudit.fleet.evaluation import Evaluation, Outcome
from modelaudit.formats.evaluation_files import evaluation_format_for
from modelaudit.formats.evaluation_tables import model_table
from modelaudit.formats.evaluation_text import evaluation_text
from tests.conftest import BUNDLED
from tests.formats.evaluations import evaluation


def rendered(extension: str) -> str:
    return evaluation_format_for(Path(f"e{extension}"))(evaluation())


@pytest.mark.parametrize("extension", [".txt", ".md"])
def test_signs_stand_beside_the_verdict(extension: str) -> None:
    text = rendered(extension).replace("\\", "")  # Markdown's escapes
    rows = [" ".join(line.replace("|", " ").split()) for line in text.splitlines()]
    assert "badnets 1/2 1/2 - (+2 skipped)" in rows
    assert "total 2/3 1/2 (+1 skipped) - (+3 skipped)" in rows
    assert "clean (false alarms) 1/2 0/1 (+1 skipped) - (+2 skipped)" in rows
    assert "spectral-signatures: no column" in text
    assert "error: f: not a model" in text


def test_every_model_is_a_row() -> None:
    table = model_table(evaluation())
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.head[-2:] == ("strip, inputs", "strip, pattern")
    assert rows["a"] == (
        *("badnets", "backdoored", "3", "3", "1.0e-03", "1.0", "100"),
        *("yes", "skipped"),
    )
    assert rows["b"][1:4] == ("no-backdoor-found", "-", "3")
    assert rows["d"][-2:] == ("no", "skipped")
    assert rows["f"][1:7] == ("error", "-", "3", "-", "-", "-")


@pytest.mark.parametrize(
    ("targets", "shown"),
    [("all-to-all", "all-to-all"), (list(range(10)), "10 classes"), ([1, 2], "1, 2"), (None, "-")],
)
def test_true_targets(targets: Any, shown: str) -> None:
    one = replace(evaluation().outcomes[0], manifest={"targets": targets})
    assert model_table(replace(evaluation(), outcomes=(one,))).rows[0][4] == shown


def test_nothing_in_the_markdown_is_active() -> None:
    text = rendered(".md")
    assert "<script" not in text.replace("\\<script", "")
    assert "[x](" not in text


def test_the_text_of_a_quiet_run_is_one_line() -> None:
    assert evaluation_text(evaluation(), quiet=True).count("\n") == 1


def test_json_is_read_back() -> None:
    content = json.loads(rendered(".json"))
    assert content["schema_version"] == "1.3"
    assert content["summary"]["examinations"]["strip, inputs"]["total"] == {
        "hits": 1,
        "total": 2,
        "interval": pytest.approx([0.0126, 0.9874], abs=1e-4),
        "skipped": 1,
    }
    outcomes = tuple(map(Outcome.from_dict, content["models"]))
    assert outcomes == evaluation().outcomes
    assert Evaluation(outcomes, content["settings"]).to_dict() == evaluation().to_dict()


def test_a_report_of_schema_1_1_is_read() -> None:
    entry = json.loads(rendered(".json"))["models"][0]
    del entry["examinations"], entry["left_out"]
    outcome = Outcome.from_dict(entry)
    assert (outcome.examinations, outcome.left_out) == ({}, ())


def test_unknown_extension(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"known: \.json, \.html, \.md, \.txt"):
        evaluation_format_for(Path("e.sarif"))
    arguments = ["evaluate", str(BUNDLED / "manifest.json"), "--output", "e.sarif"]
    assert __main__.run(arguments) == 2
    assert "e.sarif" in capsys.readouterr().err
