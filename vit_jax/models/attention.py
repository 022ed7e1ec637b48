"""Multi-head attention, by the implementation that runs and is the fastest here."""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from vit_jax.config import Model
from vit_jax.models.norms import make_norm
from vit_jax.models.patterns import parse_pattern
from vit_jax.models.rotary import Rotation, rotate
from vit_jax.models.tiles import by_pattern


def by_xla(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch context heads head_dim"],
    value: Float[Array, "batch context heads head_dim"],
    bias: Float[Array, "#batch #heads tokens context"] | None = None,
    length: int | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Return the values weighted by the softmax of the scaled scores plus the bias.

    In float32 it takes half the time of `jax.nn.dot_product_attention` on a CPU: with heads before tokens each product
    is one of plain matrices, and not the weights are divided by their sum, but the output, which is shorter. In half
    precision that would round what cancels in the backward pass.
    """
    key, value, bias = key[:, :length], value[:, :length], None if bias is None else bias[..., :length]
    if query.dtype != jnp.float32:
        return jax.nn.dot_product_attention(query, key, value, bias, implementation="xla")
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    scores = query @ jnp.swapaxes(key, 2, 3)
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    attended = checkpoint_name(weights @ value, "attended") / weights.sum(axis=-1, keepdims=True)
    return jnp.swapaxes(attended, 1, 2)


def by_cudnn(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch context heads head_dim"],
    value: Float[Array, "batch context heads head_dim"],
    bias: Float[Array, "#batch #heads tokens context"] | None = None,
    length: int | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Return the same by one fused kernel, which never stores the weights."""
    lengths = None if length is None else jnp.full(len(query), length, jnp.int32)
    masked = dict(query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    return jax.nn.dot_product_attention(query, key, value, bias, **masked, implementation="cudnn")


UNSEEN = -1e9  # the score of what is not to be seen

# From query, key, value, a bias that is added to the scaled scores or None, and how many tokens there are, after which
# come others that are not to be seen, or None. To add one: a function, and a line here.
IMPLEMENTATIONS = {"xla": by_xla, "cudnn": by_cudnn}


@functools.cache
def trouble_with(name: str, tokens: int, heads: int, head_dim: int, dtype: str, biased: bool) -> str:
    """Return why an implementation can't compute self-attention here, the last token masked, or "".

    Found by trying, forward and backward, beside XLA's.
    """
    query, key, value, weights = (
        jax.random.normal(jax.random.key(i), (1, tokens, heads, head_dim), dtype) for i in range(4)
    )
    bias = jax.random.normal(jax.random.key(4), (1, heads, tokens, tokens), dtype) if biased else None

    def run(name: str) -> tuple[jax.Array, ...]:
        def total(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs = IMPLEMENTATIONS[name](*inputs, bias, tokens - 1)[:, :-1]
            return (outputs * weights[:, :-1]).astype(jnp.float32).sum(), outputs

        gradients, outputs = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(query, key, value)
        return outputs, *gradients

    try:
        for ours, wanted in zip(run(name), run("xla"), strict=True):
            ours, wanted = (x.astype(jnp.float32)[:, :-1] for x in (ours, wanted))
            if not (error := jnp.linalg.norm(ours - wanted) / jnp.linalg.norm(wanted)) < 0.03:
                return f"its results differ from XLA's by {error:.2g} of their norm"
    except Exception as error:  # Whatever cuDNN, its driver or a device of another kind says.
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def choose(wanted: str, tokens: int, heads: int, head_dim: int, dtype: str, biased: bool) -> tuple[str, int]:
    """Return the implementation of `Model.attention` for such self-attention, and the masked tokens to add for it.

    "auto" is cuDNN's fused attention on GPUs in half precision, where it runs, and XLA's everywhere else. With an odd
    number of tokens, such as 197, JAX refuses the gradient of cuDNN's (as of JAX 0.11.2, where only a bias would be a
    reason to), so it gets one more.
    """
    odd = tokens % 2
    if wanted != "auto":
        return wanted, odd if wanted == "cudnn" else 0
    if jax.default_backend() != "gpu" or dtype not in ("bfloat16", "float16"):
        return "xla", 0
    with jax.ensure_compile_time_eval():
        trouble = trouble_with("cudnn", tokens + odd, heads, head_dim, dtype, biased)
    if trouble:
        warnings.warn(f"attention of {tokens} tokens isn't fused: cuDNN: {trouble}", stacklevel=2)
    return ("xla", 0) if trouble else ("cudnn", odd)


def hide(
    seen: Bool[Array, "batch tokens context"] | None, dtype: jnp.dtype | str
) -> Float[Array, "batch 1 tokens context"] | None:
    """Return the bias that hides what a token (second axis) has not seen (third axis); None where it has seen all."""
    return None if seen is None else jnp.where(seen, 0.0, UNSEEN)[:, None].astype(dtype)


def make_attention(
    config: Model,
    length: int,
    dtype: str,
    grid: tuple[int, int] | None,
    seen: Bool[Array, "batch tokens tokens"] | None = None,
    *,
    biased: bool,
) -> tuple[Callable[..., Callable[..., jax.Array]], int]:
    """Return what makes the `attend` of a block from its bias and number, and the masked tokens to add for it."""
    pattern = parse_pattern(config.attention_pattern)
    if pattern.kind != "full":
        pattern.check(grid)
        facts = dict(pattern=pattern, grid=grid, prefix=length - grid[0] * grid[1])
        return lambda bias, index: functools.partial(by_pattern, table=bias, block=index, **facts), 0
    heads, biased = config.num_heads, biased or seen is not None
    name, masked = choose(config.attention, length, heads, config.width // heads, dtype, biased)
    unseen = hide(seen, dtype)
    if masked and unseen is not None:
        unseen = jnp.pad(unseen, ((0, 0), (0, 0), (0, masked), (0, masked)))

    def everywhere(bias: jax.Array | None, index: jax.Array) -> Callable[..., jax.Array]:
        bias = None if bias is None else bias[None].astype(dtype)
        if unseen is not None:
            bias = unseen if bias is None else bias + unseen
        return functools.partial(IMPLEMENTATIONS[name], bias=bias, length=length if masked else None)

    return everywhere, masked


class Attention(nnx.Module):
    """Scaled dot-product attention of every token to every token (Vaswani et al., 2017).

    Query, key and value are separate kernels (width, num_heads, head_dim), as published weights have them.
    """

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, heads = config.width, (config.num_heads, config.width // config.num_heads)
        xavier = nnx.initializers.xavier_uniform()

        def project(use_bias: bool) -> nnx.LinearGeneral:
            init = dict(kernel_init=xavier, use_bias=use_bias)
            return nnx.LinearGeneral(width, heads, **init, dtype=dtype, rngs=rngs)

        def norm(here: bool, features: int) -> nnx.LayerNorm | nnx.RMSNorm | None:
            return make_norm(config, features, dtype=dtype, rngs=rngs) if here else None

        biased = config.qkv_bias
        self.query, self.key, self.value = project(biased), project(biased and config.key_bias), project(biased)
        self.query_norm, self.key_norm = norm(config.qk_norm, heads[1]), norm(config.qk_norm, heads[1])
        self.norm = norm(config.attention_norm, width)
        init = dict(kernel_init=xavier, use_bias=config.linear_bias)
        self.out = nnx.LinearGeneral(heads, width, axis=(-2, -1), **init, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        context: Float[Array, "batch context dim"] | None = None,
        attend: Callable[..., Float[Array, "batch tokens heads head_dim"]] = by_xla,
    ) -> Float[Array, "batch tokens dim"]:
        """Attend from `tokens` to `context`, by default to themselves.

        Args:
            attend: maps query, key and value to what is attended to.
        """
        query, key, value = self._project(tokens, tokens if context is None else context)
        with jax.named_scope("attend"):
            attended = attend(query, key, value)
        if self.norm is not None:
            attended = self.norm(attended.reshape(*attended.shape[:2], -1)).reshape(attended.shape)
        return self.out(attended)

    def weights(
        self,
        tokens: Float[Array, "batch tokens dim"],
        bias: Float[Array, "*heads tokens tokens"],
        rotation: Rotation | None = None,
    ) -> Float[Array, "batch heads tokens tokens"]:
        """Return, in float32, how much each token (third axis) attends to each (last axis)."""
        projected = self._project(tokens, tokens)[:2]
        query, key = (rotate(x.astype(jnp.float32), rotation) for x in projected)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
        return jax.nn.softmax(scores + bias)

    def _project(
        self, tokens: Float[Array, "batch tokens dim"], context: Float[Array, "batch context dim"]
    ) -> tuple[Float[Array, "batch _ heads head_dim"], ...]:
        query, key, value = (
            checkpoint_name(_in_heads(linear, x), "projected")
            for linear, x in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value


def _in_heads(linear: nnx.LinearGeneral, x: Float[Array, "batch tokens dim"]) -> Float[Array, "batch tokens heads _"]:
    """Return what a linear layer to (heads, head_dim) returns.

    Heads are cut last, because XLA's GPU compiler takes a bias into the matrix product only if it is a vector.
    """
    kernel = linear.kernel[...].astype(linear.dtype)
    flat = x.astype(linear.dtype) @ kernel.reshape(len(kernel), -1)
    if linear.bias is not None:
        flat = flat + linear.bias[...].astype(linear.dtype).reshape(-1)
    return flat.reshape(*x.shape[:-1], *kernel.shape[1:])
