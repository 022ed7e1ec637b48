"""The norm of a model: LayerNorm or RMSNorm."""

import jax.numpy as jnp
from flax import nnx

from vit_jax.config import Model


def make_norm(config: Model, features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm:
    """Return the norm over the last axis that `Model.norm` names."""
    make = nnx.RMSNorm if config.norm == "rms" else nnx.LayerNorm
    return make(features, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
