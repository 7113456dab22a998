"""The libraries whose versions decide what is found. Nothing here imports them."""

from __future__ import annotations

from importlib import metadata

_LIBRARIES = ("torch", "torchvision", "onnx", "numpy", "scipy")


def library_versions() -> dict[str, str]:
    """Name -> version that is installed."""
    return {library: metadata.version(library) for library in _LIBRARIES}
