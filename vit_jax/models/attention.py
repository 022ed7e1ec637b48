"""Multi-head self-attention."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Attention(nnx.Module):
    """Scaled dot-product attention of every token to every token (Vaswani et al., 2017).

    Query, key and value are separate kernels (width, num_heads, head_dim), as published weights have them.
    """

    def __init__(self, width: int, num_heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        head_dim = width // num_heads
        xavier = nnx.initializers.xavier_uniform()

        def project() -> nnx.LinearGeneral:
            return nnx.LinearGeneral(width, (num_heads, head_dim), kernel_init=xavier, dtype=dtype, rngs=rngs)

        self.query, self.key, self.value = project(), project(), project()
        self.out = nnx.LinearGeneral(
            (num_heads, head_dim), width, axis=(-2, -1), kernel_init=xavier, dtype=dtype, rngs=rngs
        )

    def __call__(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch tokens dim"]:
        mixed = jax.nn.dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))
        return self.out(mixed)
