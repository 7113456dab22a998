"""The pages of the detectors, the preflight checks, and the names that options take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Any, get_args

from detectors import registry
from detectors.entry import Entry, setting_defaults, setting_types
from detectors.examinations import EXAMINATIONS
from modelaudit.checks import CHECKS
from modelaudit.formats import FORMATS
from modelaudit.isolation.limits import Limits, option_name
from modelaudit.preprocess_table import table as preprocessings
from tests.docs.markdown import code, meanings, plain, table

_NEEDS = {"finding": "a pattern found", "suspects": "`--suspect-dir`", "train": "`--train-dir`"}


def _idle() -> list[str]:
    """The detectors that cannot decide alone by default, nor with ``--thorough``."""
    found = []
    for preset in ("default", "thorough"):
        weights = registry.weights(registry.preset_names(preset), 0.05).items()
        found.append([code(n) for n, weight in weights if weight != registry.REGISTRY[n].weight])
    assert found[0] == found[1]
    return found[0]


def detectors_page() -> str:
    """Every detector and examination with its settings."""
    parts = [
        "# Detectors and settings\n",
        "Choose detectors with `--detector NAME`, `--fast` or `--thorough`; change a setting with "
        "`--set NAME.SETTING=VALUE`. How they work is told in [How a scan decides]"
        "(../explanation/index.md).\n",
    ]
    entries = registry.REGISTRY.items()
    rows = [
        (
            code(n),
            plain(e.summary),
            _runs(n, e),
            str(Fraction(e.weight).limit_denominator()),
            _own_defaults(e),
        )
        for n, e in entries
    ]
    parts += [table(("name", "what it looks for", "runs", "weight", "its own defaults"), rows)]
    parts += [
        "*weight*: in [Holm's procedure](../explanation/statistics.md#several-detectors-holm); "
        f"next to none for {' and '.join(_idle())} where it cannot decide alone: by default and "
        "with `--thorough`.\n"
    ]
    for config in dict.fromkeys(entry.config for _, entry in entries):
        first, *others = [name for name, entry in entries if entry.config is config]
        parts += [f"## Settings of {first}\n"]
        parts += [f"And of {', '.join(map(code, others))}.\n"] if others else []
        parts += [_settings(Entry(config, {}, ""))]
    parts += ["## Examinations\n", "Evidence beside the verdict: `--examine NAME`, or `all`.\n"]
    needs = {n: " or ".join(_NEEDS[need] for need in e.needs) for n, e in EXAMINATIONS.items()}
    said = [(code(n), plain(e.summary), needs[n]) for n, e in EXAMINATIONS.items()]
    parts += [table(("name", "what it says", "needs"), said)]
    return "\n".join(parts)


def checks_page() -> str:
    """Every preflight check."""
    parts = [
        "# Preflight checks\n",
        "Before a scan: is a scan of this model with these images meaningful at all? A check ends "
        "as *ok*, *note* (worth knowing), *warning* (read the result with care), *inconclusive* "
        "(a scan would prove nothing: no detector runs, exit code 3) or *error* (a scan "
        "is impossible; exit code 2).\n",
    ]
    for check in CHECKS:
        parts += [
            f"## {check.name}\n",
            f"**Raised if** {plain(check.raised_if)}\n",
            f"**Meaning.** {plain(check.meaning)}\n",
            f"**What to do.** {plain(check.advice)}\n",
        ]
    return "\n".join(parts)


def names_page() -> str:
    """Report formats, preprocessings and limits."""
    formats = [(code(n), ", ".join(map(code, f.extensions))) for n, f in FORMATS.items()]
    parts = ["# Formats, preprocessings, limits\n", "## Report formats\n"]
    parts += [table(("`--format`", "`--output` extension"), formats), "## Preprocessings\n"]
    head = ("`--preprocess`", "mean", "std", "input range", "channel order")
    rows = [
        (code(p.name), _numbers(p.mean), _numbers(p.std), p.input_range, p.channel_order)
        for p in preprocessings()
    ]
    parts += [table(head, rows), "## Limits of the worker process\n"]
    said = meanings(Limits)
    limits = [(code(option_name(f.name)), _limit(f), said[f.name]) for f in fields(Limits)]
    return "\n".join([*parts, table(("`--limit` name", "default", "meaning"), limits)])


def _runs(name: str, entry: Entry) -> str:
    """When a detector runs without being named."""
    presets = (("by default", entry.default), ("with `--fast`", name in registry.FAST))
    return ", ".join([*(words for words, runs in presets if runs), "with `--thorough`"])


def _own_defaults(entry: Entry) -> str:
    return ", ".join(code(f"{key}={_plain(value)}") for key, value in entry.defaults.items())


def _settings(entry: Entry) -> str:
    defaults, said = setting_defaults(entry), meanings(entry.config)
    rows = [
        (code(key), _type_name(kind), code(_plain(defaults[key])), said.get(key, ""))
        for key, kind in setting_types(entry).items()
    ]
    return table(("setting", "type", "default", "meaning"), rows)


def _type_name(kind: Any) -> str:
    return ", ".join(map(code, get_args(kind))) or str(kind.__name__)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


#: Bytes and seconds in words.
_UNITS: Mapping[str, tuple[int, str]] = {
    "cpu_time": (86400, "days"),
    "stall": (60, "minutes"),
    "open_files": (1, "files"),
    "file_size": (2**20, "MiB"),
}


def _limit(field: Any) -> str:
    if field.name not in _UNITS:  # depends on the machine
        return "80 % of the machine's"
    unit, word = _UNITS[field.name]
    return f"{field.default // unit} {word}"
