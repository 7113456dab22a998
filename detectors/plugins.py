"""Detectors of other packages, by entry points of the group ``modelaudit.detectors``.

A package declares, in its ``pyproject.toml``::

    [project.entry-points."modelaudit.detectors"]
    my-detector = "my_package:ENTRY"

where ``ENTRY`` is a :class:`detectors.registry.Entry`. To import a package is to run its code, so
reading the declarations imports nothing; only a detector that somebody asks for is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from detectors.entry import Entry, checked
from detectors.types import Detector, DetectorInput, DetectorResult
from modelaudit.errors import DetectorError, ModelAuditError, first_line, is_out_of_memory

GROUP = "modelaudit.detectors"


def declarations() -> dict[str, tuple[EntryPoint, ...]]:
    """Every declared name with its entry points, sorted by name; more than one is a conflict."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def load(name: str, points: tuple[EntryPoint, ...]) -> Entry:
    """The detector that the one entry point of that name stands for; its package is imported.

    Raises:
        ValueError: several packages declare it, or it cannot be used; the message says which.
    """
    if len(points) > 1:
        raise ValueError(
            f"the detector {name!r} is declared by {places(points)}; uninstall all but one of them"
        )
    try:
        return checked(points[0].load())
    except Exception as error:  # another package's code raises anything
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"the detector {name!r} of {places(points)} cannot be loaded: {reason}"
        ) from error


@dataclass(frozen=True)
class Foreign:
    """A detector of another package: what goes wrong in it is no fault of this program.

    Attributes:
        name: declared name.
        detector: with its settings applied.
    """

    name: str
    detector: Detector

    def __call__(self, data: DetectorInput) -> DetectorResult:
        """Run it.

        Raises:
            DetectorError: it failed, or returned what is no result.
        """
        try:
            result = self.detector(data)
        except Exception as error:
            if isinstance(error, ModelAuditError) or is_out_of_memory(error):
                raise
            raise self._fault(first_line(error)) from error
        if not isinstance(result, DetectorResult):
            raise self._fault(f"it returned {type(result).__name__}, not a DetectorResult")
        for p in (result.p_plugin, result.p_calibrated):
            if p is not None and not 0 <= p <= 1:
                raise self._fault(f"it returned the p-value {p}")
        return result

    def _fault(self, reason: str) -> DetectorError:
        return DetectorError(
            f"The detector {self.name!r}, which is another package's, failed ({reason}). Report "
            "that to its authors, or scan without it."
        )


def places(points: tuple[EntryPoint, ...]) -> str:
    """The packages and the objects that entry points name, for messages."""
    return " and ".join(
        (f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package")
        + f" ({point.value})"
        for point in points
    )
