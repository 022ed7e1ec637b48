"""The parts of a ViT: patches, MLP, block, the stack of blocks, attention pooling."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Key

from vit_jax.config import Model
from vit_jax.models.attention import Attention, by_xla, hide, make_attention
from vit_jax.models.drops import NO_DROPS, Drops, draw_drops, dropout, residual_of_subset
from vit_jax.models.norms import make_norm
from vit_jax.models.rotary import Rotation, rotate


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

    def __init__(self, config: Model, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        shape = (config.patch, config.patch, channels, config.width)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal(in_axis=(0, 1, 2))(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(config.width)) if config.patch_bias else None
        self.norm = make_norm(config, config.width, dtype=dtype, rngs=rngs) if config.patch_norm else None
        self.dtype = dtype

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
        batch, height, width, channels = images.shape
        patch = self.kernel.shape[0]
        # As a matrix product, which every backend runs faster than a strided convolution.
        patches = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
        kernel = self.kernel[...].astype(self.dtype)
        embedded = jnp.einsum("brpcqk,pqkd->brcd", patches.astype(self.dtype), kernel)
        embedded = embedded if self.bias is None else embedded + self.bias[...].astype(self.dtype)
        return embedded if self.norm is None else self.norm(embedded)


def add_position(
    tokens: Float[Array, "batch tokens dim"], position: Float[Array, "tokens dim"]
) -> Float[Array, "batch tokens dim"]:
    """Add position embeddings to every picture's tokens.

    They are multiplied by ones, so that their gradient is a matrix product. For that of a plain sum, a sum over the
    batch, XLA wants the batch innermost, and on GPUs all blocks take over that order, between transpositions.
    """
    position = position.astype(tokens.dtype)
    return tokens + jnp.einsum("b,td->btd", jnp.ones(tokens.shape[0], tokens.dtype), position)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def gelu(x: Float[Array, "..."], approximate: bool) -> Float[Array, "..."]:
    """Return x times the normal distribution's Phi(x), or its tanh approximation (Hendrycks and Gimpel, 2016).

    It is computed in float32 whatever the dtype. The slope has formulas of its own: what it shared with the function,
    such as tanh, XLA would make an array of that goes to memory and back.
    """
    return nnx.gelu(x.astype(jnp.float32), approximate=approximate).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(approximate: bool, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    z = x.astype(jnp.float32)
    if approximate:
        # (1 + tanh(u)) / 2 is the logistic function of 2 u.
        phi = jax.nn.sigmoid(math.sqrt(8 / math.pi) * z * (1 + 0.044715 * z**2))
        density = phi * (1 - phi) * math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z**2)
    else:
        phi = (1 + jax.lax.erf(z / math.sqrt(2))) / 2
        density = jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return gelu(x, approximate), ((phi + z * density) * tangent.astype(jnp.float32)).astype(x.dtype)


def activation(name: str) -> Callable[[Float[Array, "..."]], Float[Array, "..."]]:
    """Return the function that `Model.gelu` names."""
    if name == "quick":
        return lambda x: x * jax.nn.sigmoid(1.702 * x)
    return functools.partial(gelu, approximate=name == "tanh")


class Mlp(nnx.Module):
    """Two linear layers; between them a GELU or, with a gate, SiLU(gate) times the first (Shazeer, 2020)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        init = dict(kernel_init=nnx.initializers.xavier_uniform(), bias_init=nnx.initializers.normal(1e-6))
        linear = functools.partial(nnx.Linear, **init, use_bias=config.linear_bias, dtype=dtype, rngs=rngs)
        self.fc1 = linear(config.width, config.mlp_dim)
        self.gate = linear(config.width, config.mlp_dim) if config.swiglu else None
        self.norm = make_norm(config, config.mlp_dim, dtype=dtype, rngs=rngs) if config.mlp_norm else None
        self.fc2 = linear(config.mlp_dim, config.width)
        self.dropout, self.gelu = config.dropout, config.gelu

    def __call__(
        self, tokens: Float[Array, "batch tokens dim"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        hidden = checkpoint_name(self.fc1(tokens), "hidden")
        if self.gate is None:
            hidden = activation(self.gelu)(hidden)
        else:
            hidden = jax.nn.silu(checkpoint_name(self.gate(tokens), "hidden")) * hidden
        hidden = hidden if self.norm is None else self.norm(hidden)
        return self.fc2(dropout(hidden, self.dropout, key))


class Block(nnx.Module):
    """A pre-norm encoder block (Dosovitskiy et al., 2021, equations 2 and 3)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        def scale() -> nnx.Param | None:
            return None if config.layer_scale is None else nnx.Param(jnp.full(config.width, config.layer_scale))

        self.norm1 = make_norm(config, config.width, dtype=dtype, rngs=rngs)
        self.attn = Attention(config, dtype=dtype, rngs=rngs)
        self.scale1 = scale()
        self.norm2 = make_norm(config, config.width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)
        self.scale2 = scale()
        self.dropout, self.subset = config.dropout, config.drop_path if config.drop_path_subset else 0.0

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        drops: Drops = NO_DROPS,
        attend: Callable[..., Float[Array, "batch tokens heads head_dim"]] = by_xla,
    ) -> Float[Array, "batch tokens dim"]:
        """Add both residual branches; `attend` is that of `Attention`."""

        def scaled(branch: Float[Array, "batch tokens dim"], scale: nnx.Param | None):
            return branch if scale is None else branch * scale[...].astype(branch.dtype)

        def mix(tokens: Float[Array, "batch tokens dim"]):
            attended = self.attn(self.norm1(tokens), attend=attend)
            return dropout(scaled(attended, self.scale1), self.dropout, keys[0])

        def transform(tokens: Float[Array, "batch tokens dim"]):
            return dropout(scaled(self.mlp(self.norm2(tokens), keys[2]), self.scale2), self.dropout, keys[3])

        keys = (None,) * 5 if drops.key is None else jax.random.split(drops.key, 5)
        for i, (branch, subset_key) in enumerate(((mix, keys[1]), (transform, keys[4]))):
            if self.subset and subset_key is not None:
                tokens = residual_of_subset(tokens, branch, self.subset, subset_key)
            elif drops.factors is not None:
                tokens = tokens + branch(tokens) * drops.factors[i, :, None, None].astype(tokens.dtype)
            else:
                tokens = tokens + branch(tokens)
            tokens = checkpoint_name(tokens, "tokens")
        return tokens


# What an MLP outside of the blocks is, whatever they have.
PLAIN_MLP = dict(swiglu=False, mlp_norm=False, linear_bias=True)


class AttentionPool(nnx.Module):
    """Multi-head attention pooling (MAP): one learned probe attends to the tokens, then an MLP (Zhai et al., 2022)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        sizes = dict(num_heads=config.pool_heads or config.num_heads, mlp_dim=config.pool_mlp_dim or config.mlp_dim)
        plain = dict(key_bias=True, qk_norm=False, attention_norm=False, norm="layer", **PLAIN_MLP)
        config = dataclasses.replace(config, **sizes, **plain)
        self.probe = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, config.width)))
        self.attn = Attention(config, dtype=dtype, rngs=rngs)
        self.norm = make_norm(config, config.width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "batch tokens dim"], seen: Bool[Array, "batch pictures tokens"] | None = None
    ) -> Float[Array, "batch pictures dim"]:
        """Return what each picture's probe finds among the tokens that it has `seen`; None: one picture has all."""
        number = 1 if seen is None else seen.shape[1]
        probe = jnp.broadcast_to(self.probe[...].astype(tokens.dtype), (tokens.shape[0], number, tokens.shape[2]))
        pooled = self.attn(probe, tokens, functools.partial(by_xla, bias=hide(seen, tokens.dtype)))
        return pooled + self.mlp(self.norm(pooled))


