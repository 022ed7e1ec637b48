"""Augmentation of whole batches: the effect of each kind on the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.config import Augment
from vit_jax.data import augment as aug
from vit_jax.pixels import normalise


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


def test_cutmix_pastes_a_box_and_weighs_targets_by_its_area():
    number = 200
    images = jnp.broadcast_to(jnp.arange(number, dtype=jnp.float32)[:, None, None, None], (number, 16, 12, 3))
    mixed, targets = (np.asarray(x) for x in aug.cutmix(jax.random.key(0), images, jnp.eye(number), 1.0))
    parts = []
    for i in range(number):
        pasted = mixed[i, ..., 0] == (i - 1) % number
        assert (pasted | (mixed[i, ..., 0] == i)).all()
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns[None])
        assert np.abs(np.diff(np.flatnonzero(rows))).max(initial=1) == 1
        np.testing.assert_allclose(targets[i, (i - 1) % number], pasted.mean(), atol=1e-6)
        np.testing.assert_allclose(targets[i].sum(), 1, rtol=1e-6)
        parts.append(pasted.mean())
    assert min(parts) < 0.05
    assert max(parts) > 0.6
    assert 0.2 < np.mean(parts) < 0.5


def test_erasing_fills_rectangles_with_noise_as_often_as_asked():
    images = jnp.full((400, 32, 24, 3), 3.0)
    erased = np.asarray(aug.erasing(jax.random.key(0), images, 0.25))
    filled = (erased != 3).any(-1)
    chosen = filled.any((1, 2))
    assert 0.17 < chosen.mean() < 0.33
    assert np.abs(erased[erased != 3]).max() <= 1
    assert np.abs(erased[erased != 3].mean()) < 0.02
    for mask in filled[chosen]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mask.sum() == len(rows) * len(columns)
    parts = filled[chosen].mean((1, 2))
    assert 0.005 < parts.min() < 0.08
    assert 0.25 < parts.max() < 0.4


def test_color_jitter_changes_colours_within_bounds():
    images = jnp.broadcast_to(jnp.array([0.0, -0.2, -0.4]), (300, 4, 4, 3))
    changed = np.asarray(aug.color_jitter(jax.random.key(0), images, 0.4))
    assert np.ptp(changed, axis=(1, 2)).max() < 1e-6  # A flat picture stays flat.
    light = (changed[:, 0, 0] + 1).mean(-1) / (images[0, 0, 0] + 1).mean()
    assert 0.58 < light.min() < 0.65
    assert 1.35 < light.max() < 1.42
    spread = np.ptp(changed[:, 0, 0], axis=-1) / light
    assert spread.min() < 0.4 * 0.75
    assert spread.max() > 0.4 * 1.25
    np.testing.assert_allclose(aug.color_jitter(jax.random.key(0), images, 0.0), images, atol=1e-6)


def test_mixup_and_cutmix_take_turns():
    rng = np.random.default_rng(0)
    images, targets = jnp.array(rng.uniform(-1, 1, (4, 6, 6, 1)), jnp.float32), jnp.eye(4)
    config = Augment(mixup=0.8, cutmix=1.0)
    step = jax.jit(lambda key: aug.augment(key, images, targets, config))
    kinds = []
    for seed in range(20):
        mixed = np.asarray(step(jax.random.key(seed))[0])
        whole = np.isclose(mixed, images) | np.isclose(mixed, np.roll(images, 1, 0))
        kinds.append(bool(whole.all()))
    assert 4 <= sum(kinds) <= 16


@pytest.mark.parametrize(
    "change",
    [{"flip": True}, {"shift": 1}, {"randaugment": (2, 9.0)}, {"color_jitter": 0.4}, {"erasing": 0.9}, {"mixup": 0.4}]
    + [{"cutmix": 1.0}],
    ids=str,
)
def test_each_key_turns_its_augmentation_on(change):
    images = jnp.array(np.random.default_rng(0).uniform(-1, 1, (8, 12, 12, 3)), jnp.float32)
    step = jax.jit(lambda key: aug.augment(key, images, jnp.eye(8), Augment(**change)))
    one, two, same = (np.asarray(step(jax.random.key(seed))[0]) for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, images)
    assert one.dtype == np.float32
    assert np.abs(one).max() <= 1


def test_augment_does_only_what_is_asked():
    images = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    same, unchanged = aug.augment(jax.random.key(0), jnp.array(images), jnp.array(targets), Augment())
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(unchanged, targets)
    assert normalise(jnp.array([[[[0]], [[255]]]], jnp.uint8)).ravel().tolist() == [-1, 1]
