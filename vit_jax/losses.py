"""Losses, computed in float32."""

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
