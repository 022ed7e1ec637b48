"""The Vision Transformer (Dosovitskiy et al., 2021)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.layers import apply_blocks, dropout, make_blocks
from vit_jax.models.position import LearnedPosition, SinCos2d


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


class ViT(nnx.Module):
    """Patches, position embeddings, a pre-norm encoder, a head.

    Attributes:
        config: the resolved `vit_jax.config.Model`.
        image_size: (height, width) that the position embeddings are for.
    """

    def __init__(self, config: Model, *, num_classes: int, image_size: tuple[int, int], channels: int, rngs: nnx.Rngs):
        if image_size[0] % config.patch or image_size[1] % config.patch:
            raise InputError(
                f"image size {image_size[0]}x{image_size[1]} is not divisible by the patch size {config.patch} "
                f"of model {config.name!r}"
            )
        if config.position == "sincos2d" and (config.width % 4 or config.width < 8):
            raise InputError(
                f"model.position='sincos2d' needs a width divisible by 4 and at least 8, not {config.width}"
            )
        self.config, self.image_size = config, tuple(image_size)
        self.num_classes, self.channels = num_classes, channels
        dtype = compute_dtype(config)
        width, grid = config.width, (image_size[0] // config.patch, image_size[1] // config.patch)
        num_prefix = 1 if config.pool == "token" else 0

        self.embedding = PatchEmbedding(config.patch, channels, width, dtype=dtype, rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, width))) if num_prefix else None
        self.position = {
            "learned": lambda: LearnedPosition(grid, num_prefix, width, rngs=rngs),
            "sincos2d": lambda: SinCos2d(grid, num_prefix, width),
            "none": lambda: None,
        }[config.position]()
        self.blocks = make_blocks(config, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        features = config.representation or width
        self.pre_logits = nnx.Linear(width, features, dtype=dtype, rngs=rngs) if config.representation else None
        zeros = nnx.initializers.zeros
        self.head = nnx.Linear(features, num_classes, kernel_init=zeros, dtype=jnp.float32, rngs=rngs)

    def encode(
        self, images: Float[Array, "batch height width channels"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        """Return the encoder's normalised tokens, the class token first."""
        dropout_key, blocks_key = (None, None) if key is None else jax.random.split(key)
        embedded = self.embedding(images)
        tokens = embedded.reshape(embedded.shape[0], -1, embedded.shape[-1])
        if self.cls is not None:
            cls = jnp.broadcast_to(self.cls[...].astype(tokens.dtype), (tokens.shape[0], *self.cls.shape))
            tokens = jnp.concatenate([cls, tokens], axis=1)
        if self.position is not None:
            tokens = tokens + self.position().astype(tokens.dtype)
        tokens = dropout(tokens, self.config.dropout, dropout_key)
        return self.norm(apply_blocks(self.blocks, tokens, self.config, blocks_key))

    def __call__(
        self, images: Float[Array, "batch height width channels"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch classes"]:
        """Return float32 logits of pictures with values in [-1, 1]; with a key, dropout and stochastic depth act."""
        tokens = self.encode(images, key)
        features = tokens[:, 0] if self.config.pool == "token" else tokens.mean(axis=1)
        if self.pre_logits is not None:
            features = jnp.tanh(self.pre_logits(features))
        return self.head(features)


def compute_dtype(config: Model) -> jnp.dtype:
    """Return the dtype of the computation: "auto" is bfloat16 on accelerators, float32 on CPU."""
    if config.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(config.dtype)
