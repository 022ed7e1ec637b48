"""Added position embeddings. The grid (rows, columns) is the parameter's own shape, never guessed."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LearnedPosition(nnx.Module):
    """One learned vector a patch, in a (rows, columns, width) grid, and one for each prefix token."""

    def __init__(self, grid: tuple[int, int], num_prefix: int, width: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.grid = nnx.Param(init(rngs.params(), (*grid, width)))
        self.prefix = nnx.Param(init(rngs.params(), (num_prefix, width))) if num_prefix else None

    def __call__(self) -> Float[Array, "tokens dim"]:
        patches = self.grid[...].reshape(-1, self.grid.shape[-1])
        return patches if self.prefix is None else jnp.concatenate([self.prefix[...], patches])


class SinCos2d(nnx.Module):
    """Fixed sines and cosines of the row and the column (Chen et al., 2021, as in MoCo v3); zero for prefix tokens.

    A quarter of the width each: sin x, cos x, sin y, cos y, at frequencies from 1 to 1/10,000.
    """

    def __init__(self, grid: tuple[int, int], num_prefix: int, width: int):
        self.grid, self.num_prefix, self.width = grid, num_prefix, width

    def __call__(self) -> Float[Array, "tokens dim"]:
        quarter = self.width // 4
        frequency = 1 / 10_000 ** (jnp.arange(quarter) / (quarter - 1))
        y, x = (axis.reshape(-1, 1) * frequency for axis in jnp.mgrid[: self.grid[0], : self.grid[1]])
        patches = jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=1)
        return jnp.pad(patches, ((self.num_prefix, 0), (0, 0)))
