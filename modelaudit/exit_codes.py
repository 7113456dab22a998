"""Exit codes of the command."""

from collections.abc import Mapping
from types import MappingProxyType

#: Verdict -> exit code.
EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {"no-backdoor-found": 0, "backdoored": 1, "inconclusive": 3}
)
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
