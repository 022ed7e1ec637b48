"""Losses, computed in float32."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def make_targets(labels: Int[Array, " batch"], num_classes: int, smoothing: float) -> Float[Array, "batch classes"]:
    """Return one-hot targets, smoothed towards uniform by `smoothing` in [0, 1) (Szegedy et al., 2016)."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Return each picture's cross-entropy, nats, against targets that sum to 1."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def sigmoid_cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Return each picture's cross-entropies of one class against the others, nats, summed over the classes."""
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).sum(-1)


class Loss(NamedTuple):
    """A loss of logits and targets, and the probabilities that logits mean under it."""

    cross_entropy: Callable[[jax.Array, jax.Array], jax.Array]
    probabilities: Callable[[jax.Array], jax.Array]


# To add a loss: a function, a line here, and its name in `vit_jax.config.Config`.
LOSSES = {
    "softmax": Loss(softmax_cross_entropy, jax.nn.softmax),
    "sigmoid": Loss(sigmoid_cross_entropy, jax.nn.sigmoid),
}
