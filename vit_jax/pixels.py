"""Conversion of pictures to model input."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from vit_jax.errors import InputError


def normalise(images: UInt8[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Return uint8 pixels as float32 in [-1, 1], the range that published weights expect."""
    return images.astype(jnp.float32) * (2 / 255) - 1


def as_input(
    images: Shaped[Array | np.ndarray, "..."], channels: int, name: str
) -> Float[Array, "batch height width channels"]:
    """Return pictures as model input: floats in [-1, 1] unchanged, uint8 pixels from 0 to 255 normalized.

    Checks only shape and dtype, at trace time, so compiled calls pay nothing for it.

    Raises:
        InputError: the shape is not (batch, height, width, channels), or the dtype is an integer other than uint8.
    """
    wanted = f"model {name!r} takes pictures of shape (batch, height, width, {channels})"
    if images.ndim == 3:
        raise InputError(f"{wanted}, not {images.shape}; for a single picture, add a batch axis: images[None]")
    if images.ndim != 4:
        raise InputError(f"{wanted}, not {images.shape}")
    if images.shape[3] != channels:
        first = images.shape[1] == channels
        how = "; the channels come last: transpose (0, 2, 3, 1)" if first else ""
        raise InputError(f"{wanted}, not {images.shape}{how}")
    if images.dtype == jnp.uint8:
        return normalise(jnp.asarray(images))
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"model {name!r} takes floats in [-1, 1] or uint8 pixels, not {images.dtype}")
    return jnp.asarray(images)
