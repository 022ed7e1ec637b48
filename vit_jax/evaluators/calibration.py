"""Whether a probability of 0.8 is right 8 times in 10."""

import numpy as np
from jaxtyping import Bool, Float

BINS = 15


def reliability(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> list[dict[str, float | None]]:
    """Return the rows of a reliability diagram: 15 bins of equal width, each without its lower end.

    Bin m of M has the pictures whose confidence, the probability of the predicted class, is in ((m - 1) / M, m / M];
    the first has 0 too (Guo et al., 2017, section 2). Mean confidence and accuracy of an empty bin are None.
    """
    ends = np.arange(BINS + 1) / BINS
    place = np.digitize(confidence.astype(np.float64), ends[1:-1], right=True)
    pictures = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, confidence, BINS), np.bincount(place, right, BINS)
    return [
        {
            "low": float(ends[i]),
            "high": float(ends[i + 1]),
            "pictures": int(pictures[i]),
            "confidence": float(sums[0][i] / pictures[i]) if pictures[i] else None,
            "accuracy": float(sums[1][i] / pictures[i]) if pictures[i] else None,
        }
        for i in range(BINS)
    ]


def calibration_error(bins: list[dict[str, float | None]]) -> float:
    """Return the expected calibration error: sum over bins of n_m / n |accuracy_m - confidence_m|.

    Naeini et al., 2015; Guo et al., 2017, equation 3. In [0, 1].
    """
    number = sum(row["pictures"] for row in bins)
    gaps = (row["pictures"] * abs(row["accuracy"] - row["confidence"]) for row in bins if row["pictures"])
    return sum(gaps) / number
