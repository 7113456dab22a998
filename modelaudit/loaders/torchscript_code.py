"""What the code in a TorchScript archive may do, decided before torch compiles any of it.

TorchScript is a small language of its own that cannot call Python, but some of torch's operators
read and write files, and loading alone can run ``__setstate__``. The code is text in the syntax of
Python, so its tree shows every operator that it names: as an attribute, of ``torch`` or
``ops.aten`` under any name (``t = torch; t.save``), or as the text in ``getattr(torch, "save")``.
Only namespaces of torch and torchvision are allowed, and in them only operators that take no text,
or take it for something else than a file's name.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping

import torch

from modelaudit.errors import ModelFileError, UnsafeModelError

_NAMESPACES = ("aten", "prim", "prims", "quantized", "_quantized", "torchvision")
# Classes written in C++ that are saved with a model: packed weights of quantised layers.
_CLASSES_OF = ("torch", "classes")
_CLASSES = ("quantized",)

# Operators that take text, and only as the name of a mode, as an equation, a message, the key of
# a dict, or text to work on. One that a later torch adds is refused until it is listed here.
_TEXT_IS_HARMLESS = """
AddStatValue Delete Float Int ModuleContainerIndex RaiseException StringIndex __contains__
__getitem__ __interpolate __upsample _assert_async _assert_scalar _convolution_mode
_functional_assert_async _functional_assert_scalar _linalg_check_errors _linalg_eigh _linalg_svd
_mixed_dtypes_linear _print _segment_reduce_backward _set_item _sparse_mm _sparse_mm_reduce_impl
_sparse_mm_reduce_impl_backward _sparse_semi_structured_linear _sparse_semi_structured_tile
_test_ambiguous_defaults _test_string_default add any capitalize center clear conv1d conv2d conv3d
copy count device dict div div_ divide divide_ einsum endswith eq expandtabs fft_fft fft_fft2
fft_fftn fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_ihfft2 fft_ihfftn
fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn find format ge gelu gelu_
gelu_backward get get_autocast_dtype gt index index_reduce index_reduce_ isalnum isalpha isdecimal
isdigit isidentifier islower isnumeric isprintable isspace istitle isupper items join keys le len
linalg_cond linalg_eigh linalg_eigvalsh linalg_lstsq linalg_matrix_norm linalg_norm linalg_qr
linalg_svd linalg_svdvals list ljust lower lstrip lt meshgrid nanquantile ne ord pad pad_sequence
partition percentFormat pop popitem quantile remove replace rfind rindex rjust rpartition rsplit
rstrip scatter scatter_ scatter_reduce scatter_reduce_ searchsorted segment_reduce setdefault slice
sort sorted split splitlines startswith stft strip swapcase title update upper values warn zfill
"""
_KNOWN = frozenset(_TEXT_IS_HARMLESS.split())
_ALWAYS_REFUSED = frozenset({"save", "load", "from_file"})
_REMOTE = re.compile(r"rpc_\w+")
_CLASS_IN_PICKLE = re.compile(rb"torch[.\n]classes[.\n](\w+)")


def refuse_unsafe_code(path: object, records: Mapping[str, bytes]) -> None:
    """Check the code and the pickles of an archive.

    Args:
        path: for messages.
        records: content by name, of everything in the archive that is code or a pickle.

    Raises:
        UnsafeModelError: the code reads or writes files, or uses operators or classes that did not
            come with torch or torchvision.
        ModelFileError: the code is not valid.
    """
    for name, content in records.items():
        if name.endswith(".py"):
            found = next(_unsafe(_parse(path, name, content)), None)
        else:
            classes = (match[1].decode() for match in _CLASS_IN_PICKLE.finditer(content))
            found = next((f"torch.classes.{c}" for c in classes if c not in _CLASSES), None)
        if found is not None:
            raise UnsafeModelError(
                f"{path} is refused: it uses {found} ({name}), which reads or writes files or is "
                "not a part of torch. A classifier has no need to; export it to ONNX from its "
                "source."
            )


def _parse(path: object, name: str, content: bytes) -> ast.Module:
    try:
        return ast.parse(content.decode("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelFileError(f"{path} holds code that is not valid ({name}): {error}") from error


def _unsafe(tree: ast.Module) -> Iterator[str]:
    """What the code uses and should not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _unsafe_attribute(node)
        elif isinstance(node, ast.Name) and _REMOTE.fullmatch(node.id):
            yield node.id
        elif isinstance(node, ast.Call) and _name(node.func) == "getattr":
            yield from _unsafe_getattr(node)
    # ``ops`` must be followed by a namespace where it stands, so that it has no other name.
    spelt_out = {
        id(node.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "ops" and id(node) not in spelt_out:
            yield "ops"


def _unsafe_attribute(node: ast.Attribute) -> Iterator[str]:
    owner = node.value
    if node.attr in _refused_operators():
        yield f"{_name(owner) or 'x'}.{node.attr}"
    if _name(owner) == "ops" and node.attr not in _NAMESPACES:
        yield f"ops.{node.attr}"
    owners = (_name(owner.value), owner.attr) if isinstance(owner, ast.Attribute) else ()
    if owners == _CLASSES_OF and node.attr not in _CLASSES:
        yield f"torch.classes.{node.attr}"


def _unsafe_getattr(node: ast.Call) -> Iterator[str]:
    texts = [argument for argument in node.args[1:] if isinstance(argument, ast.Constant)]
    if len(texts) != len(node.args) - 1 or _name(node.args[0]) in ("torch", "ops"):
        yield "getattr"
    for text in texts:
        if text.value in _refused_operators():
            yield f"getattr {text.value!r}"


def _name(node: ast.expr) -> str:
    """The last part of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def _refused_operators() -> frozenset[str]:
    """Names of operators that take text and are not known to be harmless."""
    names = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace in _NAMESPACES and any("str" in str(a.type) for a in schema.arguments):
            names.add(name)
    return frozenset(names - _KNOWN | _ALWAYS_REFUSED)
