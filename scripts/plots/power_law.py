"""The Pareto front of accuracy over cost, and a power law of the error along it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEAST = 3  # points of a front, for a law


class Law(NamedTuple):
    """error = scale * cost ** -exponent, with percentile intervals over bootstrap samples.

    Attributes:
        exponent, interval: the exponent, and its 2.5th and 97.5th percentiles.
        costs, errors, low, high: the law along the front, and its band.
    """

    exponent: float
    interval: tuple[float, float]
    costs: Float[np.ndarray, " n"]
    errors: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def front(costs: Sequence[float], errors: Sequence[float]) -> list[int]:
    """Return the points that no other beats in both, from cheap to dear."""
    found, best = [], np.inf
    for i in np.lexsort((errors, costs)):
        if errors[i] < best:
            found.append(int(i))
            best = errors[i]
    return found


def fit(costs: Sequence[float], groups: Sequence[Sequence[float]], seed: int = 0) -> Law | None:
    """Return the law of the front of groups of errors, one a seed, by least squares of logarithms of their means.

    In each bootstrap sample seeds are drawn anew within each group, and the front is that of the sample's means. There
    is no irreducible error in the law: a few points can't tell it from a smaller exponent. None where the front has
    fewer than `LEAST` points.
    """
    costs, groups = np.asarray(costs, float), [np.asarray(group, float) for group in groups]
    means = np.array([group.mean() for group in groups])
    if len(front(costs, means)) < LEAST:
        return None
    rng = np.random.default_rng(seed)
    drawn = [
        np.array([rng.choice(group, len(group)).mean() for group in groups])
        for _ in range(RESAMPLES)
        if max(map(len, groups)) > 1
    ]
    lines = [_line(costs, sample) for sample in drawn if len(front(costs, sample)) >= LEAST]
    slope, intercept = _line(costs, means)
    on_front = costs[front(costs, means)]
    at = np.geomspace(on_front.min(), on_front.max(), 50)
    curves = np.exp([line[0] * np.log(at) + line[1] for line in lines or [(slope, intercept)]])
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    exponents = [-line[0] for line in lines] or [np.nan]
    interval = tuple(float(x) for x in np.percentile(exponents, (2.5, 97.5)))
    return Law(-slope, interval, at, np.exp(slope * np.log(at) + intercept), low, high)


def _line(costs: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    chosen = front(costs, errors)
    slope, intercept = np.polyfit(np.log(costs[chosen]), np.log(errors[chosen]), 1)
    return float(slope), float(intercept)
