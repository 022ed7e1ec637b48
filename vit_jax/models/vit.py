"""The Vision Transformer (Dosovitskiy et al., 2021)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.layers import (
    AttentionPool,
    PatchEmbedding,
    add_position,
    apply_blocks,
    compute_dtype,
    dropout,
    make_blocks,
    make_head,
)
from vit_jax.models.position import make_position, num_prefix
from vit_jax.models.resize import resize_patch
from vit_jax.models.resnet import ResNetEmbedding

Images = Float[Array, "batch height width channels"]


class ViT(nnx.Module):
    """Patches, position embeddings, a pre-norm encoder, a head.

    It runs on pictures of any size that the patch divides: position embeddings follow inside the call.

    Attributes:
        config: the resolved `vit_jax.config.Model`.
        image_size: (height, width) that the position embeddings are for.
    """

    def __init__(self, config: Model, *, num_classes: int, image_size: tuple[int, int], channels: int, rngs: nnx.Rngs):
        _check(config)
        self.config, self.image_size = config, tuple(image_size)
        self.num_classes, self.channels = num_classes, channels
        dtype, width = compute_dtype(config), config.width
        grid = self.grid(image_size)

        def norm(here: bool) -> nnx.LayerNorm | None:
            return nnx.LayerNorm(width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs) if here else None

        if config.resnet is None:
            self.embedding = PatchEmbedding(config.patch, channels, width, dtype=dtype, rngs=rngs)
        else:
            self.embedding = ResNetEmbedding(config, channels, dtype=dtype, rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, width))) if config.class_token else None
        init = nnx.initializers.normal(0.02)
        self.registers = nnx.Param(init(rngs.params(), (config.registers, width))) if config.registers else None
        self.position = make_position(config, grid, rngs=rngs)
        self.blocks = make_blocks(config, dtype=dtype, rngs=rngs)
        self.norm = norm(config.pool_norm == "before")
        self.pool = AttentionPool(config, dtype=dtype, rngs=rngs) if config.pool == "map" else None
        self.pool_norm = norm(config.pool_norm == "after")
        features = config.representation or width
        self.pre_logits = nnx.Linear(width, features, dtype=dtype, rngs=rngs) if config.representation else None
        self.head = make_head(config, features, num_classes, rngs=rngs)

    def grid(self, image_size: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of patches of a (height, width) picture.

        Raises:
            InputError: the patch does not divide it.
        """
        patch = self.config.patch
        if image_size[0] % patch or image_size[1] % patch or min(image_size) < patch:
            raise InputError(
                f"image size {image_size[0]}x{image_size[1]} is not divisible by the patch size {patch} "
                f"of model {self.config.name!r}"
            )
        return image_size[0] // patch, image_size[1] // patch

    def encode(self, images: Images, key: Key[Array, ""] | None = None) -> Float[Array, "batch tokens dim"]:
        """Return the encoder's tokens, class token and registers first, normalised where the norm is before pooling."""
        return self._encode(images, key)[0]

    def activations(self, images: Images) -> dict[str, Float[Array, "..."]]:
        """Return what the layers give, to look at.

        Returns:
            embedding (batch, rows, columns, dim); blocks (depth, batch, tokens, dim), after each block; encoded
            (batch, tokens, dim), what `encode` returns.
        """
        encoded, blocks = self._encode(images, None, collect=True)
        return {"embedding": self.embedding(images), "blocks": blocks, "encoded": encoded}

    def features(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch *tokens dim"]:
        """Return what the head reads: one vector a picture, or with `pool="none"` one a token."""
        tokens, prefix = self.encode(images, key), num_prefix(self.config)
        features = {
            "token": lambda: tokens[:, 0],
            "gap": lambda: tokens[:, prefix:].mean(axis=1),
            "map": lambda: self.pool(tokens[:, prefix:]),
            "none": lambda: tokens,
        }[self.config.pool]()
        if self.pool_norm is not None:
            features = self.pool_norm(features)
        return features if self.pre_logits is None else jnp.tanh(self.pre_logits(features))

    def __call__(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch *tokens classes"]:
        """Return float32 logits of pictures with values in [-1, 1]; with a key, dropout and stochastic depth act."""
        return self.head(self.features(images, key=key))

    def resize(self, image_size: tuple[int, int], patch: int | None = None) -> None:
        """Make this, in place, the model of another picture size, and patch size by FlexiViT's resize.

        Raises:
            InputError: the patch does not divide the picture, or the model is a hybrid and the patch is to change.
        """
        if patch is not None and patch != self.config.patch:
            if patch < 1:
                raise InputError(f"patch={patch}: must be at least 1")
            if self.config.resnet is not None:
                raise InputError(f"patch={patch}: the patch size of a hybrid, {self.config.name!r}, can't be changed")
            self.embedding.kernel = nnx.Param(resize_patch(self.embedding.kernel[...], patch))
            name = f"{self.config.name.split('/')[0]}/{patch}"
            self.config = dataclasses.replace(self.config, patch=patch, name=name)
        if self.position is not None:
            self.position.resize(self.grid(image_size))
        self.image_size = tuple(image_size)

    def _encode(self, images: Images, key: Key[Array, ""] | None, *, collect: bool = False):
        dropout_key, blocks_key = (None, None) if key is None else jax.random.split(key)
        grid = self.grid(images.shape[1:3])
        embedded = self.embedding(images)
        tokens = embedded.reshape(embedded.shape[0], -1, embedded.shape[-1])
        for prefix in (self.registers, self.cls):
            if prefix is not None:
                here = jnp.broadcast_to(prefix[...].astype(tokens.dtype), (tokens.shape[0], *prefix.shape))
                tokens = jnp.concatenate([here, tokens], axis=1)
        added, bias = (None if self.position is None else self.position(grid)), None
        if self.config.position == "relative":
            added, bias = None, added
        elif self.config.position_at == "stem" and added is not None:
            tokens, added = add_position(tokens, added), None
        tokens = dropout(tokens, self.config.dropout, dropout_key)
        tokens, blocks = apply_blocks(self.blocks, tokens, self.config, blocks_key, added, bias, collect=collect)
        return (tokens if self.norm is None else self.norm(tokens)), blocks


def _check(config: Model) -> None:
    if config.position == "sincos2d" and (config.width % 4 or config.width < 8):
        raise InputError(f"model.position='sincos2d' needs a width divisible by 4 and at least 8, not {config.width}")
    if config.position == "learned2d" and config.width < 2:
        raise InputError("model.position='learned2d' needs a width of at least 2, for the two halves")
    if config.pool == "token" and not config.class_token:
        raise InputError("model.pool='token' reads the class token: model.class_token can't be False")
    if config.unroll is not None and config.unroll < 1:
        raise InputError(f"model.unroll={config.unroll}: must be at least 1")
    if config.registers < 0:
        raise InputError(f"model.registers={config.registers}: must be at least 0")
