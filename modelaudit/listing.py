"""What ``modelaudit detectors``, ``checks`` and ``inspect`` print."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from detectors import registry
from modelaudit.checks import CHECKS
from modelaudit.loaders import LoadOptions, load_model, sha256_of


def detectors_text() -> str:
    """Every detector with its settings, their types and defaults."""
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


def inspect_text(model: Path, arch: str | None, num_classes: int | None) -> str:
    """What a model file is, as far as the file says."""
    loaded = load_model(model, LoadOptions(arch, num_classes))
    unknown = "not stated in the file"
    shape = loaded.input_shape
    rows = {
        "file": str(model),
        "sha256": sha256_of(model),
        "format": loaded.format,
        "input": f"{_shape(shape)} ({loaded.layout or 'probably NCHW'}, without the batch)"
        if shape
        else unknown,
        "classes": str(loaded.num_classes) if loaded.num_classes else unknown,
        "final softmax": "yes" if loaded.logits_module is not None else "none found",
        "preprocessing": f"{unknown}; a scan finds by clean accuracy what the input needs",
        **loaded.details,
    }
    width = max(map(len, rows))
    lines = [f"{key:<{width}}  {value}" for key, value in rows.items()]
    return "\n".join([*lines, *(f"note: {note}" for note in loaded.notes)]) + "\n"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    return str(kind.__name__)
