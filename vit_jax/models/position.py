"""Position embeddings. The grid (rows, columns) is the parameter's own shape, never guessed.

Each is called with the grid of the pictures at hand, and resamples itself where that is another one. Those that are
added to tokens tell the same of single patches (`at`), by row and column and the grid of the picture of each.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.resize import Method, interpolation, resize_grid

Grid = tuple[int, int]
Places = Int[Array, "batch patches 2"]  # rows and columns


def make_position(config: Model, grid: Grid, *, rngs: nnx.Rngs) -> nnx.Module | None:
    """Return the position embedding of a resolved config for a (rows, columns) grid of patches.

    Raises:
        InputError: an option means nothing for it, or isn't built for it.
    """
    if config.relative_prefix and config.position != "relative":
        raise InputError(f"model.relative_prefix: means nothing with model.position={config.position!r}")
    if config.relative_prefix and config.attention_pattern != "full":
        raise InputError(
            f"model.relative_prefix: isn't built for model.attention_pattern={config.attention_pattern!r}, "
            "only for 'full'"
        )
    if config.relative_prefix and not num_prefix(config):
        raise InputError("model.relative_prefix: there is neither a class token nor a register")
    if config.resample == "geometric" and config.position in ("learned", "learned2d"):
        raise InputError(f"model.resample='geometric': resizes offsets, not model.position={config.position!r}")
    return {
        "learned": lambda: LearnedPosition(config, grid, rngs=rngs),
        "learned2d": lambda: LearnedPosition2d(config, grid, rngs=rngs),
        "relative": lambda: RelativePosition(config, grid, rngs=rngs),
        "sincos2d": lambda: SinCos2d(config, grid),
        "sincos2d_mae": lambda: SinCos2d(config, grid),
        "none": lambda: None,
    }[config.position]()


def num_prefix(config: Model) -> int:
    """Return how many tokens, class token and registers, come before the patches."""
    return int(config.class_token) + config.registers


def resample(
    table: Float[Array, "*layers rows columns dim"] | Float[np.ndarray, "*layers rows columns dim"],
    new: Grid,
    method: Method,
) -> Float[Array, "*layers new_rows new_columns dim"]:
    """Resample a table, or each layer's, to another grid; the identity where it has that grid already."""
    table = jnp.asarray(table)
    if table.shape[-3:-1] == new:
        return table
    if table.ndim == 4:
        return jax.vmap(lambda one: resize_grid(one, new, method))(table)
    return resize_grid(table, new, method)


class LearnedPosition(nnx.Module):
    """One learned vector a patch, in a (rows, columns, width) grid, and one for each prefix token."""

    def __init__(self, config: Model, grid: Grid, *, rngs: nnx.Rngs):
        layers = _layers(config)
        self.grid = _normal((*layers, *grid, config.width), rngs)
        self.prefix = _prefix(config, layers, rngs)
        self.method, self.num_prefix = config.resample, num_prefix(config)

    def __call__(self, grid: Grid) -> Float[Array, "*layers tokens dim"]:
        table = resample(self.grid[...], grid, self.method)
        return _with_prefix(self.prefix, self.num_prefix, table.reshape(*table.shape[:-3], -1, table.shape[-1]))

    def at(self, places: Places, grids: Places) -> Float[Array, "batch patches dim"]:
        """Return the embedding of each patch."""
        table = self.grid[...]
        rows, columns = _interpolations(places, grids, table.shape[:2], self.method)
        return jnp.einsum("btr,btc,rcd->btd", rows, columns, table, precision="highest")

    def resize(self, grid: Grid) -> None:
        """Make this the embedding of another grid."""
        self.grid = nnx.Param(resample(self.grid[...], grid, self.method))


