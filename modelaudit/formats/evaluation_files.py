"""The results of an evaluation as files: the extension says the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from modelaudit.fleet.evaluation import Evaluation
from modelaudit.formats.evaluation_html import evaluation_html
from modelaudit.formats.evaluation_markdown import evaluation_markdown
from modelaudit.formats.evaluation_text import evaluation_text
from modelaudit.formats.extensions import by_extension


def evaluation_json(evaluation: Evaluation) -> str:
    """Everything; what an evaluation resumes from."""
    content = evaluation.to_dict()
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


_EXTENSIONS: Mapping[str, Callable[[Evaluation], str]] = MappingProxyType(
    {
        ".json": evaluation_json,
        ".html": evaluation_html,
        ".md": evaluation_markdown,
        ".txt": evaluation_text,
    }
)


def evaluation_format_for(path: Path) -> Callable[[Evaluation], str]:
    """The renderer for an output file.

    Raises:
        UsageError: no format has that extension.
    """
    return by_extension(_EXTENSIONS, path, "an evaluation")
