"""Updates that were skipped because the loss or the gradient was not finite."""

import collections
from pathlib import Path

import jax
import numpy as np

# Steps between an update and reading whether it was skipped, so that no step waits for the answer.
LAG = 2


class SkippedUpdates:
    """Counts the skipped updates of a run, a few steps late, and compares them with the number allowed."""

    def __init__(self, allowed: int, skipped: int):
        """Start with the number already skipped."""
        self._allowed, self._skipped = allowed, skipped
        self._waiting = collections.deque()

    def exceeded(self, step: int, skipped: jax.Array | np.integer, now: bool) -> int:
        """Record whether a step was skipped, and return the step at which there were too many, or 0.

        Args:
            now: read all steps up to this one, as is necessary before anything is written about it.
        """
        self._waiting.append((step, skipped))
        while len(self._waiting) > (0 if now else LAG):
            step, skipped = self._waiting.popleft()
            skipped = int(skipped)
            self._skipped += skipped
            if skipped and self._skipped > self._allowed:
                return step
        return 0

    def why(self, step: int, checkpoint: int | None, workdir: Path) -> str:
        """Return the error message for the step at which there were too many."""
        last = f"the last good checkpoint is that of step {checkpoint}" if checkpoint else "there is no checkpoint yet"
        return (
            f"error: the loss or the gradient of step {step} is not finite, and config.max_skipped={self._allowed} "
            f"allows no more; {last}, in {str(workdir)!r}; lower the learning rate, clip more, or raise max_skipped"
        )
