"""What is registered of a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, get_origin, get_type_hints

from detectors.types import Detector

#: Types that a setting can have, beside a ``Literal`` of texts: those that a text can stand for.
SETTING_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class Entry:
    """A registered detector.

    Attributes:
        config: frozen dataclass whose fields are the settings; an instance is the detector. One
            field is ``name``, the registered name; every other one has a default.
        defaults: settings that differ from the dataclass's defaults.
        summary: one line for ``modelaudit detectors``.
        default: whether a scan runs it when none is named; never those of other packages.
        after: detectors whose results it is given, as far as the scan runs them; it then runs when
            these have finished. Of built-in detectors only.
        weight: of its p-value in Holm's procedure: less than 1 where what is looked for stands out
            by far. Of built-in detectors only; those of other packages have 1.
        floor: no p-value of it is smaller. Of built-in detectors only.
    """

    config: Callable[..., Detector]
    defaults: Mapping[str, Any]
    summary: str
    default: bool = False
    after: tuple[str, ...] = ()
    weight: float = 1.0
    floor: float = 0.0


def setting_types(entry: Entry) -> dict[str, Any]:
    """Setting -> type."""
    config: Any = entry.config
    hints = get_type_hints(config)
    return {f.name: hints[f.name] for f in fields(config) if f.name != "name"}


def setting_defaults(entry: Entry) -> dict[str, Any]:
    """Setting -> default value."""
    config: Any = entry.config
    return {
        f.name: entry.defaults.get(f.name, f.default) for f in fields(config) if f.name != "name"
    }


def checked(found: object) -> Entry:
    """An entry that another package brings, if it is what an entry must be.

    Raises:
        ValueError: it is not; the message says what was expected.
    """
    if not isinstance(found, Entry):
        raise ValueError(f"expected a detectors.registry.Entry, found {type(found).__name__}")
    config: Any = found.config
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ValueError(f"its config must be a dataclass, found {config!r}")
    if "name" not in (field.name for field in fields(config)):
        raise ValueError(f"{config.__name__} must have a field 'name'")
    for key, value in setting_defaults(found).items():
        if value is MISSING:
            raise ValueError(f"the setting {key!r} of {config.__name__} must have a default")
    for key, kind in setting_types(found).items():
        if kind not in SETTING_TYPES and get_origin(kind) is not Literal:
            raise ValueError(
                f"the setting {key!r} of {config.__name__} must be a bool, int, float, str or "
                f"Literal, found {kind}"
            )
    return found
