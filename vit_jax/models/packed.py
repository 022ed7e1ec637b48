"""The forward pass of a ViT over packed pictures: each sees itself alone, and has its own positions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.drops import dropout
from vit_jax.models.layers import apply_blocks
from vit_jax.models.position import num_prefix
from vit_jax.models.rotary import rotation_at
from vit_jax.models.variants import kind_of
from vit_jax.packing import Packed
from vit_jax.pixels import as_input

# What models of packed pictures are; others need to know more of a picture than its patches.
PACKED = {
    "resnet": (None,),
    "tokenizer": (None,),
    "position": ("learned", "learned2d", "sincos2d", "sincos2d_mae", "none"),
    "position_at": ("stem",),
    "resample": ("bilinear", "bilinear_smooth", "bilinear_sharp", "bicubic", "bicubic_sharp"),
    "attention_pattern": ("full",),
    "pool": ("token", "gap", "token_gap", "map"),
    "drop_path_subset": (False,),
}


class Located(NamedTuple):
    """Which picture each patch of a sequence is of, and where in it.

    Attributes:
        owner: the number of its picture in the sequence; that of the pictures, where it is of none.
        places: its row and column.
        grids: rows and columns of its picture.
    """

    owner: Int[Array, "sequences length"]
    places: Int[Array, "sequences length 2"]
    grids: Int[Array, "sequences length 2"]


def check_packed(config: Model) -> None:
    """Raise an `InputError` if a model of this config can't take packed pictures."""
    if kind_of(config.name) != "ViT":
        raise InputError(f"model {config.name!r}: pictures of many shapes (resize='native') need a ViT")
    for key, known in PACKED.items():
        if (value := getattr(config, key)) not in known:
            listed = ", ".join(map(repr, known))
            raise InputError(f"model.{key}={value!r}: can't be with pictures of many shapes, only {listed}")


def locate(packed: Packed) -> Located:
    """Return what is known of each patch."""
    grids, index = packed.grids, jnp.arange(packed.patches.shape[1])
    counts = grids.prod(axis=-1)
    ends = jnp.cumsum(counts, axis=1)
    owner = (index[:, None] >= ends[:, None, :]).sum(axis=-1)
    real = owner < grids.shape[1]
    picture = jnp.where(real, owner, 0)
    own = jnp.where(real[..., None], jnp.take_along_axis(grids, picture[..., None], axis=1), 1)
    index = jnp.where(real, index - jnp.take_along_axis(ends - counts, picture, axis=1), 0)
    return Located(owner, jnp.stack([index // own[..., 1], index % own[..., 1]], axis=-1), own)


def mirror(packed: Packed, chosen: Bool[Array, "sequences pictures"] | None = None) -> Packed:
    """Return the packed pictures, those that are chosen mirrored left to right; None: all."""
    located, number = locate(packed), packed.grids.shape[1]
    index = jnp.arange(packed.patches.shape[1])
    turned = located.owner < number
    if chosen is not None:
        turned &= jnp.take_along_axis(chosen, jnp.minimum(located.owner, number - 1), axis=1)
    column, columns = located.places[..., 1], located.grids[..., 1]
    index = jnp.where(turned, index + columns - 1 - 2 * column, index)[..., None, None, None]
    moved = jnp.take_along_axis(packed.patches, index, axis=1)
    return Packed(jnp.where(turned[..., None, None, None], moved[..., ::-1, :], moved), packed.grids)


def packed_features(model: Any, packed: Packed, key: Key[Array, ""] | None = None) -> Float[Array, "pictures dim"]:
    """Return what the head of a ViT reads of each picture; zeros or other numbers of no use where there is none.

    With a key, dropout and stochastic depth act; the latter drops a block for a whole sequence.

    Raises:
        InputError: the model can't take packed pictures, or their patches are not of its size.
    """
    config, (sequences, length) = model.config, packed.patches.shape[:2]
    check_packed(config)
    if packed.patches.shape[2:4] != (config.patch, config.patch):
        raise InputError(f"model {config.name!r} takes patches of {config.patch} pixels, not {packed.patches.shape[2]}")
    located, pictures, prefix = locate(packed), packed.grids.shape[1], num_prefix(config)
    # A sequence is a picture that is one patch wide.
    column = packed.patches.reshape(sequences, length * config.patch, *packed.patches.shape[3:])
    patches = model.embedding(as_input(column, model.channels, config))[:, :, 0]
    first = [x[...] for x in (model.cls, model.registers) if x is not None]
    first = jnp.concatenate(first) if first else jnp.zeros((0, config.width))
    if model.position is not None:
        patches = patches + model.position.at(located.places, located.grids).astype(patches.dtype)
        own = getattr(model.position, "prefix", None)
        first = first if own is None else first + own[...]
    first = jnp.tile(first.astype(patches.dtype), (sequences, pictures, 1))
    tokens = jnp.concatenate([first, patches], axis=1)
    if model.embedding_norm is not None:
        tokens = model.embedding_norm(tokens)

    dropout_key, blocks_key = (None, None) if key is None else jax.random.split(key)
    tokens = dropout(tokens, config.dropout, dropout_key)
    rotation = None
    if config.rope is not None:
        rope_key = None if key is None else jax.random.fold_in(key, 2)
        rotation = rotation_at(config, located.places, located.grids, first.shape[1], rope_key)
    numbers = jnp.broadcast_to(jnp.repeat(jnp.arange(pictures), prefix), (sequences, first.shape[1]))
    owner = jnp.concatenate([numbers, located.owner], axis=1)
    seen = owner[:, :, None] == owner[:, None, :]
    tokens, _ = apply_blocks(model.blocks, tokens, config, blocks_key, rotation=rotation, seen=seen)
    return _read(model, tokens if model.norm is None else model.norm(tokens), owner, packed)


def _read(model: Any, tokens: jax.Array, owner: Int[Array, "sequences tokens"], packed: Packed) -> jax.Array:
    config, (sequences, pictures) = model.config, packed.grids.shape[:2]
    prefix = num_prefix(config)
    patches, of_patches = tokens[:, pictures * prefix :], owner[:, pictures * prefix :]
    is_own = of_patches[:, None, :] == jnp.arange(pictures)[:, None]

    def token() -> jax.Array:
        return tokens[:, : pictures * prefix].reshape(sequences, pictures, prefix, -1)[:, :, 0]

    def gap() -> jax.Array:
        number = jnp.maximum(packed.grids.prod(axis=-1), 1)
        total = jnp.einsum("spt,std->spd", is_own.astype(tokens.dtype), patches, precision="highest")
        return total / number[..., None].astype(tokens.dtype)

    def attended() -> jax.Array:
        if config.pool_prefix:
            return model.pool(tokens, owner[:, None, :] == jnp.arange(pictures)[:, None])
        return model.pool(patches, is_own)

    read = {
        "token": token,
        "gap": gap,
        "token_gap": lambda: jnp.concatenate([token(), gap()], axis=-1),
        "map": attended,
    }[config.pool]()
    return model.represent(read.reshape(sequences * pictures, -1))


def packed_activations(model: Any, packed: Packed, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """Return activations of packed pictures: of each picture, not of its tokens.

    Raises:
        InputError: another one is asked for.
    """
    if other := [name for name in names if name not in ("pooled", "logits")]:
        raise InputError(
            f"activation {other[0]!r}: of pictures of many shapes there are pooled and logits alone; "
            "resize 'crop', 'pad' or 'stretch' gives them one"
        )
    pooled = packed_features(model, packed)
    return {name: pooled if name == "pooled" else model.head(pooled) for name in names}
