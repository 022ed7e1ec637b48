"""The Vision Transformer (Dosovitskiy et al., 2021)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from vit_jax.config import Model, Preprocessing
from vit_jax.errors import InputError
from vit_jax.models.activations import attention_weights, check_names
from vit_jax.models.checks import check
from vit_jax.models.compact import ConvTokenizer, SequencePool
from vit_jax.models.drops import dropout
from vit_jax.models.layers import (
    AttentionPool,
    PatchEmbedding,
    ProbePool,
    add_position,
    apply_blocks,
    compute_dtype,
    make_blocks,
    make_head,
)
from vit_jax.models.norms import make_norm
from vit_jax.models.packed import packed_activations, packed_features
from vit_jax.models.patterns import parse_pattern, seen_by
from vit_jax.models.position import make_position, num_prefix
from vit_jax.models.pretraining import Parts, make_parts
from vit_jax.models.resize import resize_patch
from vit_jax.models.resnet import ResNetEmbedding
from vit_jax.models.rotary import make_rotation
from vit_jax.packing import Packed
from vit_jax.pixels import as_input

Images = Shaped[Array | np.ndarray, "..."] | Packed


class ViT(nnx.Module):
    """Patches, position embeddings, a pre-norm encoder, a head.

    It runs on pictures of any size that the patch divides: position embeddings follow inside the call.

    Attributes:
        config: the resolved `vit_jax.config.Model`.
        image_size: (height, width) that the position embeddings are for.
        preprocessing: how pictures become its input; `vit_jax.load` takes it from the weights.
        label_names: the classes of its outputs, or None where the weights don't say.
        pretraining: what a task of pre-training puts on it; see `vit_jax.models.pretraining`.
    """

    def __init__(
        self,
        config: Model,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        channels: int,
        rngs: nnx.Rngs,
        parts: Parts | None = None,
    ):
        check(config)
        self.config, self.image_size = config, tuple(image_size)
        self.num_classes, self.channels = num_classes, channels
        self.preprocessing, self.label_names = Preprocessing(mean=config.mean, std=config.std), None
        dtype, width = compute_dtype(config), config.width
        grid = self.grid(image_size)
        parse_pattern(config.attention_pattern).check(grid)

        def norm(here: bool) -> nnx.LayerNorm | nnx.RMSNorm | None:
            return make_norm(config, width, dtype=dtype, rngs=rngs) if here else None

        if config.resnet is not None:
            self.embedding = ResNetEmbedding(config, channels, dtype=dtype, rngs=rngs)
        elif config.tokenizer is not None:
            self.embedding = ConvTokenizer(config, channels, dtype=dtype, rngs=rngs)
        else:
            self.embedding = PatchEmbedding(config, channels, dtype=dtype, rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, width))) if config.class_token else None
        init = nnx.initializers.normal(0.02)
        self.registers = nnx.Param(init(rngs.params(), (config.registers, width))) if config.registers else None
        self.position = make_position(config, grid, rngs=rngs)
        self.embedding_norm = norm(config.embedding_norm)
        self.blocks = make_blocks(config, dtype=dtype, rngs=rngs)
        self.norm = norm(config.pool_norm == "before")
        make_pool = {"map": AttentionPool, "probe": ProbePool, "seq": SequencePool}.get(config.pool)
        self.pool = make_pool(config, dtype=dtype, rngs=rngs) if make_pool else None
        self.pool_norm = norm(config.pool_norm == "after")
        pooled = 2 * width if config.pool == "token_gap" else width
        features = config.representation or pooled
        self.pre_logits = nnx.Linear(pooled, features, dtype=dtype, rngs=rngs) if config.representation else None
        self.head = make_head(config, features, num_classes, rngs=rngs) if num_classes else None
        self.pretraining = make_parts(parts, config, channels, rngs=rngs) if parts else None

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

    def activation_names(self) -> list[str]:
        """Return what `activations` can be asked for."""
        blocks = [f"{kind}/{i}" for kind in ("block", "attention") for i in range(self.config.depth)]
        stages = [f"stage/{i}" for i in range(len(self.config.resnet or ()) + 1)]
        return [*(["logits"] if self.head is not None else []), "pooled", "tokens", "embedding", *stages, *blocks]

    def activations(self, images: Images, *names: str) -> dict[str, Float[Array, "..."]]:
        """Return what the model computes on the way to its logits, by name.

        Args:
            names: any of

                - logits (batch, classes); pooled (batch, dim): what the head reads;
                - tokens (batch, tokens, dim): the encoder's output, class token and registers first;
                - embedding (batch, rows, columns, dim): the patches, before positions are added;
                - block/I (batch, tokens, dim): tokens after block I;
                - attention/I (batch, heads, tokens, tokens): the weights of block I, float32, each row summing to 1;
                - stage/I (batch, rows, columns, dim): feature maps from fine to coarse: those of a hybrid's ResNet, and
                  the encoder's patches last.

        Raises:
            InputError: the model has no such activation, or doesn't take such pictures.
        """
        check_names(names, self)
        if isinstance(images, Packed):
            return packed_activations(self, images, names)
        images = as_input(images, self.channels, self.config)
        wants = {name.split("/")[0] for name in names}
        embedded, start, added, bias = self._embed(images)
        grid = embedded.shape[1:3]
        encoded, blocks = self._encode(start, grid, added, bias, None, collect=bool(wants & {"block", "attention"}))

        def attention(i: int) -> Float[Array, "batch heads tokens tokens"]:
            before = start if i == 0 else blocks[i - 1]
            scores = None if bias is None else self.position(grid)
            position, own_bias = (x if x is None or x.ndim == ndim else x[i] for x, ndim in ((added, 2), (scores, 3)))
            seen = seen_by(parse_pattern(self.config.attention_pattern), grid, num_prefix(self.config), i)
            rotation = make_rotation(self.config, grid)
            return attention_weights(self.blocks, i, before, position, own_bias, seen, rotation)

        def stage(i: int) -> Float[Array, "batch rows columns dim"]:
            if i < len(self.config.resnet or ()):
                return self.embedding.resnet.maps(images)[i + 1]
            return encoded[:, num_prefix(self.config) :].reshape(embedded.shape)

        indexed = {"block": lambda i: blocks[i], "attention": attention, "stage": stage}
        named = {
            "logits": lambda: self.head(self._pool(encoded)),
            "pooled": lambda: self._pool(encoded),
            "tokens": lambda: encoded,
            "embedding": lambda: embedded,
        }
        found = {}
        for name in names:
            kind, _, i = name.partition("/")
            found[name] = indexed[kind](int(i)) if i else named[kind]()
        return found

    def features(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch *tokens dim"]:
        """Return what the head reads: one vector a picture, or with `pool="none"` one a token; else as `__call__`."""
        if isinstance(images, Packed):
            return packed_features(self, images, key)
        embedded, tokens, added, bias = self._embed(as_input(images, self.channels, self.config))
        return self._pool(self._encode(tokens, embedded.shape[1:3], added, bias, key)[0])

    def __call__(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch *tokens classes"]:
        """Return float32 logits; with a key, dropout and stochastic depth act.

        Args:
            images: uint8 pixels from 0 to 255, or floats that are normalised as the weights expect: in [-1, 1], unless
                `config.mean` and `config.std` say otherwise; or `Packed` ones, of many shapes.

        Raises:
            InputError: the pictures have another rank, other channels or another integer type, or a size that the patch
                does not divide, or the model has no head; found while tracing.
        """
        if self.head is None:
            raise InputError(f"model {self.config.name!r} has no head; take its features, or load it with num_classes=")
        return self.head(self.features(images, key=key))

    def encode(
        self,
        images: Images,
        *,
        key: Key[Array, ""] | None = None,
        change: Callable[[Float[Array, "batch patches dim"]], Float[Array, "batch patches dim"]] | None = None,
        keep: Int[Array, "batch kept"] | None = None,
        seen: Bool[Array, "batch tokens tokens"] | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        """Return the encoder's output tokens, class token and registers first; else as `__call__`.

        Args:
            change: maps the embedded patches to what the encoder gets in their place.
            keep: numbers of the patches that the encoder gets, in this order; positions must be those of the stem.
            seen: whether a token (second axis) attends to another (third).
        """
        embedded, tokens, added, bias = self._embed(as_input(images, self.channels, self.config), change)
        if keep is not None:
            prefix = num_prefix(self.config)
            kept = jnp.take_along_axis(tokens[:, prefix:], keep[:, :, None], axis=1)
            tokens = jnp.concatenate([tokens[:, :prefix], kept], axis=1)
        return self._encode(tokens, embedded.shape[1:3], added, bias, key, keep=keep, seen=seen)[0]

    def resize(self, image_size: tuple[int, int], patch: int | None = None) -> None:
        """Make this, in place, the model of another picture size, and patch size by FlexiViT's resize.

        Raises:
            InputError: the patch does not divide the picture, or is to change and isn't projected linearly.
        """
        if patch is not None and patch != self.config.patch:
            if patch < 1:
                raise InputError(f"patch={patch}: must be at least 1")
            if (self.config.resnet, self.config.tokenizer) != (None, None):
                raise InputError(f"patch={patch}: convolutions make the patches of {self.config.name!r}; leave it out")
            self.embedding.kernel = nnx.Param(resize_patch(self.embedding.kernel[...], patch))
            name = f"{self.config.name.split('/')[0]}/{patch}"
            self.config = dataclasses.replace(self.config, patch=patch, name=name)
        if self.position is not None:
            self.position.resize(self.grid(image_size))
        self.image_size = tuple(image_size)

    def _embed(
        self, images: Float[Array, "batch height width channels"], change: Callable[..., jax.Array] | None = None
    ) -> tuple[jax.Array | None, ...]:
        """Return the embedded patches, the encoder's input tokens, and what its blocks add to tokens and to scores."""
        grid = self.grid(images.shape[1:3])
        embedded = self.embedding(images)
        tokens = embedded.reshape(embedded.shape[0], -1, embedded.shape[-1])
        tokens = tokens if change is None else change(tokens)
        for prefix in (self.registers, self.cls):
            if prefix is not None:
                here = jnp.broadcast_to(prefix[...].astype(tokens.dtype), (tokens.shape[0], *prefix.shape))
                tokens = jnp.concatenate([here, tokens], axis=1)
        added = bias = None
        if self.config.position == "relative":
            bias = self.position(grid) if self.config.attention_pattern == "full" else self.position.table(grid)
        elif self.position is not None and self.config.position_at == "stem":
            tokens = add_position(tokens, self.position(grid))
        elif self.position is not None:
            added = self.position(grid)
        if self.embedding_norm is not None:
            tokens = self.embedding_norm(tokens)
        return embedded, tokens, added, bias

    def _encode(
        self,
        tokens: Float[Array, "batch tokens dim"],
        grid: tuple[int, int],
        added: Float[Array, "*layers tokens dim"] | None,
        bias: Float[Array, "*layers _ _ _"] | None,
        key: Key[Array, ""] | None,
        *,
        collect: bool = False,
        keep: Int[Array, "batch kept"] | None = None,
        seen: Bool[Array, "batch tokens tokens"] | None = None,
    ) -> tuple[Float[Array, "batch tokens dim"], Float[Array, "depth batch tokens dim"] | None]:
        dropout_key, blocks_key = (None, None) if key is None else jax.random.split(key)
        tokens = dropout(tokens, self.config.dropout, dropout_key)
        rotation = make_rotation(self.config, grid, None if key is None else jax.random.fold_in(key, 2), keep)
        facts = dict(grid=grid, rotation=rotation, collect=collect, seen=seen)
        tokens, blocks = apply_blocks(self.blocks, tokens, self.config, blocks_key, added, bias, **facts)
        return (tokens if self.norm is None else self.norm(tokens)), blocks

    def _pool(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch *_tokens features"]:
        prefix = num_prefix(self.config)
        read = {
            "token": lambda: tokens[:, 0],
            "gap": lambda: tokens[:, prefix:].mean(axis=1),
            "token_gap": lambda: jnp.concatenate([tokens[:, 0], tokens[:, prefix:].mean(axis=1)], axis=-1),
            "map": lambda: self.pool(tokens if self.config.pool_prefix else tokens[:, prefix:])[:, 0],
            "none": lambda: tokens,
        }.get(self.config.pool, lambda: self.pool(tokens[:, prefix:]))()
        return self.represent(read)

    def represent(self, read: Float[Array, "batch *_tokens pooled"]) -> Float[Array, "batch *_tokens features"]:
        """Return what the head reads, from what was read off the tokens."""
        features = read if self.pool_norm is None else self.pool_norm(read)
        return features if self.pre_logits is None else jnp.tanh(self.pre_logits(features))