class ProbePool(nnx.Module):
    """Attention of one learned query to the tokens, and a linear layer, as in AIMv2 (Fini et al., 2025)."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, heads = config.width, (config.num_heads, config.width // config.num_heads)
        init = dict(kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs)
        self.probe = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, width)))
        self.key, self.value = (nnx.LinearGeneral(width, heads, use_bias=config.qkv_bias, **init) for _ in range(2))
        self.out = nnx.Linear(width, width, **init)

    def __call__(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch dim"]:
        key, value = self.key(tokens), self.value(tokens)
        probe = self.probe[...].astype(key.dtype).reshape(1, *key.shape[2:])
        pooled = by_xla(jnp.broadcast_to(probe, (len(key), *probe.shape)), key, value)
        return self.out(pooled.reshape(len(pooled), -1))


def stacked(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """Return one module whose parameters all have a leading depth axis."""
    return nnx.split_rngs(splits=depth)(nnx.vmap(make))(rngs)


def make_blocks(config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> Block:
    """Return one `Block` whose parameters all have a leading depth axis."""
    return stacked(lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.depth, rngs)


def _products(primitive, *_, **params) -> bool:
    # What is named is the output of a linear layer; a fused attention stores what it needs by itself. All else is
    # sooner computed again than written and read, or is a parameter that was gathered, which is gathered again.
    return primitive.name == "name" or primitive.name.startswith("dot_product_attention")


# What the backward pass finds stored, by `Model.remat`; a block's input always.
REMAT = {"none": _products, "full": None}


def apply_blocks(
    blocks: Block,
    tokens: Float[Array, "batch tokens dim"],
    config: Model,
    key: Key[Array, ""] | None = None,
    added: Float[Array, "*layers tokens dim"] | None = None,
    bias: Float[Array, "*layers _ _ _"] | None = None,
    *,
    grid: tuple[int, int] | None = None,
    rotation: Rotation | None = None,
    seen: Bool[Array, "batch tokens tokens"] | None = None,
    collect: bool = False,
) -> tuple[Float[Array, "batch tokens dim"], Float[Array, "depth batch tokens dim"] | None]:
    """Scan over the depth axis: 12 blocks or 48 trace and compile in the same time, where `Model.unroll` is 1.

    Args:
        added: what is added to the tokens before every block, shared or with a leading depth axis.
        bias: what is added to the attention scores of every block, likewise: (heads, tokens, tokens) or, with a
            pattern, the table of offsets.
        grid: (rows, columns) of the patches, which are the last tokens; only a pattern needs it.
        rotation: turns queries and keys, in every block alike.
        seen: whether a token (second axis) attends to another (third); None: all to all, or by the pattern.
        collect: return the tokens after every block too.
    """
    graph, params = nnx.split(blocks)
    drops = draw_drops(config, config.depth, tokens, key)
    length = tokens.shape[1]
    attention, masked = make_attention(config, length, str(tokens.dtype), grid, seen, biased=bias is not None)
    tokens, added = (_extended(x, masked, (-2,)) for x in (tokens, added))
    bias = _extended(bias, masked, (-2, -1))
    rotation = None if rotation is None else Rotation(*(_extended(x, masked, (-2,)) for x in rotation))
    each_added, added = (added, None) if added is not None and added.ndim == 3 else (None, added)
    each_bias, bias = (bias, None) if bias is not None and bias.ndim == 4 else (None, bias)

    def body(tokens, layer):
        params, drops, own_added, own_bias, index = layer
        for position in (added, own_added):
            tokens = tokens if position is None else add_position(tokens, position)
        attend = attention(bias if own_bias is None else own_bias, index)

        def turned(query, key, value):
            return attend(rotate(query, rotation), rotate(key, rotation), value)

        tokens = nnx.merge(graph, params)(tokens, drops, turned)
        return tokens, tokens if collect else None

    unroll = min(config.unroll or 1, config.depth)
    # Where nothing is left of the scan the compiler could undo the recomputing that was asked for.
    prevent_cse = config.remat == "full" and unroll >= config.depth
    body = jax.checkpoint(body, policy=REMAT[config.remat], prevent_cse=prevent_cse)
    layers = (params, drops, each_added, each_bias, jnp.arange(config.depth))
    tokens, collected = jax.lax.scan(body, tokens, layers, unroll=unroll)
    return tokens[:, :length], None if collected is None else collected[:, :, :length]


def _extended(x: Float[Array, "..."] | None, number: int, axes: tuple[int, ...]) -> Float[Array, "..."] | None:
    """Return an array with so many zeros more at the end of each of its axes of tokens."""
    if x is None or not number:
        return x
    pads = [(0, 0)] * x.ndim
    for axis in axes:
        pads[axis] = (0, number)
    return jnp.pad(x, pads)
