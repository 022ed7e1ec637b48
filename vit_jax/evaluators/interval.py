"""How sure an accuracy is."""

import numpy as np

RESAMPLES = 10_000


def bootstrap_interval(right: int, number: int, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of an accuracy over pictures (Efron, 1979), from 10,000 resamples.

    The number of right pictures among n drawn with replacement is binomial, so each resample is one draw, whatever n
    is. The interval has no width where all pictures or none are right.

    Args:
        right: how many of `number` pictures, at least 1, are right.
        level: probability mass inside the interval, in (0, 1).
    """
    accuracies = np.random.default_rng(seed).binomial(number, right / number, RESAMPLES) / number
    low, high = np.quantile(accuracies, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
