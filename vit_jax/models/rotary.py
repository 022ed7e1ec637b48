"""Rotary 2-D positions: queries and keys are turned by angles that grow with the row and the column of their patch.

Su et al. (2021, RoFormer, equation 15), along two axes as in EVA-02 (Fang et al., 2023) and DINOv3 (Siméoni et al.,
2025). Class token and registers are not turned. Channel i of a head is turned together with channel i + head_dim / 2,
the first head_dim / 4 pairs by the row, the others by the column; weights of other layouts are put in this order.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.position import num_prefix

FIELDS = ("rope_unit", "rope_grid", "rope_start", "rope_shift", "rope_jitter", "rope_rescale")


class Rotation(NamedTuple):
    """The cosines and sines of the angles of every token, for every pair of channels; of all pictures, or of each."""

    cos: Float[Array, "*batch tokens pairs"]
    sin: Float[Array, "*batch tokens pairs"]


def check_rotary(config: Model) -> None:
    """Raise an `InputError` if heads can't be turned, or a field of the rotary positions means nothing."""
    plain, head_dim = Model(), config.width // config.num_heads
    changed = [key for key in FIELDS if getattr(config, key) != getattr(plain, key)]
    if config.rope is None:
        if changed:
            raise InputError(f"model.{changed[0]}: means nothing without model.rope")
        return
    if config.rope_unit == "picture" and (counted := [key for key in changed if key in ("rope_grid", "rope_start")]):
        raise InputError(f"model.{counted[0]}: means nothing with model.rope_unit='picture'")
    if head_dim % 4:
        raise InputError(f"model.rope needs heads of a multiple of 4 channels, not {head_dim}")


def make_rotation(
    config: Model,
    grid: tuple[int, int],
    key: Key[Array, ""] | None = None,
    keep: Int[Array, "batch kept"] | None = None,
) -> Rotation | None:
    """Return the rotation of a resolved config for a (rows, columns) grid; None if it has no rotary positions.

    Args:
        key: draws the shift, jitter and rescaling of the coordinates; None: none of them.
        keep: numbers of the patches that there are, for each picture.
    """
    if config.rope is None:
        return None
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), axis=-1).reshape(-1, 2)
    places = places if keep is None else places[keep]
    return rotation_at(config, places, jnp.asarray(grid), num_prefix(config), key)


def rotation_at(
    config: Model,
    places: Int[Array, "*batch patches 2"],
    grids: Int[Array, "*_ 2"],
    prefix: int,
    key: Key[Array, ""] | None = None,
) -> Rotation:
    """Return the rotation of patches by their rows and columns, and the grids of their pictures.

    Args:
        prefix: tokens before the patches, which are not turned.
        key: as for `make_rotation`.
    """
    quarter = config.width // config.num_heads // 4
    frequencies = config.rope ** -(jnp.arange(quarter) / quarter)
    coordinates = _coordinates(config, places, grids)
    if key is not None:
        coordinates = _augmented(config, coordinates, key)
    angles = (coordinates[..., None] * frequencies).reshape(*places.shape[:-1], 2 * quarter)
    widths = [(0, 0)] * (angles.ndim - 2) + [(prefix, 0), (0, 0)]
    return Rotation(jnp.pad(jnp.cos(angles), widths, constant_values=1.0), jnp.pad(jnp.sin(angles), widths))


def rotate(
    x: Float[Array, "batch tokens heads head_dim"], rotation: Rotation | None
) -> Float[Array, "batch tokens heads head_dim"]:
    """Return queries or keys, turned; computed in float32."""
    if rotation is None:
        return x
    cos, sin = (table[..., None, :] for table in rotation)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _coordinates(
    config: Model, places: Int[Array, "*batch patches 2"], grids: Int[Array, "..."]
) -> Float[Array, "*batch patches 2"]:
    """Return what is multiplied by the frequencies."""
    if config.rope_unit == "picture":
        return 2 * math.pi * (2 * (places + 0.5) / grids - 1)
    known = grids if config.rope_grid is None else np.array(config.rope_grid)
    return (places + config.rope_start) * (known / grids)


def _augmented(config: Model, coordinates: Float[Array, "*batch patches 2"], key: Key[Array, ""]) -> jax.Array:
    """Shift, jitter and rescale all coordinates alike (Siméoni et al., 2025, section 3.2), in this order."""
    keys = jax.random.split(key, 3)
    unit = 2 * math.pi if config.rope_unit == "picture" else 1.0
    jitter, rescale = math.log(config.rope_jitter), math.log(config.rope_rescale)
    shifted = coordinates + unit * config.rope_shift * jax.random.uniform(keys[0], (2,), minval=-1.0)
    jittered = shifted * jnp.exp(jitter * jax.random.uniform(keys[1], (2,), minval=-1.0))
    return jittered * jnp.exp(rescale * jax.random.uniform(keys[2], minval=-1.0))
