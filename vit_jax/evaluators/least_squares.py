"""Ridge regression to targets of -1 and 1: the head of the paper's few-shot accuracies."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from vit_jax.evaluators.linear import Fitted, Linear, hold_out, moments

BIAS = 100.0


def fit_least_squares(
    features: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    l2: Sequence[float] = (1024.0,),
    seed: int = 0,
) -> Fitted:
    """Fit a classifier by regularised least squares, in float64, as big_vision's `fewshot_lsr` does.

    Each feature is standardised: its mean over the given pictures is subtracted, and it is divided by its deviation
    + 1e-5. A constant feature of 100 is appended, and the targets are 1 for the class and -1 for all others. With X
    these features, Y the targets and n pictures, the weights are (X'X + l2 I)^-1 X'Y, or X'(XX' + l2 I)^-1 Y where n
    is smaller than the number of features; so the penalty on the bias is l2 / 100^2 of its square.

    Args:
        l2: strengths of the penalty. Of several, the one with the most right answers on a held-out tenth is used for
            all pictures, then the one with the smaller squared error there; the first if none can be held out.
        seed: of the held-out tenth.
    """
    mean, deviation = moments(features)
    inputs = np.pad((features - mean) / deviation, ((0, 0), (0, 1)), constant_values=BIAS)
    targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    chosen, sweep = l2[0], []
    held_out = hold_out(labels, seed)
    if len(l2) > 1 and held_out.any():
        solve = _solutions(inputs[~held_out], targets[~held_out])
        for each in l2:
            scores = inputs[held_out] @ solve(each)
            right = float((scores.argmax(axis=1) == labels[held_out]).mean())
            sweep.append({"l2": each, "accuracy": right, "loss": float(np.square(scores - targets[held_out]).mean())})
        chosen = max(sweep, key=lambda row: (row["accuracy"], -row["loss"]))["l2"]
    weights = _solutions(inputs, targets)(chosen)
    return Fitted(Linear(mean, deviation, weights[:-1], BIAS * weights[-1]), {"l2": chosen}, sweep)


def _solutions(
    inputs: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n classes"]
) -> Callable[[float], Float[np.ndarray, "dim classes"]]:
    # The eigenvectors of the smaller of the two Gram matrices solve it for any penalty.
    wide = len(inputs) < inputs.shape[1]
    eigenvalues, vectors = np.linalg.eigh(inputs @ inputs.T if wide else inputs.T @ inputs)
    right = vectors.T @ (targets if wide else inputs.T @ targets)
    left = inputs.T @ vectors if wide else vectors
    return lambda l2: left @ (right / (eigenvalues + l2)[:, None])
