"""Attention by a pattern, at the cost of what is attended to instead of that of all pairs.

A pattern is a sum of parts. In each, patches attend to few others, by equal tiles that are cut out and multiplied as
one batch. The softmax is over all parts together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Shaped

from vit_jax.models.patterns import Grid, Pattern

# Masked scores. Finite, as a part may have no key for a patch: infinities would make NaN of it.
LOW = -1e30
# Local attention is computed in tiles of at least so many patches a side; smaller ones would be mostly overlap.
LEAST_TILE = 4

Places = Int[Array, "..."] | Int[np.ndarray, "..."]
Heads = Float[Array, "batch heads patches dim"]
Bias = Float[Array, "heads #tiles tile keys"]
Table = Float[Array, "row_offsets column_offsets heads"]
# Weighted values, the largest score, and the sum of weights, for each patch: what softmaxes are added by.
Sums = tuple[
    Float[Array, "batch heads patches dim"],
    Float[Array, "batch heads patches 1"],
    Float[Array, "batch heads patches 1"],
]


class Tiles(NamedTuple):
    """Patches that attend within their tile, and to what surrounds it.

    Attributes:
        view: (rows, columns) that the patches are laid out in, row by row, filled up at the end.
        tile: (rows, columns) of a tile.
        shift: how many rows and columns of the first tile lie outside.
        radius: the largest distance in rows and in columns, where there is one.
        others: whether a patch does not attend to itself.
    """

    view: Grid
    tile: Grid
    shift: Grid = (0, 0)
    radius: Grid | None = None
    others: bool = False

    def attend(self, query: Heads, key: Heads, value: Heads, table: Table | None, grid: Grid) -> Sums:
        """Return the sums over the keys of this part."""
        return self.attend_biased(query, key, value, None if table is None else self._bias(table, grid))

    def attend_biased(self, query: Heads, key: Heads, value: Heads, bias: Bias | None) -> Sums:
        """Return the same with a bias for the patches and the keys of a tile."""
        patches = query.shape[2]
        there = jnp.ones((1, 1, patches, 1), bool)
        mask = self._seen() & self._cut(there, self._reach)[0, 0, :, None, :, 0]
        key, value = (self._cut(x, self._reach) for x in (key, value))
        return tuple(self._join(x, patches) for x in _sums(self._cut(query), key, value, mask, bias))

    @property
    def _reach(self) -> Grid:
        if self.radius is None:
            return (0, 0)
        return tuple(r if t < v else 0 for r, t, v in zip(self.radius, self.tile, self.view, strict=True))

    def _cut(self, x: Shaped[Array, "batch heads patches dim"], reach: Grid = (0, 0)) -> Array:
        """Return x as (batch, heads, tiles, patches of a tile, dim), zeros outside; with a reach, tiles overlap."""
        batch, heads, patches, dim = x.shape
        x = _padded(x, 2, 0, self.view[0] * self.view[1] - patches).reshape(batch, heads, *self.view, dim)
        for axis, (view, tile, shift) in enumerate(zip(self.view, self.tile, self.shift, strict=True), start=2):
            x = _padded(x, axis, shift, -(view + shift) % tile)
        (height, width), (rows, columns) = self.tile, x.shape[2:4]
        x = x.reshape(batch, heads, rows // height, height, columns // width, width, dim)
        for axis, length in zip((2, 4), reach, strict=True):
            x = _overlapping(x, axis, length)
        x = jnp.swapaxes(x, 3, 4)
        return x.reshape(batch, heads, x.shape[2] * x.shape[3], -1, dim)

    def _join(self, x: Float[Array, "batch heads tiles tile dim"], patches: int) -> Heads:
        """Undo `_cut`."""
        batch, heads, *_, dim = x.shape
        (height, width), (down, right) = self.tile, self.shift
        rows, columns = (-(-(v + s) // t) for v, t, s in zip(self.view, self.tile, self.shift, strict=True))
        x = jnp.swapaxes(x.reshape(batch, heads, rows, columns, height, width, dim), 3, 4)
        x = x.reshape(batch, heads, rows * height, columns * width, dim)
        x = x[:, :, down : down + self.view[0], right : right + self.view[1]]
        return x.reshape(batch, heads, -1, dim)[:, :, :patches]

    def _offsets(self) -> np.ndarray:
        """Return how many rows and columns the patches of a tile are after its keys: (2, patches, keys)."""
        own = [np.arange(tile) for tile in self.tile]
        seen = [np.arange(-reach, tile + reach) for tile, reach in zip(self.tile, self._reach, strict=True)]
        own, seen = (np.stack(np.meshgrid(*axes, indexing="ij")).reshape(2, -1) for axes in (own, seen))
        return own[:, :, None] - seen[:, None, :]

    def _seen(self) -> Bool[np.ndarray, "tile keys"]:
        offsets = self._offsets()
        seen = offsets.any(axis=0) if self.others else np.ones(offsets.shape[1:], bool)
        if self.radius is not None:
            seen &= (np.abs(offsets) <= np.reshape(self.radius, (2, 1, 1))).all(axis=0)
        return seen

    def look_up(self, table: Table, grid: Grid) -> Bias:
        """Return the bias of a table for the offsets within a tile."""
        return _look_up(table, *self._offsets(), grid)[:, None]

    def _bias(self, table: Table, grid: Grid) -> Bias:
        if self.view == grid:
            return self.look_up(table, grid)
        places = jnp.arange(grid[0] * grid[1])[None, None, :, None]
        own, seen = (self._cut(places, reach)[0, 0, ..., 0] for reach in ((0, 0), self._reach))
        return _look_up(table, *_grid_offsets(own[..., :, None], seen[..., None, :], grid), grid)


class Ends(NamedTuple):
    """Patches that attend to the last one of every stride but their own."""

    stride: int

    def attend(self, query: Heads, key: Heads, value: Heads, table: Table | None, grid: Grid) -> Sums:
        """Return the sums over the keys of this part."""
        places = jnp.arange(query.shape[2])
        seen = places[self.stride - 1 :: self.stride]
        bias = None if table is None else _look_up(table, *_grid_offsets(places[:, None], seen, grid), grid)[:, None]
        alone = (x[:, :, None] for x in (query, *(x[:, :, self.stride - 1 :: self.stride] for x in (key, value))))
        mask = places[:, None] // self.stride != seen // self.stride
        return tuple(x[:, :, 0] for x in _sums(*alone, mask, bias))


def windows(grid: Grid, size: Grid, *, shifted: bool) -> Tiles:
    """Return windows of (rows, columns), which begin half a window later if they are shifted (Liu et al., 2021)."""
    return Tiles(grid, size, tuple(-(side // 2) % side if shifted else 0 for side in size))


def parts_of(pattern: Pattern, grid: Grid, block: int) -> list[Tiles | Ends]:
    """Return the parts of a pattern in a block; no pair of patches is in two of them."""
    (rows, columns), number, odd = grid, pattern.number, block % 2
    patches = rows * columns
    if pattern.kind == "axial":
        row, column = Tiles(grid, (1, columns)), Tiles(grid, (rows, 1))
        return [row, column._replace(others=True)] if pattern.both else [column if odd else row]
    if pattern.kind == "blocks":
        return [windows(grid, (number, number), shifted=bool(odd))]
    if pattern.kind == "local":
        return [Tiles(grid, tuple(_tile(number, side) for side in grid), radius=(number, number))]
    strides = -(-patches // number)
    if pattern.kind == "strided":
        near = Tiles((1, patches), (1, number), radius=(0, number - 1))
        return [near, Tiles((strides, number), (strides, 1), others=True)]
    return [Tiles((strides, number), (1, number)), Ends(number)]


def _tile(radius: int, side: int) -> int:
    """Return the tile, no smaller than its reach, that costs the fewest scores along an axis."""
    small = range(max(radius, LEAST_TILE), side)
    return min(
        [side, *small], key=lambda tile: side**2 if tile == side else (side + -side % tile) * (tile + 2 * radius)
    )


def by_pattern(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch tokens heads head_dim"],
    value: Float[Array, "batch tokens heads head_dim"],
    table: Table | None,
    *,
    pattern: Pattern,
    grid: Grid,
    prefix: int,
    block: jax.Array | int,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Return the values weighted by the softmax of the scaled scores, plus a bias, over what the pattern lets be seen.

    Args:
        table: the bias by offset in rows and in columns, (0, 0) at its centre; see `RelativePosition.table`.
        grid: (rows, columns) of patches, which come after `prefix` other tokens.
        block: its number, which may be traced.
    """
    query = query * query.shape[-1] ** -0.5
    facts = dict(grid=grid, prefix=prefix)
    choices = [functools.partial(_of_patches, parts_of(pattern, grid, i), **facts) for i in range(pattern.period)]
    inputs = (query[:, prefix:], key, value, table)
    attended = choices[0](*inputs) if len(choices) == 1 else jax.lax.switch(block % len(choices), choices, *inputs)
    if prefix:
        total, _, weights = _sums(*(jnp.swapaxes(x, 1, 2) for x in (query[:, :prefix], key, value)))
        attended = jnp.concatenate([jnp.swapaxes(total / weights, 1, 2), attended], axis=1)
    return attended.astype(query.dtype)


