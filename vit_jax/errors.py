"""Mistakes a person can make, told in one line that says what, where and what to do."""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn


class InputError(ValueError):
    """Something the user gave can't be used; the message is complete, and one line where it can be."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the choices when none is close."""
    choices = [str(choice) for choice in choices]
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(choices)}"


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose complaints are an `InputError`."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse complains of; `--help` tells the rest."""
        raise InputError(f"{message}; see --help")


def run_command(main: Callable[[], object]) -> None:
    """Run a command's `main`; end with exit code 2 and one line on stderr for an `InputError`."""
    try:
        main()
    except InputError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; run the same command again to continue", 130))


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
