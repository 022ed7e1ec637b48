"""The parts of an encoder: MLP, block, the stack of blocks, and the two ways of dropping."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vit_jax.config import Model
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


class Mlp(nnx.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, mlp_dim: int, *, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        init = dict(kernel_init=nnx.initializers.xavier_uniform(), bias_init=nnx.initializers.normal(1e-6))
        self.fc1 = nnx.Linear(width, mlp_dim, **init, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(mlp_dim, width, **init, dtype=dtype, rngs=rngs)
        self.dropout = dropout

    def __call__(
        self, tokens: Float[Array, "batch tokens dim"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        hidden = dropout(nnx.gelu(self.fc1(tokens)), self.dropout, key)
        return self.fc2(hidden)


class Block(nnx.Module):
    """A pre-norm encoder block (Dosovitskiy et al., 2021, equations 2 and 3)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.attn = Attention(config.width, config.num_heads, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.LayerNorm(config.width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config.width, config.mlp_dim, dropout=config.dropout, dtype=dtype, rngs=rngs)
        self.dropout = config.dropout

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        drop_rate: Float[Array, ""],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        keys = (None,) * 5 if key is None else jax.random.split(key, 5)
        branch = dropout(self.attn(self.norm1(tokens)), self.dropout, keys[0])
        tokens = tokens + drop_path(branch, drop_rate, keys[1])
        branch = dropout(self.mlp(self.norm2(tokens), keys[2]), self.dropout, keys[3])
        return tokens + drop_path(branch, drop_rate, keys[4])


def make_blocks(config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> Block:
    """Return one `Block` whose parameters all have a leading depth axis."""

    @nnx.split_rngs(splits=config.depth)
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> Block:
        return Block(config, dtype=dtype, rngs=rngs)

    return make(rngs)


def apply_blocks(
    blocks: Block, tokens: Float[Array, "batch tokens dim"], config: Model, key: Key[Array, ""] | None = None
) -> Float[Array, "batch tokens dim"]:
    """Scan over the depth axis: 12 blocks or 48 trace and compile in the same time."""
    graph, params = nnx.split(blocks)
    drop_rates = jnp.linspace(0, config.drop_path, config.depth)
    # Without stochastic depth or dropout no keys travel, and the compiled scan draws nothing.
    drops = key is not None and (config.drop_path > 0 or config.dropout > 0)
    keys = jax.random.split(key, config.depth) if drops else None

    def body(tokens, layer):
        params, drop_rate, key = layer
        return nnx.merge(graph, params)(tokens, drop_rate, key), None

    tokens, _ = jax.lax.scan(body, tokens, (params, drop_rates, keys), unroll=config.unroll)
    return tokens