def _of_patches(
    parts: list[Tiles | Ends],
    query: Float[Array, "batch patches heads dim"],
    key: Float[Array, "batch tokens heads dim"],
    value: Float[Array, "batch tokens heads dim"],
    table: Table | None,
    *,
    grid: Grid,
    prefix: int,
) -> Float[Array, "batch patches heads dim"]:
    """Return what the patches attend to: the patches of all parts, and the tokens before them."""
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    found = [part.attend(query, key[:, :, prefix:], value[:, :, prefix:], table, grid) for part in parts]
    if prefix:
        found.append(_sums(query, key[:, :, :prefix], value[:, :, :prefix]))
    highest = functools.reduce(jnp.maximum, (top for _, top, _ in found))
    total = sum(values * jnp.exp(top - highest) for values, top, _ in found)
    attended = checkpoint_name(total, "attended") / sum(weights * jnp.exp(top - highest) for _, top, weights in found)
    return jnp.swapaxes(attended, 1, 2)


def _sums(
    query: Float[Array, "*batch queries dim"],
    key: Float[Array, "*batch keys dim"],
    value: Float[Array, "*batch keys dim"],
    mask: Bool[Array, "*#tiles queries keys"] | None = None,
    bias: Float[Array, "heads #tiles queries keys"] | None = None,
) -> tuple[Array, Array, Array]:
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else jnp.where(mask, scores, LOW)
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    values = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return values, top, weights.sum(axis=-1, keepdims=True)


