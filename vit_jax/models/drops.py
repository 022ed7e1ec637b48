"""What training drops: entries, residual branches of pictures, or their computation too."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vit_jax.config import Model


def dropout(x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Zero each entry with probability `rate` and scale the rest; the identity without a key."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


class Drops(NamedTuple):
    """What training drops in a block or, with a leading axis, in each of a stack of blocks.

    Attributes:
        factors: of the two residual branches of each picture: 0, or what keeps the expectation; None: all are 1.
        key: for dropout and `residual_of_subset`; None: neither acts.
    """

    factors: Float[Array, "*depth 2 batch"] | None = None
    key: Key[Array, "*depth"] | None = None


NO_DROPS = Drops()


def draw_drops(config: Model, depth: int, batch: Float[Array, "batch ..."], key: Key[Array, ""] | None) -> Drops:
    """Return what each picture of a batch drops in each block; nothing without a key.

    Stochastic depth (Huang et al., 2016) zeroes the residual branch of a picture with a probability that grows linearly
    from 0 to `config.drop_path`, and scales the others. It is drawn for all blocks at once, outside of their loop.
    """
    if key is None:
        return NO_DROPS
    path_key, key = jax.random.split(key)
    drops_paths = config.drop_path > 0 and not config.drop_path_subset
    drops_inside = config.dropout > 0 or (config.drop_path > 0 and config.drop_path_subset)
    kept = 1 - jnp.linspace(0, config.drop_path, depth)[:, None, None]
    return Drops(
        jax.random.bernoulli(path_key, kept, (depth, 2, len(batch))) / kept if drops_paths else None,
        jax.random.split(key, depth) if drops_inside else None,
    )


def subset(rows: int, rate: float) -> tuple[int, int]:
    """Return the size of the groups that a batch is cut into for `residual_of_subset`, and how many of each are kept.

    Groups are of 16 rows, or of the largest part of 16 that divides the batch.
    """
    size = math.gcd(rows, 16)
    return size, round(size * (1 - rate))


def residual_of_subset(
    tokens: Float[Array, "batch tokens dim"],
    branch: Callable[[Float[Array, "kept tokens dim"]], Float[Array, "kept tokens dim"]],
    rate: float,
    key: Key[Array, ""],
) -> Float[Array, "batch tokens dim"]:
    """Add a residual branch to some pictures of every group, drawn anew, and compute it for these alone.

    What is added is scaled so that its expectation is that of the whole (Oquab et al., 2024, section 5).
    """
    rows, *shape = tokens.shape
    size, kept = subset(rows, rate)
    groups = tokens.reshape(rows // size, size, *shape)
    # A group lies on one device, so that nothing travels.
    chosen = jnp.argsort(jax.random.uniform(key, groups.shape[:2]), axis=1)[:, :kept]
    inputs = jnp.take_along_axis(groups, chosen[:, :, None, None], axis=1)
    outputs = branch(inputs.reshape(-1, *shape)).reshape(inputs.shape) * (size / kept)
    return jax.vmap(lambda group, rows, added: group.at[rows].add(added))(groups, chosen, outputs).reshape(tokens.shape)
