"""What linear classifiers on features share: standardising, predicting, and the part held out to choose a penalty."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK = 4096  # rows that are standardised at a time


class Linear(NamedTuple):
    """A linear classifier of standardised features, float64.

    Attributes:
        mean, deviation: of the features that it was fitted to; the deviation with 1e-5 added.
    """

    mean: Float[np.ndarray, " dim"]
    deviation: Float[np.ndarray, " dim"]
    weights: Float[np.ndarray, "dim classes"]
    intercept: Float[np.ndarray, " classes"]

    def predict(self, features: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        """Return the class of the highest score, computed in the dtype of the features."""
        mean, deviation, weights, intercept = (array.astype(features.dtype) for array in self)
        parts = [features[first : first + BLOCK] for first in range(0, len(features), BLOCK)]
        return np.concatenate([(((x - mean) / deviation) @ weights + intercept).argmax(axis=1) for x in parts])

    def accuracy(self, features: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]) -> float:
        """Return the fraction of pictures whose highest score is that of their class."""
        return float((self.predict(features) == labels).mean())


class Fitted(NamedTuple):
    """A classifier and how it was fitted.

    Attributes:
        facts: the penalty that was used, and the like, by name.
        sweep: a row for each penalty that was tried.
    """

    head: Linear
    facts: dict[str, float]
    sweep: list[dict[str, float]]


def moments(features: Float[np.ndarray, "n dim"]) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]:
    """Return the mean and the deviation + 1e-5 of each feature, float64."""
    mean, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for first in range(0, len(features), BLOCK):
        mean += features[first : first + BLOCK].sum(axis=0, dtype=np.float64) / len(features)
    for first in range(0, len(features), BLOCK):
        square += np.square(features[first : first + BLOCK] - mean).sum(axis=0) / len(features)
    return mean, np.sqrt(square) + 1e-5


def hold_out(labels: Int[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """Return which pictures, a random tenth of all, choose a penalty; every class keeps at least one.

    None are held out where no class has two, and fewer than a tenth where too few can be spared.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    kept = order[np.unique(labels[order], return_index=True)[1]]
    spare = order[~np.isin(order, kept)]
    held_out = np.zeros(len(labels), bool)
    held_out[spare[: max(1, len(labels) // 10)]] = True
    return held_out