def _padded(x: Array, axis: int, before: int, after: int) -> Array:
    if before == after == 0:
        return x
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])


def _overlapping(x: Array, axis: int, length: int) -> Array:
    """Return tiles, whose own axis follows `axis`, with so many entries more of both neighbours, zeros at the ends."""
    if not length:
        return x
    cut = jax.lax.slice_in_dim
    tiles, entries = x.shape[axis : axis + 2]
    before = cut(cut(x, 0, tiles - 1, axis=axis), entries - length, entries, axis=axis + 1)
    after = cut(cut(x, 1, tiles, axis=axis), 0, length, axis=axis + 1)
    return jnp.concatenate([_padded(before, axis, 1, 0), x, _padded(after, axis, 0, 1)], axis=axis + 1)


def _grid_offsets(own: Array, seen: Array, grid: Grid) -> tuple[Array, Array]:
    return own // grid[1] - seen // grid[1], own % grid[1] - seen % grid[1]


def _look_up(table: Table, rows: Places, columns: Places, grid: Grid) -> Float[Array, "heads ..."]:
    """Return the entries of offsets; what lies outside the picture, and is masked, has any."""
    centre = grid[0] - 1, grid[1] - 1
    rows, columns = (jnp.clip(x + at, 0, 2 * at) for x, at in zip((rows, columns), centre, strict=True))
    return jnp.moveaxis(table[rows, columns], -1, 0)