class LearnedPosition2d(nnx.Module):
    """One learned vector a row and one a column, each half the width, and one for each prefix token."""

    def __init__(self, config: Model, grid: Grid, *, rngs: nnx.Rngs):
        layers = _layers(config)
        self.rows = _normal((*layers, grid[0], config.width // 2), rngs)
        self.columns = _normal((*layers, grid[1], config.width - config.width // 2), rngs)
        self.prefix = _prefix(config, layers, rngs)
        self.method, self.num_prefix = config.resample, num_prefix(config)

    def __call__(self, grid: Grid) -> Float[Array, "*layers tokens dim"]:
        rows, columns = self._resampled(grid)
        halves = (
            jnp.broadcast_to(rows[..., :, None, :], (*rows.shape[:-1], grid[1], rows.shape[-1])),
            jnp.broadcast_to(columns[..., None, :, :], (*columns.shape[:-2], *grid, columns.shape[-1])),
        )
        table = jnp.concatenate(halves, axis=-1)
        return _with_prefix(self.prefix, self.num_prefix, table.reshape(*table.shape[:-3], -1, table.shape[-1]))

    def at(self, places: Places, grids: Places) -> Float[Array, "batch patches dim"]:
        """Return the embedding of each patch."""
        tables = self.rows[...], self.columns[...]
        weights = _interpolations(places, grids, tuple(map(len, tables)), self.method)
        halves = (jnp.matmul(x, y, precision="highest") for x, y in zip(weights, tables, strict=True))
        return jnp.concatenate(list(halves), axis=-1)

    def resize(self, grid: Grid) -> None:
        """Make this the embedding of another grid."""
        rows, columns = self._resampled(grid)
        self.rows, self.columns = nnx.Param(rows), nnx.Param(columns)

    def _resampled(self, grid: Grid) -> tuple[jax.Array, jax.Array]:
        rows = resample(self.rows[...][..., None, :], (grid[0], 1), self.method)[..., 0, :]
        columns = resample(self.columns[...][..., None, :], (grid[1], 1), self.method)[..., 0, :]
        return rows, columns


class RelativePosition(nnx.Module):
    """A learned attention bias by offset in rows and columns, for each head; to and from prefix tokens zero or learned.

    The table (2 rows - 1, 2 columns - 1, heads) holds offset (0, 0) at its centre, as in Swin (Liu et al., 2021). That
    of the prefix (3, heads) holds the bias of prefix tokens to patches, of patches to prefix tokens, and of prefix
    tokens to each other, as in BEiT (Bao et al., 2022).
    """

    def __init__(self, config: Model, grid: Grid, *, rngs: nnx.Rngs):
        self.bias = _normal((*_layers(config), 2 * grid[0] - 1, 2 * grid[1] - 1, config.num_heads), rngs)
        self.prefix = _normal((*_layers(config), 3, config.num_heads), rngs) if config.relative_prefix else None
        self.method, self.num_prefix = config.resample, num_prefix(config)

    def table(self, grid: Grid) -> Float[Array, "*layers row_offsets column_offsets heads"]:
        """Return the bias by offset, from 1 - rows to rows - 1 and 1 - columns to columns - 1."""
        return resample(self.bias[...], (2 * grid[0] - 1, 2 * grid[1] - 1), self.method)

    def __call__(self, grid: Grid) -> Float[Array, "*layers heads tokens tokens"]:
        table = self.table(grid)
        row, column = (axis.reshape(-1) for axis in jnp.mgrid[: grid[0], : grid[1]])
        rows = row[:, None] - row[None, :] + grid[0] - 1
        columns = column[:, None] - column[None, :] + grid[1] - 1
        bias = jnp.moveaxis(table[..., rows, columns, :], -1, -3)
        bias = jnp.pad(bias, ((0, 0),) * (bias.ndim - 2) + ((self.num_prefix, 0),) * 2)
        if self.prefix is None:
            return bias
        outward, inward, among = jnp.moveaxis(self.prefix[...], -2, 0)[..., None, None]
        is_prefix = jnp.arange(bias.shape[-1]) < self.num_prefix
        bias = jnp.where(is_prefix[:, None], jnp.where(is_prefix, among, outward), bias)
        return jnp.where(~is_prefix[:, None] & is_prefix, inward, bias)

    def resize(self, grid: Grid) -> None:
        """Make this the bias of another grid."""
        self.bias = nnx.Param(self.table(grid))


class SinCos2d(nnx.Module):
    """Fixed sines and cosines of the row and the column (Chen et al., 2021, as in MoCo v3); zero for prefix tokens.

    A quarter of the width each: sin x, cos x, sin y, cos y, at frequencies from 1 to 1/10,000, or as in MAE (He et al.,
    2022) to the last before it.
    """

    def __init__(self, config: Model, grid: Grid):
        self.grid, self.num_prefix, self.width = grid, num_prefix(config), config.width
        self.steps = self.width // 4 - (config.position != "sincos2d_mae")

    def __call__(self, grid: Grid) -> Float[Array, "tokens dim"]:
        places = jnp.stack([axis.reshape(-1) for axis in jnp.mgrid[: grid[0], : grid[1]]], axis=-1)
        return _with_prefix(None, self.num_prefix, self.at(places[None])[0])

    def at(self, places: Places, grids: Places | None = None) -> Float[Array, "batch patches dim"]:
        """Return the embedding of each patch, whatever the grid."""
        frequency = 1 / 10_000 ** (jnp.arange(self.width // 4) / self.steps)
        y, x = (places[..., i, None] * frequency for i in (0, 1))
        return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=-1)

    def resize(self, grid: Grid) -> None:
        """Make this the embedding of another grid; computed, not resampled."""
        self.grid = grid


def _layers(config: Model) -> tuple[int, ...]:
    return (config.depth,) if config.position_at == "blocks" else ()


def _normal(shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))


def _interpolations(places: Places, grids: Places, table: Grid, method: Method) -> list[jax.Array]:
    return [interpolation(places[..., i], grids[..., i], table[i], method) for i in (0, 1)]


def _prefix(config: Model, layers: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param | None:
    owned = num_prefix(config) if config.prefix_position else 0
    return _normal((*layers, owned, config.width), rngs) if owned else None


def _with_prefix(
    prefix: nnx.Param | None, count: int, patches: Float[Array, "*layers patches dim"]
) -> Float[Array, "*layers tokens dim"]:
    if prefix is None:
        return jnp.pad(patches, ((0, 0),) * (patches.ndim - 2) + ((count, 0), (0, 0)))
    return jnp.concatenate([prefix[...], patches], axis=-2)
