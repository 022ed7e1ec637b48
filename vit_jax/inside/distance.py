"""How far heads attend, in pixels."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def patch_distances(grid: tuple[int, int], patch: int) -> Float[np.ndarray, "patches patches"]:
    """Return the distance in pixels between the centres of any two patches of a (rows, columns) grid."""
    places = np.stack(np.indices(grid), axis=-1).reshape(-1, 2)
    return patch * np.linalg.norm(places[:, None] - places, axis=-1)


def attention_distance(
    weights: Float[Array, "batch heads tokens tokens"], grid: tuple[int, int], patch: int
) -> Float[Array, "batch heads"]:
    """Return the mean distance in pixels over which each head attends (Dosovitskiy et al., 2021, appendix D.7).

    The mean over query patches q of sum_k a(q, k) |x_q - x_k| / sum_k a(q, k), with key patches k and x a patch's
    centre. The class token and registers, which have no place, are left out as queries and as keys. A query that
    attends to no patch is left out too, and the result is NaN where none does.

    Args:
        weights: of one block, the prefix tokens first.
        grid: rows and columns of patches.
        patch: side of a patch, in pixels.
    """
    prefix = weights.shape[-1] - grid[0] * grid[1]
    weights = weights[:, :, prefix:, prefix:]
    total = weights.sum(axis=-1)
    far = (weights * patch_distances(grid, patch).astype(np.float32)).sum(axis=-1)
    return jnp.nanmean(far / jnp.where(total > 0, total, jnp.nan), axis=-1)
