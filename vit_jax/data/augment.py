"""Augmentation of whole batches on the accelerator, inside the jitted step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from vit_jax.config import Augment

Images = Float[Array, "batch height width channels"]
Targets = Float[Array, "batch classes"]


def normalise(images: UInt8[Array, "batch height width channels"]) -> Images:
    """Return uint8 pixels as float32 in [-1, 1], the range that published weights expect."""
    return images.astype(jnp.float32) * (2 / 255) - 1


def flip(key: Key[Array, ""], images: Images) -> Images:
    """Mirror each picture left to right with probability 1/2."""
    chosen = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def shift(key: Key[Array, ""], images: Images, pixels: int) -> Images:
    """Move each picture by up to `pixels` each way, edges repeated."""
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, offsets)


def mixup(key: Key[Array, ""], images: Images, targets: Targets, alpha: float) -> tuple[Images, Targets]:
    """Blend each picture and its target with those of the next in the batch, a Beta(alpha, alpha) part each."""
    weight = jax.random.beta(key, alpha, alpha, (images.shape[0],))
    weight = jnp.maximum(weight, 1 - weight)  # The picture itself outweighs its partner.

    def blend(x):
        w = weight.reshape(-1, *(1,) * (x.ndim - 1))
        return x * w + jnp.roll(x, 1, axis=0) * (1 - w)

    return blend(images), blend(targets)


def augment(key: Key[Array, ""], images: Images, targets: Targets, config: Augment) -> tuple[Images, Targets]:
    """Apply what the config asks for, in the order flip, shift, mixup."""
    flip_key, shift_key, mixup_key = jax.random.split(key, 3)
    if config.flip:
        images = flip(flip_key, images)
    if config.shift:
        images = shift(shift_key, images, config.shift)
    if config.mixup:
        images, targets = mixup(mixup_key, images, targets, config.mixup)
    return images, targets
