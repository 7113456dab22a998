"""Entry point: every way out of the program has the right exit code.

0 no backdoor found · 1 backdoor found · 2 error · 3 inconclusive · 130 interrupted. Python's own
exit code for an uncaught exception is 1, which here would mean "backdoor found"; so nothing may
escape from :func:`main`.
"""

from __future__ import annotations

import os
import signal
import sys

from modelaudit.errors import internal_error_text, is_out_of_memory
from modelaudit.exit_codes import EXIT_ERROR, EXIT_INTERRUPTED


def main() -> None:
    """Run the command line and exit."""
    for name in ("SIGTERM", "SIGHUP"):  # so that workers and their folders are cleaned up
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, _interrupt)
    sys.exit(run())


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, whatever happens."""
    try:
        from modelaudit.cli.main import invoke

        return invoke(arguments)
    except KeyboardInterrupt:
        _say("interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit as exit_:
        if isinstance(exit_.__context__, BrokenPipeError):  # click makes that of it
            return _unread()
        # A library called sys.exit: not a verdict.
        _say(f"a library ended the program with exit code {exit_.code!r}.")
        return EXIT_ERROR
    except OSError as error:
        _say(f"error: {error}")
        return EXIT_ERROR
    except Exception as error:
        if is_out_of_memory(error):
            _say("out of memory. Use fewer images (--images-per-class) or a larger machine.")
            return EXIT_ERROR
        if os.environ.get("MODELAUDIT_DEBUG"):
            raise_with_traceback(error)
        print(internal_error_text(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return EXIT_ERROR


def _unread() -> int:
    """Whoever reads stdout went away. Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_ERROR


def raise_with_traceback(error: Exception) -> None:
    """Print the traceback without ending in Python's exit code 1."""
    import traceback

    traceback.print_exception(error)


def _say(message: str) -> None:
    print(f"modelaudit: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
