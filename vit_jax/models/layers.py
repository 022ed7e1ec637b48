"""The parts of a ViT: patches, MLP, block, the stack of blocks, attention pooling, and the two ways of dropping."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vit_jax.architecture import Model
from vit_jax.models.attention import Attention


def dropout(x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Zero each entry with probability `rate` and scale the rest; the identity without a key."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def drop_path(
    x: Float[Array, "batch tokens dim"], rate: Float[Array, ""], key: Key[Array, ""] | None
) -> Float[Array, "batch tokens dim"]:
    """Zero each picture's residual branch with probability `rate` and scale the rest (Huang et al., 2016)."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1))
    return jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)


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


def compute_dtype(config: Model) -> jnp.dtype:
    """Return the dtype of the computation: "auto" is bfloat16 on accelerators, float32 on CPU."""
    if config.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(config.dtype)


def make_head(config: Model, features: int, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return the last layer, which starts as a constant and computes in float32."""
    init = dict(kernel_init=nnx.initializers.zeros, bias_init=nnx.initializers.constant(config.head_bias))
    return nnx.Linear(features, num_classes, **init, dtype=jnp.float32, rngs=rngs)


class PatchEmbedding(nnx.Module):
    """Cut a picture into patches and project each linearly: a convolution whose stride is its size."""

    def __init__(self, patch: int, channels: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        shape = (patch, patch, channels, width)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal(in_axis=(0, 1, 2))(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(width))
        self.dtype = dtype

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
        batch, height, width, channels = images.shape
        patch = self.kernel.shape[0]
        # As a matrix product, which every backend runs faster than a strided convolution.
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        kernel = self.kernel[...].astype(self.dtype)
        embedded = jnp.einsum("brpcqk,pqkd->brcd", patches.astype(self.dtype), kernel)
        return embedded + self.bias[...].astype(self.dtype)


class Mlp(nnx.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        init = dict(kernel_init=nnx.initializers.xavier_uniform(), bias_init=nnx.initializers.normal(1e-6))
        self.fc1 = nnx.Linear(config.width, config.mlp_dim, **init, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_dim, config.width, **init, dtype=dtype, rngs=rngs)
        self.dropout, self.approximate = config.dropout, config.gelu == "tanh"

    def __call__(
        self, tokens: Float[Array, "batch tokens dim"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        hidden = nnx.gelu(self.fc1(tokens), approximate=self.approximate)
        return self.fc2(dropout(hidden, self.dropout, key))


class Block(nnx.Module):
    """A pre-norm encoder block (Dosovitskiy et al., 2021, equations 2 and 3)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        def scale() -> nnx.Param | None:
            return None if config.layer_scale is None else nnx.Param(jnp.full(config.width, config.layer_scale))

        self.norm1 = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.attn = Attention(config, qk_norm=config.qk_norm, dtype=dtype, rngs=rngs)
        self.scale1 = scale()
        self.norm2 = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)
        self.scale2 = scale()
        self.dropout, self.subset = config.dropout, config.drop_path if config.drop_path_subset else 0.0

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        drop_rate: Float[Array, ""],
        key: Key[Array, ""] | None = None,
        bias: Float[Array, "heads tokens tokens"] | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        def scaled(branch: Float[Array, "batch tokens dim"], scale: nnx.Param | None):
            return branch if scale is None else branch * scale[...].astype(branch.dtype)

        def attend(tokens: Float[Array, "batch tokens dim"]):
            return dropout(scaled(self.attn(self.norm1(tokens), bias=bias), self.scale1), self.dropout, keys[0])

        def transform(tokens: Float[Array, "batch tokens dim"]):
            return dropout(scaled(self.mlp(self.norm2(tokens), keys[2]), self.scale2), self.dropout, keys[3])

        keys = (None,) * 5 if key is None else jax.random.split(key, 5)
        for branch, drop_key in ((attend, keys[1]), (transform, keys[4])):
            if self.subset and drop_key is not None:
                tokens = residual_of_subset(tokens, branch, self.subset, drop_key)
            else:
                tokens = tokens + drop_path(branch(tokens), drop_rate, drop_key)
        return tokens


class AttentionPool(nnx.Module):
    """Multi-head attention pooling (MAP): one learned probe attends to the tokens, then an MLP (Zhai et al., 2022)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.probe = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, config.width)))
        self.attn = Attention(config, qk_norm=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch dim"]:
        probe = jnp.broadcast_to(self.probe[...].astype(tokens.dtype), (tokens.shape[0], *self.probe.shape))
        pooled = self.attn(probe, tokens)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


def stacked(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """Return one module whose parameters all have a leading depth axis."""
    return nnx.split_rngs(splits=depth)(nnx.vmap(make))(rngs)


def make_blocks(config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> Block:
    """Return one `Block` whose parameters all have a leading depth axis."""
    return stacked(lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.depth, rngs)


def _all_but_gathered(primitive, *_, **params) -> bool:
    # What a device has gathered from others is gathered again: stored, the whole model would lie on every device.
    inner = params["call_jaxpr"].eqns if "call_jaxpr" in params else ()
    return "sharding_constraint" not in (primitive.name, *(equation.primitive.name for equation in inner))


# What the backward pass finds stored, by `Model.remat`; a block's input always.
REMAT = {"none": _all_but_gathered, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def apply_blocks(
    blocks: Block,
    tokens: Float[Array, "batch tokens dim"],
    config: Model,
    key: Key[Array, ""] | None = None,
    added: Float[Array, "*layers tokens dim"] | None = None,
    bias: Float[Array, "*layers heads tokens tokens"] | None = None,
    *,
    collect: bool = False,
) -> tuple[Float[Array, "batch tokens dim"], Float[Array, "depth batch tokens dim"] | None]:
    """Scan over the depth axis: 12 blocks or 48 trace and compile in the same time.

    Args:
        added: what is added to the tokens before every block, shared or with a leading depth axis.
        bias: what is added to the attention scores of every block, likewise.
        collect: return the tokens after every block too.
    """
    graph, params = nnx.split(blocks)
    drop_rates = jnp.linspace(0, config.drop_path, config.depth)
    # Without stochastic depth or dropout no keys travel, and the compiled scan draws nothing.
    drops = key is not None and (config.drop_path > 0 or config.dropout > 0)
    keys = jax.random.split(key, config.depth) if drops else None
    each_added, added = (added, None) if added is not None and added.ndim == 3 else (None, added)
    each_bias, bias = (bias, None) if bias is not None and bias.ndim == 4 else (None, bias)

    def body(tokens, layer):
        params, drop_rate, key, own_added, own_bias = layer
        for position in (added, own_added):
            tokens = tokens if position is None else tokens + position.astype(tokens.dtype)
        tokens = nnx.merge(graph, params)(tokens, drop_rate, key, bias if own_bias is None else own_bias)
        return tokens, tokens if collect else None

    # A scan is no place where the compiler could undo the recomputing.
    body = jax.checkpoint(body, policy=REMAT[config.remat], prevent_cse=False)
    return jax.lax.scan(body, tokens, (params, drop_rates, keys, each_added, each_bias), unroll=config.unroll)
