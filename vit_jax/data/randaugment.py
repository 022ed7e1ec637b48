"""RandAugment (Cubuk et al., 2020) on whole batches, inside the jitted step.

Each picture gets its own operations. Geometric ones share one affine map, so that a layer samples each picture once;
color ones are all computed and one result is selected, because accelerators don't branch per picture.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, Key

Images = Float[Array, "batch height width channels"]
Image = Float[Array, "height width channels"]
Scalar = Float[Array, ""]

# At level 1: rotation in radians, shear in pixels per pixel, translation as a fraction of the picture's side.
ROTATION, SHEAR, TRANSLATION = jnp.pi / 6, 0.3, 100 / 331


def grey(image: Image) -> Image:
    """Return the luma (ITU-R 601) of a color picture in every channel; a gray one unchanged."""
    if image.shape[-1] == 1:
        return image
    return jnp.broadcast_to(image @ jnp.array([[0.299], [0.587], [0.114]]), image.shape)


def blend(base: Image, image: Image, factor: Scalar) -> Image:
    """Interpolate from `base` (factor 0) to `image` (factor 1) and beyond, clipped to [-1, 1]."""
    return jnp.clip(base + factor * (image - base), -1, 1)


def brightness(image: Image, factor: Scalar) -> Image:
    """Blend with black."""
    return blend(jnp.full_like(image, -1), image, factor)


def contrast(image: Image, factor: Scalar) -> Image:
    """Blend with the picture's mean gray."""
    return blend(jnp.broadcast_to(grey(image).mean(), image.shape), image, factor)


def saturation(image: Image, factor: Scalar) -> Image:
    """Blend with the gray picture."""
    return blend(grey(image), image, factor)


def sharpness(image: Image, factor: Scalar) -> Image:
    """Blend with the smoothed picture; the border is not smoothed."""
    height, width, _ = image.shape
    near = sum(image[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3))
    return blend(image.at[1:-1, 1:-1].set((near + 4 * image[1:-1, 1:-1]) / 13), image, factor)


def autocontrast(image: Image) -> Image:
    """Stretch each channel to the full range."""
    low, high = image.min((0, 1)), image.max((0, 1))
    stretched = (image - low) / jnp.maximum(high - low, 1e-6) * 2 - 1
    return jnp.where(high > low, jnp.clip(stretched, -1, 1), image)


def equalize(image: Image) -> Image:
    """Equalize the histogram of each channel over its 256 values."""

    def channel(values: Int[Array, "pixels"]) -> Int[Array, "pixels"]:
        histogram = jnp.zeros(256, jnp.int32).at[values].add(1)
        step = (values.size - histogram[values.max()]) // 255
        table = (jnp.cumsum(histogram) - histogram + step // 2) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table, 0, 255)[values], values)

    flat = _to_bytes(image).reshape(-1, image.shape[-1])
    return _from_bytes(jax.vmap(channel, 1, 1)(flat).reshape(image.shape))


def solarize(image: Image, level: Scalar) -> Image:
    """Invert pixels above a threshold, which falls from white to black as `level` rises to 1."""
    return jnp.where(image >= 1 - 2 * level, -image, image)


def posterize(image: Image, level: Scalar) -> Image:
    """Keep the upper bits of each value: all 8 at level 0, 4 at level 1."""
    dropped = jnp.round(4 * level).astype(jnp.int32)
    return _from_bytes(_to_bytes(image) >> dropped << dropped)


def _to_bytes(image: Image) -> Int[Array, "height width channels"]:
    return jnp.round((image + 1) * 127.5).astype(jnp.int32)


def _from_bytes(values: Int[Array, "height width channels"]) -> Image:
    return jnp.clip(values / 127.5 - 1, -1, 1)


def warp(image: Image, matrix: Float[Array, "2 2"], offset: Float[Array, "2"]) -> Image:
    """Return the picture whose pixel p, relative to the center, is sampled at `matrix` p + `offset`; gray outside."""
    size = jnp.array(image.shape[:2])
    centre = (size - 1) / 2
    pixels = jnp.moveaxis(jnp.indices(image.shape[:2]), 0, -1) - centre
    y, x = jnp.moveaxis(pixels @ matrix.T + offset + centre, -1, 0)
    return jax.vmap(lambda channel: map_coordinates(channel, [y, x], order=1, cval=0.0), -1, -1)(image)


GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOR = ("autocontrast", "equalize", "solarize", "posterize", "color", "contrast", "brightness", "sharpness")
OPERATIONS = ("identity", *COLOR, *GEOMETRY)


def apply(image: Image, operation: Int[Array, ""], level: Scalar) -> Image:
    """Apply one of `OPERATIONS` by index; `level` in [-1, 1] sets the strength, and its sign the direction."""
    amount = jnp.abs(level)
    chosen = {name: operation == OPERATIONS.index(name) for name in GEOMETRY}
    angle = jnp.where(chosen["rotate"], level * ROTATION, 0)
    shear_x, shear_y = (jnp.where(chosen[name], level * SHEAR, 0) for name in ("shear_x", "shear_y"))
    move = jnp.stack([jnp.where(chosen[name], level * TRANSLATION, 0) for name in ("translate_y", "translate_x")])
    turn = jnp.stack([jnp.cos(angle), jnp.sin(angle) + shear_y, -jnp.sin(angle) + shear_x, jnp.cos(angle)])
    image = warp(image, turn.reshape(2, 2), move * jnp.array(image.shape[:2]))
    factor = 1 + 0.9 * level
    branches = (
        lambda x: x,
        autocontrast,
        equalize,
        lambda x: solarize(x, amount),
        lambda x: posterize(x, amount),
        lambda x: saturation(x, factor),
        lambda x: contrast(x, factor),
        lambda x: brightness(x, factor),
        lambda x: sharpness(x, factor),
    )
    return jax.lax.switch(jnp.where(operation < len(branches), operation, 0), branches, image)


def randaugment(key: Key[Array, ""], images: Images, layers: int, magnitude: float) -> Images:
    """Apply `layers` random `OPERATIONS` to each picture, at `magnitude` in [0, 10] with a random sign.

    Cubuk et al. (2020). Solarizing and posterizing get stronger with the magnitude, as in later code bases.
    """
    for layer_key in jax.random.split(key, layers):
        operation_key, sign_key = jax.random.split(layer_key)
        operations = jax.random.randint(operation_key, images.shape[:1], 0, len(OPERATIONS))
        signs = jax.random.rademacher(sign_key, images.shape[:1], jnp.float32)
        images = jax.vmap(apply)(images, operations, signs * (magnitude / 10))
    return images
