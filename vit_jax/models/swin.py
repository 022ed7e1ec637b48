"""The Swin Transformer (Liu et al., 2021): attention within windows, on four maps from fine to coarse."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped

from vit_jax.config import Model, Preprocessing
from vit_jax.errors import InputError
from vit_jax.models.activations import check_names
from vit_jax.models.drops import Drops, draw_drops, dropout
from vit_jax.models.layers import REMAT, Block, PatchEmbedding, compute_dtype, make_head, stacked
from vit_jax.models.position import resample
from vit_jax.models.tiles import windows
from vit_jax.pixels import as_input

Images = Shaped[Array | np.ndarray, "..."]
Maps = Float[Array, "batch rows columns dim"]
Grid = tuple[int, int]


class WindowBlock(Block):
    """A `Block` that attends within windows, with a bias by offset, (0, 0) at the centre of its table."""

    def __init__(self, config: Model, window: Grid, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        shape = (*(2 * side - 1 for side in window), config.num_heads)
        self.window_bias = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), shape))

    def attend(
        self,
        query: Float[Array, "batch tokens heads head_dim"],
        key: Float[Array, "batch tokens heads head_dim"],
        value: Float[Array, "batch tokens heads head_dim"],
        *,
        grid: Grid,
        window: Grid,
        index: jax.Array,
        method: str,
    ) -> Float[Array, "batch tokens heads head_dim"]:
        """Attend within windows, which are shifted in odd blocks unless one of them is the whole map.

        Windows that reach over the map's edge see what the original pads it with: what the linear layers make of zeros.
        """
        query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
        whole = tuple(-(-side // length) * length for side, length in zip(grid, window, strict=True))
        query, key, value = (
            _padded(x, grid, whole, linear.bias[...])
            for x, linear in ((query, self.attn.query), (key, self.attn.key), (value, self.attn.value))
        )
        table = resample(self.window_bias[...], tuple(2 * side - 1 for side in window), method)

        def within(shifted: bool) -> Float[Array, "batch heads padded head_dim"]:
            tiles = windows(whole, window, shifted=shifted)
            # Not along an axis with a single window.
            tiles = tiles._replace(shift=tuple(s * (w < g) for s, w, g in zip(tiles.shift, window, grid, strict=True)))
            total, _, weights = tiles.attend_biased(query, key, value, tiles.look_up(table, window))
            return total / weights

        if window == grid:
            attended = within(shifted=False)
        else:
            attended = jax.lax.cond(index % 2 == 1, lambda: within(shifted=True), lambda: within(shifted=False))
        batch, heads, _, dim = attended.shape
        attended = attended.reshape(batch, heads, *whole, dim)[:, :, : grid[0], : grid[1]]
        return jnp.swapaxes(attended.reshape(batch, heads, -1, dim), 1, 2).astype(query.dtype)


class Merging(nnx.Module):
    """Every four neighbours become one token of twice the width (Liu et al., 2021, section 3.1)."""

    def __init__(self, width: int, eps: float, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(4 * width, epsilon=eps, dtype=dtype, rngs=rngs)
        self.reduction = nnx.Linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, maps: Maps) -> Float[Array, "batch new_rows new_columns new_dim"]:
        batch, rows, columns, dim = maps.shape
        maps = jnp.pad(maps, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
        maps = maps.reshape(batch, maps.shape[1] // 2, 2, maps.shape[2] // 2, 2, dim)
        maps = maps.transpose(0, 1, 3, 4, 2, 5)  # The column of the four comes first.
        return self.reduction(self.norm(maps.reshape(*maps.shape[:3], 4 * dim)))


class Stage(nnx.Module):
    """Blocks on one map, which are alike and scanned over, after a `Merging` in all stages but the first."""

    def __init__(self, config: Model, depth: int, grid: Grid, *, merges: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.width // 2
        self.merging = Merging(width, config.norm_eps, dtype=dtype, rngs=rngs) if merges else None
        window = _window(config, grid)
        self.blocks = stacked(lambda rngs: WindowBlock(config, window, dtype=dtype, rngs=rngs), depth, rngs)
        self.config, self.depth = config, depth

    def __call__(self, maps: Maps, drops: Drops) -> Float[Array, "batch new_rows new_columns new_dim"]:
        if self.merging is not None:
            maps = self.merging(maps)
        batch, *grid, dim = maps.shape
        grid, (graph, params) = tuple(grid), nnx.split(self.blocks)
        facts = dict(grid=grid, window=_window(self.config, grid), method=self.config.resample)

        def body(tokens, layer):
            params, drops, index = layer
            block = nnx.merge(graph, params)
            return block(tokens, drops, functools.partial(block.attend, index=index, **facts)), None

        body = jax.checkpoint(body, policy=REMAT[self.config.remat], prevent_cse=False)
        layers = (params, drops, jnp.arange(self.depth))
        tokens, _ = jax.lax.scan(body, maps.reshape(batch, -1, dim), layers)
        return tokens.reshape(batch, *grid, dim)

    def resize(self, grid: Grid, window: int) -> None:
        """Make this the stage of another (rows, columns) of patches, and of other windows."""
        self.config = dataclasses.replace(self.config, window=window)
        size = tuple(2 * side - 1 for side in _window(self.config, grid))
        self.blocks.window_bias = nnx.Param(resample(self.blocks.window_bias[...], size, self.config.resample))


class Swin(nnx.Module):
    """Patches, stages of window attention between which tokens are merged, a last norm, the mean, a head.

    Attributes:
        config: the resolved `vit_jax.config.Model`.
        image_size: (height, width) that its windows are for; it runs on any that the patch divides.
        preprocessing, label_names: as in `ViT`.
    """

    def __init__(self, config: Model, *, num_classes: int, image_size: Grid, channels: int, rngs: nnx.Rngs):
        self.config, self.image_size = config, tuple(image_size)
        self.num_classes, self.channels = num_classes, channels
        self.preprocessing, self.label_names = Preprocessing(mean=config.mean, std=config.std), None
        dtype, width = compute_dtype(config), config.width
        self.embedding = PatchEmbedding(config, channels, dtype=dtype, rngs=rngs)
        self.embedding_norm = nnx.LayerNorm(width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        for i, (depth, grid) in enumerate(zip(config.swin, self.grids(image_size), strict=True)):
            stage = Stage(_widened(config, i), depth, grid, merges=i > 0, dtype=dtype, rngs=rngs)
            setattr(self, f"stage{i + 1}", stage)
        features = width * 2 ** (len(config.swin) - 1)
        self.norm = nnx.LayerNorm(features, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.head = make_head(config, features, num_classes, rngs=rngs)

    def activation_names(self) -> list[str]:
        """Return what `activations` can be asked for."""
        return ["logits", "pooled", "tokens", "embedding", *(f"stage/{i}" for i in range(len(self.config.swin)))]

    def activations(self, images: Images, *names: str) -> dict[str, Float[Array, "..."]]:
        """Return what the model computes on the way to its logits, by name.

        Args:
            names: any of

                - logits (batch, classes); pooled (batch, dim): what the head reads;
                - tokens (batch, tokens, dim): the last map, normalised, one token for each position;
                - embedding (batch, rows, columns, dim): the patches;
                - stage/I (batch, rows, columns, dim): the map after stage I, from fine to coarse.

        Raises:
            InputError: the model has no such activation, or doesn't take such pictures.
        """
        check_names(names, self)
        embedded, maps = self._maps(as_input(images, self.channels, self.config), None)
        last = self.norm(maps[-1])
        found = {f"stage/{i}": stage for i, stage in enumerate(maps)} | {"embedding": embedded}
        found["tokens"] = last.reshape(last.shape[0], -1, last.shape[-1])
        found["pooled"] = last.mean(axis=(1, 2))
        found["logits"] = self.head(found["pooled"])
        return {name: found[name] for name in names}

    def features(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch dim"]:
        """Return what the head reads; else as `__call__`."""
        _, maps = self._maps(as_input(images, self.channels, self.config), key)
        return self.norm(maps[-1]).mean(axis=(1, 2))

    def __call__(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch classes"]:
        """Return float32 logits; with a key, dropout and stochastic depth act.

        Args:
            images: uint8 pixels from 0 to 255, or floats that are normalised as the weights expect: in [-1, 1], unless
                `config.mean` and `config.std` say otherwise.

        Raises:
            InputError: the pictures have another rank, other channels or another integer type, or a size that the patch
                does not divide; found while tracing.
        """
        return self.head(self.features(images, key=key))

    def resize(self, image_size: Grid, patch: int | None = None, window: int | None = None) -> None:
        """Make this, in place, the model of another picture size, and of windows of another side, in patches.

        Windows that a map doesn't fill become smaller. The tables of biases are resampled.

        Raises:
            InputError: the patch does not divide the picture, or the patch is to change.
        """
        if patch not in (None, self.config.patch):
            raise InputError(f"patch={patch}: the patch size of {self.config.name!r} can't be changed")
        self.config = dataclasses.replace(self.config, window=window or self.config.window)
        for i, grid in enumerate(self.grids(image_size), start=1):
            getattr(self, f"stage{i}").resize(grid, self.config.window)
        self.image_size = tuple(image_size)

    def grids(self, image_size: tuple[int, ...]) -> list[Grid]:
        """Return the rows and columns of the map of each stage."""
        patch = self.config.patch
        if image_size[0] % patch or image_size[1] % patch or min(image_size) < patch:
            raise InputError(
                f"image size {image_size[0]}x{image_size[1]} is not divisible by the patch size {patch} "
                f"of model {self.config.name!r}"
            )
        return [tuple(-(-side // (patch * 2**i)) for side in image_size) for i in range(len(self.config.swin))]

    def _maps(self, images: Float[Array, "batch height width channels"], key: Key[Array, ""] | None) -> tuple:
        """Return the embedded patches and the maps of all stages."""
        self.grids(images.shape[1:3])
        config, depth = self.config, sum(self.config.swin)
        maps = embedded = self.embedding_norm(self.embedding(images))
        dropout_key, blocks_key = (None, None) if key is None else jax.random.split(key)
        maps = dropout(maps, config.dropout, dropout_key)
        drops = draw_drops(config, depth, maps, blocks_key)
        found, first = [], 0
        for i, number in enumerate(config.swin, start=1):
            own = jax.tree.map(operator.itemgetter(slice(first, first + number)), drops)
            maps = getattr(self, f"stage{i}")(maps, own)
            found.append(maps)
            first += number
        return embedded, found


def _widened(config: Model, stage: int) -> Model:
    sizes = {key: getattr(config, key) * 2**stage for key in ("width", "num_heads", "mlp_dim")}
    return dataclasses.replace(config, **sizes)


def _window(config: Model, grid: Grid) -> Grid:
    return tuple(min(config.window, side) for side in grid)


def _padded(
    x: Float[Array, "batch heads tokens head_dim"], grid: Grid, whole: Grid, fill: Float[Array, "heads head_dim"]
) -> Float[Array, "batch heads padded head_dim"]:
    """Return the tokens of a map with rows and columns more, which all have the same value."""
    if grid == whole:
        return x
    batch, heads, _, dim = x.shape
    rows, columns = np.arange(whole[0])[:, None] < grid[0], np.arange(whole[1]) < grid[1]
    x = x.reshape(batch, heads, *grid, dim)
    x = jnp.pad(x, ((0, 0), (0, 0), *((0, w - g) for w, g in zip(whole, grid, strict=True)), (0, 0)))
    x = jnp.where((rows & columns)[:, :, None], x, fill[:, None, None].astype(x.dtype))
    return x.reshape(batch, heads, -1, dim)
