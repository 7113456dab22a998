"""The operator table: (domain, operator, since-opset) -> how to run it with torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from modelaudit.loaders.onnx_graph.call import Call

Function = Callable[..., Any]
Builder = Callable[[Call], Function]

_TABLE: dict[tuple[str, str], dict[int, Builder]] = {}


def op(*names: str, since: int = 1, domain: str = "") -> Callable[[Builder], Builder]:
    """Register a builder for operators from opset ``since`` on.

    A builder reads a node's attributes and known operands from a :class:`Call` once per input
    shape, and returns the torch function that takes the remaining operands on every run. Versions
    of an operator that only moved an attribute to an input share a builder
    (:meth:`Call.setting` reads either place).
    """

    def register(builder: Builder) -> Builder:
        for name in names:
            _TABLE.setdefault((domain, name), {})[since] = builder
        return builder

    return register


def plain(since: int = 1, **functions: Function) -> None:
    """Register operators that are one torch function of operands broadcast to one shape."""
    for name, function in functions.items():
        op(name, since=since)(_always(function))


def _always(function: Function) -> Builder:
    return broadcasting(lambda call: function)


def broadcasting(builder: Builder) -> Builder:
    """A builder of functions whose results are not larger than the operands broadcast together."""

    @functools.wraps(builder)
    def build(call: Call) -> Function:
        call.at_most_broadcast()
        return builder(call)

    return build


def find(domain: str, name: str, opset: int) -> Builder | None:
    """The newest registered version that is not newer than ``opset``; None if there is none."""
    versions = _TABLE.get((canonical_domain(domain), name), {})
    usable = [since for since in versions if since <= opset]
    return versions[max(usable)] if usable else None


def supported() -> dict[str, list[int]]:
    """Operator -> the opsets at which a registered version starts, sorted by domain and name."""
    return {
        f"{domain}.{name}" if domain else name: sorted(versions)
        for (domain, name), versions in sorted(_TABLE.items())
    }


def canonical_domain(domain: str) -> str:
    """``ai.onnx`` is the long spelling of the default domain."""
    return "" if domain == "ai.onnx" else domain
