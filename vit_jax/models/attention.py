"""Multi-head attention, by the implementation that runs and is the fastest here."""

import functools
import warnings

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.architecture import Model

# From query (batch, tokens, heads, head dim), key and value (batch, context, heads, head dim) and a bias that is added
# to the scaled scores, or None. To add one: a function, and a line here.
IMPLEMENTATIONS = {
    "xla": functools.partial(jax.nn.dot_product_attention, implementation="xla"),
    "cudnn": functools.partial(jax.nn.dot_product_attention, implementation="cudnn"),
}


@functools.cache
def trouble_with(name: str, tokens: int, context: int, heads: int, head_dim: int, dtype: str, biased: bool) -> str:
    """Return why an implementation can't compute such attention here, or "": found by trying, forward and backward."""
    query, key = (jnp.ones((1, length, heads, head_dim), dtype) for length in (tokens, context))
    bias = jnp.zeros((1, heads, tokens, context), dtype) if biased else None

    def total(query: jax.Array, key: jax.Array) -> jax.Array:
        return IMPLEMENTATIONS[name](query, key, key, bias).astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.jit(jax.grad(total, argnums=(0, 1)))(query, key))
    except Exception as error:  # Whatever cuDNN, its driver or a device of another kind says.
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def choose(wanted: str, query: jax.Array, key: jax.Array, biased: bool) -> str:
    """Return the implementation of `Model.attention` for these arrays.

    "auto" is cuDNN's fused attention on GPUs in half precision, where it runs, and XLA's everywhere else.
    """
    if wanted != "auto":
        return wanted
    if jax.default_backend() != "gpu" or query.dtype not in (jnp.bfloat16, jnp.float16):
        return "xla"
    (_, tokens, heads, head_dim), context = query.shape, key.shape[1]
    with jax.ensure_compile_time_eval():
        trouble = trouble_with("cudnn", tokens, context, heads, head_dim, str(query.dtype), biased)
    if trouble:
        warnings.warn(f"attention of {tokens} tokens isn't fused: cuDNN: {trouble}", stacklevel=2)
    return "xla" if trouble else "cudnn"


class Attention(nnx.Module):
    """Scaled dot-product attention of every token to every token (Vaswani et al., 2017).

    Query, key and value are separate kernels (width, num_heads, head_dim), as published weights have them.
    """

    def __init__(self, config: Model, *, qk_norm: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, heads = config.width, (config.num_heads, config.width // config.num_heads)
        xavier = nnx.initializers.xavier_uniform()

        def project() -> nnx.LinearGeneral:
            return nnx.LinearGeneral(width, heads, kernel_init=xavier, dtype=dtype, rngs=rngs)

        def norm() -> nnx.LayerNorm | None:
            return nnx.LayerNorm(heads[1], epsilon=config.norm_eps, dtype=dtype, rngs=rngs) if qk_norm else None

        self.implementation = config.attention
        self.query, self.key, self.value = project(), project(), project()
        self.query_norm, self.key_norm = norm(), norm()
        self.out = nnx.LinearGeneral(heads, width, axis=(-2, -1), kernel_init=xavier, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        context: Float[Array, "batch context dim"] | None = None,
        bias: Float[Array, "heads tokens tokens"] | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        """Attend from `tokens` to `context`, by default to themselves; `bias` is added to the scaled scores."""
        context = tokens if context is None else context
        query, key, value = self.query(tokens), self.key(context), self.value(context)
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        bias = None if bias is None else bias[None].astype(query.dtype)
        attend = IMPLEMENTATIONS[choose(self.implementation, query, key, bias is not None)]
        return self.out(attend(query, key, value, bias))
