"""The one error tree. Every message says what was expected, what was found and what to do."""

from __future__ import annotations


class ModelAuditError(Exception):
    """Root of all errors that a user can cause or fix; the command line exits 2 on it."""


class UsageError(ModelAuditError):
    """An option, a setting or a combination of them is not valid."""


class ModelFileError(ModelAuditError):
    """The model file cannot be read, is not what it claims to be, or is refused as unsafe."""


class UnsafeModelError(ModelFileError):
    """Reading the file would execute code that it contains."""


class UnsupportedOperatorError(ModelFileError):
    """An ONNX operator that the importer does not implement.

    The message names the operator, the opset and the node.
    """


class ModelMismatchError(ModelFileError):
    """The imported model does not compute what the reference runtime computes."""


class ImagesError(ModelAuditError):
    """The clean images cannot be read or do not fit the model."""


class ManifestError(ModelAuditError):
    """A manifest for ``modelaudit evaluate`` is malformed."""
