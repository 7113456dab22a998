"""What ``modelaudit detectors`` and ``modelaudit checks`` print."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args, get_origin

from detectors import registry
from detectors.examinations import EXAMINATIONS
from modelaudit.checks import CHECKS


def detectors_text() -> str:
    """Every detector with its settings, their types and defaults; then the examinations."""
    lines = []
    for name, entry in registry.REGISTRY.items():
        default = "runs by default" if entry.default else "on request"
        lines.append(f"{name}  ({default})")
        lines.append(f"  {entry.summary}")
        defaults = registry.setting_defaults(name)
        for key, kind in registry.setting_types(name).items():
            setting = f"{name}.{key}={defaults[key]}"
            lines.append(f"    --set {setting:<34} {_type_name(kind)}")
        lines.append("")
    for name, examination in EXAMINATIONS.items():
        lines.append(f"{name}  (--examine {name}; evidence beside the verdict)")
        lines += [f"  {examination.summary}; needs {_needs(examination.needs)}", ""]
    return "\n".join(lines)


def checks_text() -> str:
    """Every preflight check: when it is raised, what that means, what to do."""
    lines = []
    for check in CHECKS:
        lines.append(check.name)
        for title, text in (
            ("raised if", check.raised_if),
            ("meaning", check.meaning),
            ("what to do", check.advice),
        ):
            lines += textwrap.wrap(
                text, 98, initial_indent=f"  {title:<12}", subsequent_indent=" " * 14
            )
        lines.append("")
    return "\n".join(lines)


_INPUTS = {"finding": "a pattern found", "suspects": "--suspect-dir", "train": "--train-dir"}


def _needs(inputs: tuple[str, ...]) -> str:
    return " or ".join(_INPUTS[name] for name in inputs)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    return str(kind.__name__)
