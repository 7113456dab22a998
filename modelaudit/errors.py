"""The one error tree. Every message says what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ModelAuditError(Exception):
    """Root of all errors that a user can cause or fix; the command line exits 2 on it.

    Attributes:
        stage: of the scan in which it was raised, in the words of the progress display; ``None``
            if there is no scan.
    """

    def __init__(self, message: str, *, stage: str | None = None) -> None:
        super().__init__(message)
        self.stage = stage


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


class DeviceError(ModelAuditError):
    """The GPU failed, or cannot run what the model needs."""


class ScanInterrupted(ModelAuditError):
    """Somebody ended the scan before anything was known; the command exits 130 on it."""

    def __init__(self, message: str = "", *, stage: str | None = None) -> None:
        super().__init__(message or "Interrupted before anything was known.", stage=stage)


class DetectorError(ModelAuditError):
    """A detector of another package failed."""


class ManifestError(ModelAuditError):
    """A manifest, or a report of many models to resume from, is malformed."""


class WorkerError(ModelAuditError):
    """The worker process, in which the model is opened and run, ended without a result."""


class WorkerCrashError(WorkerError):
    """It crashed."""


class WorkerTimeoutError(WorkerError):
    """It made no progress for too long, or used up its processor time."""


class WorkerMemoryError(WorkerError):
    """It needed more memory than it was allowed."""


class InternalError(ModelAuditError):
    """A fault of modelaudit itself, found in the worker process.

    Attributes:
        details: the traceback.
    """

    def __init__(self, message: str, *, stage: str | None = None, details: str = "") -> None:
        super().__init__(message, stage=stage)
        self.details = details


#: How libraries put it that memory could not be had.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "failed to map",
    "Cannot allocate memory",
    "could not create a primitive",
)
#: And of a GPU, where it is no OutOfMemoryError. Without room to work in, cuDNN finds no way.
_OUT_OF_GPU_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "nable to find an engine to execute this computation",
    "nable to find a valid cuDNN algorithm",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Python's, torch's on a GPU, or a plain RuntimeError of torch's allocator and the like."""
    return (
        isinstance(error, MemoryError)
        or is_out_of_gpu_memory(error)
        or any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )


def no_fault_of_the_model(error: BaseException) -> bool:
    """A lack of memory, or a GPU that failed."""
    return isinstance(error, DeviceError) or is_out_of_memory(error)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it was a GPU's memory that could not be had."""
    return _is_called(error, "OutOfMemoryError") or any(
        sign in str(error) for sign in _OUT_OF_GPU_MEMORY
    )


def _is_called(error: BaseException, name: str) -> bool:
    """Whether an error is of a class of this name; torch need not be imported to ask that."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """The first line of a library's message, or the type of its error where there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def first_line(error: BaseException, limit: int = 300) -> str:
    """The type of a library's error and the first line of its message."""
    kind = type(error).__name__
    return f"{kind}: {reason_of(error)}"[:limit] if str(error).strip() else kind


def internal_error(error: Exception) -> InternalError:
    """An error that is none of this tree, as one that is."""
    return InternalError(f"internal error: {first_line(error)}")


@contextmanager
def blaming_the_model(what: str, advice: str) -> Iterator[None]:
    """Turn what foreign code raises into a ``ModelFileError``: ``what (its reason). advice``.

    Errors of this tree pass, and so does a lack of memory, which is no fault of the file. What a
    GPU's driver raises is a ``DeviceError``.
    """
    try:
        yield
    except ModelAuditError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if _is_called(error, "AcceleratorError"):
            raise DeviceError(f"The GPU failed: {first_line(error)}. Use --device cpu.") from error
        raise ModelFileError(f"{what} ({first_line(error)}). {advice}") from error


def internal_error_text(cause: str) -> str:
    """What a user reads about a fault of the program."""
    return (
        f"modelaudit: internal error: {cause}\nThis is a fault of modelaudit, not a verdict. Set "
        "MODELAUDIT_DEBUG=1 for the traceback, and please report it."
    )


def error_class(name: str) -> type[ModelAuditError] | None:
    """The error of this tree that is called ``name``; ``None`` if there is none."""
    waiting: list[type[ModelAuditError]] = [ModelAuditError]
    for kind in waiting:
        if kind.__name__ == name:
            return kind
        waiting.extend(kind.__subclasses__())
    return None
