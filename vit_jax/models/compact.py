"""What compact transformers have of their own (Hassani et al., 2021): tokens by convolution, and sequence pooling."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.config import Model
from vit_jax.models.variants import conv_stride

Maps = Float[Array, "batch rows columns channels"]


class ConvTokenizer(nnx.Module):
    """Convolutions, each followed by ReLU and max-pooling, whose last map has a token at every position.

    The convolutions are attributes `conv1`, `conv2`, ...; all but the last have 64 outputs. None has a bias.
    """

    def __init__(self, config: Model, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        side, self.layers = config.tokenizer
        for i in range(self.layers):
            features = config.width if i == self.layers - 1 else 64
            conv = nnx.Conv(
                *(channels, features),
                (side, side),
                strides=conv_stride(side),
                padding=side // 2,
                use_bias=False,
                kernel_init=nnx.initializers.he_normal(),
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"conv{i + 1}", conv)
            channels = features

    def __call__(self, images: Float[Array, "batch height width _"]) -> Maps:
        for i in range(self.layers):
            images = max_pool(jax.nn.relu(getattr(self, f"conv{i + 1}")(images)))
        return images


def max_pool(maps: Maps) -> Float[Array, "batch new_rows new_columns channels"]:
    """Return the maxima over 3x3 windows with stride 2, of maps that are nowhere negative and have even sides.

    Along one axis after the other, as maxima of slices: on a CPU, the gradient of `reduce_window` takes seven times as
    long.
    """
    for axis in (1, 2):
        length = maps.shape[axis]
        # A window begins one position outside; zero is as good as nothing there.
        padded = jnp.pad(maps, [(int(i == axis), 0) for i in range(4)])
        slices = (jax.lax.slice_in_dim(padded, i, length - 1 + i, 2, axis) for i in range(3))
        maps = functools.reduce(jnp.maximum, slices)
    return maps


class SequencePool(nnx.Module):
    """The mean over the tokens, weighted by the softmax of a linear function of each."""

    def __init__(self, config: Model, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.score = nnx.Linear(config.width, 1, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch dim"]:
        weights = jax.nn.softmax(self.score(tokens).astype(jnp.float32), axis=1)
        return jnp.einsum("bto,btd->bd", weights.astype(tokens.dtype), tokens)
