"""RandAugment: each operation against Pillow's, and the effect of a whole layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vit_jax.data import randaugment as ra
from vit_jax.pixels import normalise


def photo(seed=0):
    """A smooth 20 x 24 colour picture that does not cover the full range."""
    rng = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(rng.integers(30, 200, (5, 6, 3), dtype=np.uint8)).resize((24, 20), Image.BICUBIC))


def close(ours, theirs, atol=1):
    levels = (np.asarray(ours) + 1) * 127.5
    np.testing.assert_allclose(levels, np.asarray(theirs, np.float32), atol=atol)


PICTURE = photo()
IMAGE = normalise(jnp.array(PICTURE[None]))[0]
PILLOW = Image.fromarray(PICTURE)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_blends_equal_pillow(factor):
    close(ra.brightness(IMAGE, jnp.array(factor)), ImageEnhance.Brightness(PILLOW).enhance(factor), 1.5)
    close(ra.saturation(IMAGE, jnp.array(factor)), ImageEnhance.Color(PILLOW).enhance(factor), 1.5)
    close(ra.contrast(IMAGE, jnp.array(factor)), ImageEnhance.Contrast(PILLOW).enhance(factor), 1.5)
    smooth = PILLOW.filter(ImageFilter.SMOOTH)
    close(ra.sharpness(IMAGE, jnp.array(factor)), Image.blend(smooth, PILLOW, factor), 1.5)


def test_tables_equal_pillow():
    close(ra.equalize(IMAGE), ImageOps.equalize(PILLOW), 0.01)
    close(ra.autocontrast(IMAGE), ImageOps.autocontrast(PILLOW), 1.0)
    for level, bits in ((0.0, 8), (0.5, 6), (1.0, 4)):
        close(ra.posterize(IMAGE, jnp.array(level)), ImageOps.posterize(PILLOW, bits), 0.01)
    for level, threshold in ((0.0, 256), (0.5, 128), (1.0, 0)):
        close(ra.solarize(IMAGE, jnp.array(level)), ImageOps.solarize(PILLOW, threshold), 0.01)
    flat = jnp.full((4, 4, 3), 0.5)
    np.testing.assert_array_equal(ra.autocontrast(flat), flat)
    np.testing.assert_allclose(ra.equalize(flat), flat, atol=1 / 255)


@pytest.mark.parametrize(
    ("operation", "matrix"),
    [
        # Maps each output pixel to its source, x first, as in Pillow.
        ("rotate", (np.cos(np.pi / 6), -np.sin(np.pi / 6), 0, np.sin(np.pi / 6), np.cos(np.pi / 6), 0)),
        ("shear_x", (1, 0.3, 0, 0, 1, 0)),
        ("shear_y", (1, 0, 0, 0.3, 1, 0)),
        ("translate_x", (1, 0, 24 * 100 / 331, 0, 1, 0)),
        ("translate_y", (1, 0, 0, 0, 1, 20 * 100 / 331)),
    ],
)
def test_geometry_equals_pillow(operation, matrix):
    ours = ra.apply(IMAGE, jnp.array(ra.OPERATIONS.index(operation)), jnp.array(1.0))
    a, b, c, d, e, f = matrix
    moved = (a, b, 12 - 12 * a - 10 * b + c, d, e, 10 - 12 * d - 10 * e + f)  # Around the centre.
    theirs = PILLOW.transform((24, 20), Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR, fillcolor=(128,) * 3)
    difference = np.abs((np.asarray(ours) + 1) * 127.5 - np.asarray(theirs, np.float32)).max(-1)
    # Pillow omits pixels half beyond the edge, which are blended with grey here.
    assert (difference > 2.5).mean() < 0.12
    assert np.abs(np.asarray(ours) - np.asarray(IMAGE)).mean() > 0.05


def test_operations_are_in_order_and_do_nothing_at_level_0():
    assert len(ra.OPERATIONS) == len(set(ra.OPERATIONS)) == 14
    for number, name in enumerate(ra.OPERATIONS):
        image = np.asarray(ra.apply(IMAGE, jnp.array(number), jnp.array(0.0)))
        changed = np.abs(image - np.asarray(IMAGE)).max() > 1e-5
        assert changed == (name in ("autocontrast", "equalize")), name
    direct = {
        "autocontrast": ra.autocontrast(IMAGE),
        "equalize": ra.equalize(IMAGE),
        "solarize": ra.solarize(IMAGE, jnp.array(0.5)),
        "posterize": ra.posterize(IMAGE, jnp.array(0.5)),
        "color": ra.saturation(IMAGE, jnp.array(0.55)),
        "contrast": ra.contrast(IMAGE, jnp.array(0.55)),
        "brightness": ra.brightness(IMAGE, jnp.array(0.55)),
        "sharpness": ra.sharpness(IMAGE, jnp.array(0.55)),
    }
    for name, expected in direct.items():
        found = ra.apply(IMAGE, jnp.array(ra.OPERATIONS.index(name)), jnp.array(-0.5))
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


def test_randaugment_treats_each_picture_on_its_own():
    images = jnp.repeat(IMAGE[None], 64, 0)
    changed = np.asarray(jax.jit(lambda key: ra.randaugment(key, images, 1, 9.0))(jax.random.key(0)))
    assert changed.min() >= -1
    assert changed.max() <= 1
    distinct = {image.round(3).tobytes() for image in changed}
    assert 14 <= len(distinct) <= 25  # Fourteen operations, most with two directions.
    grey = jnp.repeat(IMAGE[None, ..., :1], 4, 0)
    assert jax.eval_shape(lambda: ra.randaugment(jax.random.key(0), grey, 2, 9.0)).shape == (4, 20, 24, 1)
