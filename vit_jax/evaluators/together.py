"""Evaluations that fail: every process learns of it, and none waits for another."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.errors import InputError, Stop
from vit_jax.evaluators.evaluator import Results

LONGEST = 400  # bytes of a reason that are sent


def run_together(run: Callable[[], Results], failures: list[Exception]) -> Results | Exception:
    """Return the results of an evaluation, or why it failed in any process; every process must call this.

    Covers what fails in all processes, while reading, or after the last computation that they share. A process that
    fails alone between two of those leaves the others waiting.

    Args:
        failures: of this process in reading, while the evaluation goes on; see `Split.batches`.

    Raises:
        Stop, MemoryError, RuntimeError: the run must stop, or is out of memory.
    """
    failures.clear()
    results, error = None, None
    try:
        results = run()
    except (Stop, MemoryError):
        raise
    except Exception as caught:
        if "RESOURCE_EXHAUSTED" in str(caught):
            raise
        error = caught
    # What fails after pictures could not be read may follow from it.
    if failures:
        error = failures[0]
    if jax.process_count() > 1:
        process, text = _first(error, 2 if failures else 0 if error is None else 1)
        if text and process != jax.process_index():
            error = InputError(f"process {process}: {text}")
    return results if error is None else error


def one_line(error: Exception) -> str:
    """Return what went wrong in one line, with the type of what is no mistake of the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _first(error: Exception | None, weight: int) -> tuple[int, str]:
    # The first process with the most weight, and its reason.
    own = np.zeros(1 + LONGEST, np.uint8)
    text = b"" if error is None else one_line(error).encode()[:LONGEST]
    own[: 1 + len(text)] = [weight, *text]
    everyone = multihost_utils.process_allgather(own)
    process = int(everyone[:, 0].argmax())
    return process, everyone[process, 1:].tobytes().rstrip(b"\0").decode(errors="ignore")
