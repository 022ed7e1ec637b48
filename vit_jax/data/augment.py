"""Augmentation of whole batches on the accelerator, inside the jitted step."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vit_jax.config import Augment
from vit_jax.data.autoaugment import autoaugment
from vit_jax.data.randaugment import brightness, contrast, randaugment, saturation

Images = Float[Array, "batch height width channels"]
Targets = Float[Array, "batch classes"]


def flip(key: Key[Array, ""], images: Images) -> Images:
    """Mirror each picture left to right with probability 1/2."""
    chosen = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def shift(key: Key[Array, ""], images: Images, pixels: int) -> Images:
    """Shift each picture by up to `pixels` in each direction, repeating the edge pixels."""
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, offsets)


def mixup(key: Key[Array, ""], images: Images, targets: Targets, alpha: float) -> tuple[Images, Targets]:
    """Blend each picture and its target with a neighbor's, by a Beta(alpha, alpha) weight (Zhang et al., 2018)."""
    weight = jax.random.beta(key, alpha, alpha, (images.shape[0],))
    weight = jnp.maximum(weight, 1 - weight)  # Each picture outweighs its partner.

    def blend(x):
        w = weight.reshape(-1, *(1,) * (x.ndim - 1))
        return x * w + jnp.roll(x, 1, axis=0) * (1 - w)

    return blend(images), blend(targets)


def cutmix(key: Key[Array, ""], images: Images, targets: Targets, alpha: float) -> tuple[Images, Targets]:
    """Paste in a box of a neighbor in the batch, with its area drawn from Beta(alpha, alpha) (Yun et al., 2019).

    Targets are weighted by the area actually covered.
    """
    part_key, centre_key = jax.random.split(key)
    number, height, width, _ = images.shape
    side = jnp.sqrt(jax.random.beta(part_key, alpha, alpha, (number, 1)))
    centre = jax.random.uniform(centre_key, (number, 2))
    inside = _boxes(centre - side / 2, jnp.broadcast_to(side, centre.shape), height, width)
    part = inside.mean((1, 2, 3))[:, None]
    mixed = jnp.where(inside, jnp.roll(images, 1, axis=0), images)
    return mixed, targets * (1 - part) + jnp.roll(targets, 1, axis=0) * part


def erasing(key: Key[Array, ""], images: Images, probability: float) -> Images:
    """Fill a rectangle of each picture with noise, with the given probability (Zhong et al., 2020).

    It covers 1/50 to 1/3 of the picture; its height over its width is 0.3 to 3.3.
    """
    chosen_key, area_key, ratio_key, corner_key, noise_key = jax.random.split(key, 5)
    number, height, width, _ = images.shape
    area = jax.random.uniform(area_key, (number,), minval=1 / 50, maxval=1 / 3)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (number,), minval=jnp.log(0.3), maxval=jnp.log(3.3)))
    ratio *= width / height
    size = jnp.minimum(jnp.stack([jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)], -1), 1)
    corner = jax.random.uniform(corner_key, (number, 2)) * (1 - size)
    chosen = jax.random.bernoulli(chosen_key, probability, (number, 1, 1, 1))
    noise = jax.random.uniform(noise_key, images.shape, minval=-1, maxval=1)
    return jnp.where(chosen & _boxes(corner, size, height, width), noise, images)


def _boxes(
    corner: Float[Array, "batch 2"], size: Float[Array, "batch 2"], height: int, width: int
) -> Bool[Array, "batch height width 1"]:
    # The pixels whose center is inside a box; boxes are in fractions of the picture's height and width.
    rows, columns = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
    end = corner + size
    in_rows = (rows >= corner[:, :1]) & (rows < end[:, :1])
    in_columns = (columns >= corner[:, 1:]) & (columns < end[:, 1:])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def color_jitter(key: Key[Array, ""], images: Images, strength: float) -> Images:
    """Scale brightness, contrast and saturation of each picture, in this order, by factors in 1 +- `strength`.

    The color augmentation that followed Krizhevsky et al. (2012); as in Chen et al. (2020), but without hue.
    """
    for change, change_key in zip((brightness, contrast, saturation), jax.random.split(key, 3), strict=True):
        factors = jax.random.uniform(change_key, images.shape[:1], minval=1 - strength, maxval=1 + strength)
        images = jax.vmap(change)(images, factors)
    return images


def augment(key: Key[Array, ""], images: Images, targets: Targets, config: Augment) -> tuple[Images, Targets]:
    """Apply the configured augmentations, in this order.

    They are flip, shift, AutoAugment, RandAugment, color jitter, erasing, then mixup or cutmix. With both of the last,
    each batch uses either with probability 1/2 (Touvron et al., 2021).
    """
    keys = jax.random.split(key, 9)
    if config.flip:
        images = flip(keys[0], images)
    if config.shift:
        images = shift(keys[1], images, config.shift)
    if config.autoaugment:
        images = autoaugment(keys[8], images)
    if config.randaugment[0]:
        images = randaugment(keys[3], images, *config.randaugment)
    if config.color_jitter:
        images = color_jitter(keys[4], images, config.color_jitter)
    if config.erasing:
        images = erasing(keys[5], images, config.erasing)
    mixes = [
        functools.partial(mix, mix_key, alpha=alpha)
        for mix, mix_key, alpha in ((mixup, keys[2], config.mixup), (cutmix, keys[6], config.cutmix))
        if alpha
    ]
    if mixes:
        which = jax.random.randint(keys[7], (), 0, len(mixes))
        images, targets = jax.lax.switch(which, mixes, images, targets)
    return images, targets
