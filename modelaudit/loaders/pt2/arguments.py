"""Arguments of operators, as the JSON of torch.export writes them.

The format is torch's own ``torch/_export/serde/schema.py``: a value is an object with one key that
says what it is, such as ``{"as_int": 3}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from modelaudit.errors import ModelFileError
from modelaudit.loaders.pt2.graph import OnTheImagesDevice, Ref

_SCALAR_TYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}


def scalar_type(number: int) -> torch.dtype:
    """The dtype behind torch.export's number; raises ``ValueError`` for one that is not known."""
    if number not in _SCALAR_TYPES:
        raise ValueError(f"unknown type of numbers {number!r}")
    return _SCALAR_TYPES[number]


def whole_numbers(sizes: list[Mapping[str, Any]]) -> list[int]:
    """Extents that the file fixes; raises ``ValueError`` where one is open."""
    found = [fixed_size(size) for size in sizes]
    if None in found:
        raise ValueError("a weight without a fixed shape")
    return [size for size in found if size is not None]


def fixed_size(size: Mapping[str, Any]) -> int | None:
    """An extent; ``None`` if it is an expression, which is not parsed."""
    value = size.get("as_int")
    return value if type(value) is int else None


def example_size(size: Mapping[str, Any]) -> int | None:
    """The extent that an open size had when the model was exported, where the file says so."""
    hint = (size.get("as_expr") or {}).get("hint") or {}
    value = hint.get("as_int")
    return value if type(value) is int and value > 0 else None


def read_argument(
    argument: Mapping[str, Any],
    dtype: Callable[[torch.dtype], torch.dtype],
    graph: Callable[[Mapping[str, Any]], Any],
) -> Any:
    """The value of a serialised argument, with :class:`Ref` for what is computed earlier.

    Args:
        argument: ``{"as_...": value}``.
        dtype: what a dtype in the file is replaced by.
        graph: turns the JSON of a graph into what calls it.

    Raises:
        ModelFileError: a kind of value that an image classifier does not need (custom objects).
        ValueError, TypeError, KeyError, AttributeError: not of the expected form.
    """
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind in _PLAIN:
        return _plain(value, _PLAIN[kind])
    if kind in _NAMED:
        return _named(value)
    if kind in _LISTS_OF_NAMED:
        return [_named(part) for part in value]
    if kind == "as_nested_tensors":
        return [[_named(part) for part in row] for row in value]
    if kind == "as_scalar_type":
        return dtype(scalar_type(value))
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[value]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_device":
        return OnTheImagesDevice()
    if kind == "as_complex":
        return complex(value["real"], value["imag"])
    if kind == "as_graph":
        return graph(value["graph"])
    raise ModelFileError(
        f"an operator takes a value of the kind {kind.removeprefix('as_')!r}, which an image "
        "classifier does not need"
    )


_NUMBER = (float, int, str)  # Infinity and NaN are strings
_PLAIN: Mapping[str, Any] = {
    "as_int": int,
    "as_ints": int,
    "as_int_lists": int,
    "as_float": _NUMBER,
    "as_floats": _NUMBER,
    "as_float_lists": _NUMBER,
    "as_bool": bool,
    "as_bools": bool,
    "as_string": str,
    "as_strings": str,
}
_NAMED = (
    "as_tensor",
    "as_optional_tensor",
    "as_sym_int",
    "as_sym_float",
    "as_sym_bool",
)
_LISTS_OF_NAMED = (
    "as_tensors",
    "as_optional_tensors",
    "as_sym_ints",
    "as_sym_floats",
    "as_sym_bools",
)


def _plain(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part, kind) for part in value]
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind}")
    return float(value) if kind is _NUMBER else value


def _named(value: Mapping[str, Any]) -> Any:
    """``{"name": ...}``, ``{"as_name": ...}``, ``{"as_tensor": {"name": ...}}`` or a constant."""
    if "name" in value:
        return Ref(_plain(value["name"], str))
    ((kind, inner),) = value.items()
    if kind == "as_tensor":
        return _named(inner)
    if kind == "as_none":
        return None
    if kind == "as_name":
        return Ref(_plain(inner, str))
    return _plain(inner, _PLAIN[kind])
