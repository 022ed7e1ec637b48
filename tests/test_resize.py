"""Resampling of weights, compared with the original's results and with independent references."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vit_jax.models.resize import resize_grid, resize_patch

FIGURES = pathlib.Path(__file__).parent / "data" / "resize.npz"


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def bilinear_corners(grid, new):
    """Interpolate point by point, in float64."""
    rows, columns, dim = grid.shape
    out = np.zeros((*new, dim))
    for i, j in itertools.product(*map(range, new)):
        y, x = i * (rows - 1) / max(new[0] - 1, 1), j * (columns - 1) / max(new[1] - 1, 1)
        top, left = min(int(y), max(rows - 2, 0)), min(int(x), max(columns - 2, 0))
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        upper = grid[top, left] * (1 - (x - left)) + grid[top, right] * (x - left)
        lower = grid[bottom, left] * (1 - (x - left)) + grid[bottom, right] * (x - left)
        out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def pillow(image, new, how):
    """Resize a float image of (rows, columns) with antialiasing."""
    return np.asarray(Image.fromarray(image).resize(new[::-1], how))


@pytest.mark.parametrize(("case", "num_prefix"), [("vit_token", 1), ("vit_gap", 0)])
def test_positions_are_those_of_the_original(case, num_prefix):
    with np.load(FIGURES) as figures:
        old, expected = figures[f"{case}/pos_embedding"][0], figures[f"{case}/resized_pos_embedding"][0]
    grid = resize_grid(old[num_prefix:].reshape(4, 4, -1), (6, 6))
    actual = np.concatenate([old[:num_prefix], np.asarray(grid).reshape(36, -1)])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"), [((14, 14), (10, 20)), ((7, 5), (3, 11)), ((3, 4), (24, 24)), ((4, 6), (1, 1)), ((1, 1), (3, 2))]
)
def test_bilinear_is_interpolation_with_the_corners_kept(old, new):
    grid = random(*old, 3)
    actual = resize_grid(grid, new)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, bilinear_corners(grid, new), rtol=0, atol=1e-6)
    if min(new) > 1:
        np.testing.assert_allclose(
            actual[[0, 0, -1, -1], [0, -1, 0, -1]], grid[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6
        )


@pytest.mark.parametrize(
    ("old", "new"), [((14, 14), (24, 24)), ((14, 14), (10, 20)), ((12, 9), (4, 5)), ((2, 3), (7, 7))]
)
def test_bicubic_is_pillows(old, new):
    grid = random(*old, 3)
    expected = np.stack([pillow(grid[..., channel].copy(), new, Image.Resampling.BICUBIC) for channel in range(3)], -1)
    np.testing.assert_allclose(resize_grid(grid, new, "bicubic"), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_the_same_size_changes_no_bit(method):
    grid = random(5, 4, 3)
    np.testing.assert_array_equal(resize_grid(grid, (5, 4), method), grid)
    np.testing.assert_array_equal(resize_patch(grid.reshape(1, 1, 5, 12), 1), grid.reshape(1, 1, 5, 12))


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_jitted_and_differentiated_as_a_linear_map(method):
    grid = random(3, 4, 2)
    resize = functools.partial(resize_grid, new=(5, 6), method=method)
    np.testing.assert_allclose(jax.jit(resize)(grid), resize(grid), atol=1e-6)
    # Every row of weights sums to one, so the gradient of the sum sums to the number of outputs.
    gradient = jax.grad(lambda grid: resize(grid).sum())(jnp.asarray(grid))
    np.testing.assert_allclose(float(gradient.sum()), 5 * 6 * 2, rtol=1e-5)


def embed(patches, kernel):
    return np.einsum("npqc,pqcd->nd", patches.astype(np.float64), np.asarray(kernel, np.float64))


def resize_patches(patches, new):
    """Resize each patch separately, bilinearly with antialiasing."""
    rows = [
        [pillow(patch[..., c].copy(), (new, new), Image.Resampling.BILINEAR) for c in range(3)] for patch in patches
    ]
    return np.moveaxis(np.array(rows), 1, -1)


@pytest.mark.parametrize(("old", "new"), [(16, 32), (16, 17), (16, 48), (8, 14)])
def test_a_grown_patch_keeps_its_embedding(old, new):
    patches, kernel = random(4, old, old, 3), random(old, old, 3, 10)
    expected = embed(patches, kernel)
    actual = embed(resize_patches(patches, new), resize_patch(kernel, new))
    assert np.linalg.norm(actual - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 14), (32, 16), (16, 32)])
def test_the_new_kernel_is_the_least_squares_solution(old, new):
    # Column k of the whole matrix B is the resized k-th unit patch; the paper's problem is min |B^T v - w| over v.
    units = jnp.eye(old * old).reshape(old, old, -1)
    matrix = np.asarray(jax.image.resize(units, (new, new, old * old), "bilinear"), np.float64).reshape(new * new, -1)
    kernel = random(old, old, 1, 2)
    expected = np.linalg.lstsq(matrix.T, kernel.reshape(old * old, 2).astype(np.float64), rcond=None)[0]
    actual = np.asarray(resize_patch(kernel, new)).reshape(new * new, 2)
    assert np.linalg.norm(actual - expected) < 1e-4 * np.linalg.norm(expected)


def test_a_patch_is_resized_inside_jit():
    kernel = random(16, 16, 3, 8)
    for new in (8, 14, 32):
        jitted = jax.jit(resize_patch, static_argnums=1)(kernel, new)
        assert jitted.shape == (new, new, 3, 8)
        np.testing.assert_allclose(jitted, resize_patch(kernel, new), rtol=1e-4, atol=1e-5)
