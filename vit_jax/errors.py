"""User errors, reported in one line that says what is wrong, where, and what to do."""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

# Exit codes of the commands; 0 means that the run is complete.
FAILED = 1  # Not a user error; prints a traceback.
INPUT = 2
BAD_PICTURES = 3  # All that could be read is done.
RUNS_FAILED = 4  # Some runs of a sweep; all others are done.
STOPPED = 75  # By SIGTERM or SIGUSR1, with the state saved: run the same command again. EX_TEMPFAIL in sysexits.h.
NOT_FINITE = 76
PEER_DIED = 77
INTERRUPTED = 130  # By Ctrl-C, as in shells.


class InputError(ValueError):
    """Invalid user input; the message is complete, and one line where possible."""


class Stop(Exception):
    """Ends a run early and cleanly, in all processes alike, with an exit code and an optional message."""

    def __init__(self, code: int, message: str = ""):
        super().__init__(message)
        self.code = code


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the choices when none is close."""
    choices = [str(choice) for choice in choices]
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(choices)}"


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations that raises `InputError`."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as an `InputError`."""
        raise InputError(f"{message}; see --help")


def run_command(main: Callable[[], object]) -> None:
    """Run a command's `main`; an `InputError` or `Stop` exits with its code and one line on stderr."""
    try:
        main()
    except InputError as error:
        sys.exit(_fail(f"error: {error}", INPUT))
    except Stop as stop:
        sys.exit(_fail(str(stop), stop.code))
    except (MemoryError, RuntimeError) as error:
        # XLA reports running out of memory as a RuntimeError.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first, *_ = str(error).splitlines() or ["allocation failed"]
        how = "take a smaller batch, image_size or model, or set accumulate or model.remat=full"
        sys.exit(_fail(f"error: out of memory ({first}); {how}", INPUT))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; run the same command again to continue", INTERRUPTED))


def _fail(message: str, code: int) -> int:
    if message:
        print(message, file=sys.stderr)
    return code
