"""The report as JSON; its schema is ``modelaudit/report.schema.json``."""

from __future__ import annotations

import json

from modelaudit.failure import Failure
from modelaudit.report import Report


def render_json(report: Report | Failure) -> str:
    """The whole report, indented, UTF-8."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
