"""What ``modelaudit detectors`` and ``modelaudit checks`` print."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args, get_origin

from detectors import plugins, registry
from detectors.entry import Entry, setting_defaults, setting_types
from detectors.examinations import EXAMINATIONS
from modelaudit.checks import CHECKS


def detectors_text() -> str:
    """Every detector with its settings, their types and defaults; then the examinations.

    Detectors of other packages are imported for that; one that cannot be used is a warning.
    """
    lines = []
    for name, entry in registry.REGISTRY.items():
        lines += _detector(name, entry, "runs by default" if entry.default else "on request")
    for name, points in plugins.declarations().items():
        try:
            registry.refuse_ambiguous([name])
            entry = plugins.load(name, points)
        except ValueError as error:
            lines += [f"warning: {error}", ""]
        else:
            lines += _detector(name, entry, f"on request; of {plugins.places(points)}")
    for name, examination in EXAMINATIONS.items():
        lines.append(f"{name}  (--examine {name}; evidence beside the verdict)")
        lines += [f"  {examination.summary}; needs {_needs(examination.needs)}", ""]
    return "\n".join(lines)


def _detector(name: str, entry: Entry, when: str) -> list[str]:
    defaults = setting_defaults(entry)
    settings = [
        f"    --set {f'{name}.{key}={defaults[key]}':<34} {_type_name(kind)}"
        for key, kind in setting_types(entry).items()
    ]
    return [f"{name}  ({when})", f"  {entry.summary}", *settings, ""]


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
