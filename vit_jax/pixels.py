"""Conversion of pictures to model input."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from vit_jax.config import Model
from vit_jax.errors import InputError

HALF = (0.5,)


def normalise(images: UInt8[Array, "*batch height width channels"]) -> Float[Array, "*batch height width channels"]:
    """Return uint8 pixels as float32 in [-1, 1]."""
    return images.astype(jnp.float32) * (2 / 255) - 1


def standardise(
    images: Float[Array, "*batch height width channels"], config: Model
) -> Float[Array, "*batch height width channels"]:
    """Return pictures in [-1, 1] normalised as the model's weights expect: (pixel / 255 - mean) / std.

    Raises:
        InputError: the mean or the deviation is not for this number of channels.
    """
    if config.mean == config.std == HALF:
        return images
    for key in ("mean", "std"):
        if len(values := getattr(config, key)) not in (1, images.shape[-1]):
            raise InputError(
                f"model.{key}={values}: must be one number, or one for each of {images.shape[-1]} channels"
            )
    mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    return images * (0.5 / std) + (0.5 - mean) / std


def as_input(
    images: Shaped[Array | np.ndarray, "..."], channels: int, config: Model
) -> Float[Array, "batch height width channels"]:
    """Return pictures as model input: floats unchanged, uint8 pixels from 0 to 255 normalised as the weights expect.

    Checks only shape and dtype, at trace time, so compiled calls pay nothing for it.

    Raises:
        InputError: the shape is not (batch, height, width, channels), or the dtype is an integer other than uint8.
    """
    name = config.name
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
        return standardise(normalise(jnp.asarray(images)), config)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"model {name!r} takes normalised floats or uint8 pixels, not {images.dtype}")
    return jnp.asarray(images)
