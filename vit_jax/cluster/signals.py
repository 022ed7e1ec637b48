"""Signals while a command is still importing its libraries: it exits at once, as a run that was stopped."""

import os
import signal
from typing import NoReturn

from vit_jax.errors import INTERRUPTED, STOPPED

SIGNALS = {signal.SIGTERM: STOPPED, signal.SIGUSR1: STOPPED, signal.SIGINT: INTERRUPTED}


def end_on_signals() -> None:
    """Let the signals end this process at once, since nothing has started yet."""
    for number in SIGNALS:
        signal.signal(number, end)


def end(number: int, _frame: object) -> NoReturn:
    """End the process with the exit code for a signal."""
    why = f"{signal.Signals(number).name}: stopped while starting; run the same command again to continue\n"
    os.write(2, why.encode())
    os._exit(SIGNALS[number])
