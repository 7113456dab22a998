"""Exit codes of the command, beside the three of :data:`modelaudit.cli.EXIT_CODES`."""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
