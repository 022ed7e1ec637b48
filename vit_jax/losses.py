"""Losses, computed in float32."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

# Traced or not.
Smoothing = float | Float[Array, ""]


def make_targets(labels: Int[Array, " batch"], num_classes: int, smoothing: Smoothing) -> Float[Array, "batch classes"]:
    """Return one-hot targets, smoothed towards uniform by `smoothing` in [0, 1) (Szegedy et al., 2016)."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Return each picture's cross-entropy, in nats, against targets that sum to 1."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def sigmoid_cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Return each picture's binary cross-entropies, in nats, summed over the classes."""
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).sum(-1)


class Loss(NamedTuple):
    """A loss on logits and targets, with the function that maps its logits to probabilities."""

    cross_entropy: Callable[[jax.Array, jax.Array], jax.Array]
    probabilities: Callable[[jax.Array], jax.Array]


# To add a loss: write a function, and add a line here and its name to `vit_jax.config.Config`.
LOSSES = {
    "softmax": Loss(softmax_cross_entropy, jax.nn.softmax),
    "sigmoid": Loss(sigmoid_cross_entropy, jax.nn.sigmoid),
}
