"""Multi-head attention."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.architecture import Model


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
        return self.out(jax.nn.dot_product_attention(query, key, value, bias))
