"""modelaudit: audit an image classifier for backdoors before anyone relies on it.

The public names are imported when they are used: ``import modelaudit`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "CleanImages",
    "ModelAuditError",
    "Report",
    "Verdict",
    "load_classifier",
    "scan",
]

if TYPE_CHECKING:
    from modelaudit.api import load_classifier, scan
    from modelaudit.errors import ModelAuditError
    from modelaudit.images import CleanImages
    from modelaudit.report import Report
    from modelaudit.verdict import Verdict
else:
    _PLACES = {
        "CleanImages": "modelaudit.images",
        "ModelAuditError": "modelaudit.errors",
        "Report": "modelaudit.report",
        "Verdict": "modelaudit.verdict",
        "load_classifier": "modelaudit.api",
        "scan": "modelaudit.api",
    }

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
