"""The hook for pre-commit: scan every model that a commit changes, one after another.

``python -P -m modelaudit.pre_commit OPTION ... -- MODEL ...``, with options of ``modelaudit scan``;
pre-commit appends the files. The exit code is that of the worst model. Configuration files do not
count: the commit that brings a model could bring one, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from modelaudit.__main__ import run
from modelaudit.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED, worst_code


def main(arguments: Sequence[str]) -> int:
    """Scan the models after ``--`` with the options before it; returns the exit code."""
    if "--" not in arguments:
        print(
            "modelaudit: error: expected options of `modelaudit scan`, then --, then models. End "
            "the hook's args with '--', e.g. args: [--clean-dir, images, --fast, --].",
            file=sys.stderr,
        )
        return EXIT_ERROR
    place = list(arguments).index("--")
    options, models = arguments[:place], arguments[place + 1 :]
    codes = []
    for model in models:
        codes.append(run(["--no-config", "scan", "--quiet", *options, "--", model]))
        if codes[-1] == EXIT_INTERRUPTED:
            break
    return worst_code(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
