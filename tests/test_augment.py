"""Augmentation of whole batches: each kind of change, seen in the pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.config import Augment
from vit_jax.data import augment as aug


def test_flip_mirrors_about_half():
    images = jax.random.normal(jax.random.key(0), (400, 2, 4, 1))
    flipped = np.asarray(aug.flip(jax.random.key(1), images))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert ((flipped == np.asarray(images)).all((1, 2, 3)) ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_moves_by_whole_pixels_and_repeats_edges():
    image = np.arange(25.0, dtype=np.float32).reshape(1, 5, 5, 1)
    moved = np.asarray(aug.shift(jax.random.key(0), jnp.repeat(image, 200, 0), 1))
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    possible = [padded[y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
    counts = [sum(np.array_equal(picture, candidate) for picture in moved) for candidate in possible]
    assert sum(counts) == 200
    assert min(counts) > 5


def test_mixup_blends_pictures_and_targets_alike():
    images = np.random.default_rng(0).normal(size=(6, 2, 2, 1)).astype(np.float32)
    targets = np.eye(6, dtype=np.float32)
    mixed, blended = (np.asarray(x) for x in aug.mixup(jax.random.key(0), jnp.array(images), jnp.array(targets), 0.4))
    weights = np.diag(blended)
    assert (weights >= 0.5).all()
    np.testing.assert_allclose(blended.sum(1), 1, rtol=1e-6)
    expected = images * weights[:, None, None, None] + np.roll(images, 1, 0) * (1 - weights[:, None, None, None])
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_augment_does_only_what_is_asked():
    images = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    same, unchanged = aug.augment(jax.random.key(0), jnp.array(images), jnp.array(targets), Augment())
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(unchanged, targets)
    assert aug.normalise(jnp.array([[[[0]], [[255]]]], jnp.uint8)).ravel().tolist() == [-1, 1]
