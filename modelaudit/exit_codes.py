"""Exit codes of the command."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

#: Verdict -> exit code.
EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {"no-backdoor-found": 0, "backdoored": 1, "inconclusive": 3}
)
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
#: Verdicts, and the error in place of one, the worst first. A backdoor that was found is a fact,
#: which a file that cannot be read must not hide; a model of which nothing is known is worse than
#: one that was looked at in vain.
WORST = ("backdoored", "error", "inconclusive", "no-backdoor-found")


def verdict_code(verdict: str) -> int:
    """The exit code of a verdict, or of the error in place of one."""
    return EXIT_CODES.get(verdict, EXIT_ERROR)


#: Exit codes of a scan, the worst first.
WORST_CODES = (EXIT_INTERRUPTED, *map(verdict_code, WORST))


def worst_code(codes: Collection[int]) -> int:
    """The worst of the exit codes of several scans; 0 where there is none."""
    return next((code for code in WORST_CODES if code in codes), 0)
