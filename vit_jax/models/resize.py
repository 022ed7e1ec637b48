"""Weights for another resolution: grids of position embeddings and patch-embedding kernels, resampled."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Method = Literal["bilinear", "bilinear_sharp", "bicubic", "bicubic_sharp", "geometric"]


def resize_grid(
    grid: Float[Array, "rows columns dim"] | Float[np.ndarray, "rows columns dim"],
    new: tuple[int, int],
    method: Method = "bilinear",
) -> Float[Array, "new_rows new_columns dim"]:
    """Resample a grid of vectors to `new` (rows, columns).

    "bilinear" keeps the corners where they are, as the original ViT does (`scipy.ndimage.zoom` of order 1). "bicubic"
    is Keys' kernel with a = -1/2 between pixels' centres, widened when shrinking (antialiasing), as timm does by
    PyTorch's interpolation. "bicubic_sharp" has a = -3/4 and is never widened, as Transformers does; nor is
    "bilinear_sharp", linear between pixels' centres, as its BEiT does. "geometric" is BEiT's own for tables of offsets:
    linear between offsets that lie ever farther apart (Bao et al., 2022).
    """
    grid, (rows, columns) = jnp.asarray(grid), new
    if grid.shape[:2] == (rows, columns):
        return grid
    if method == "bicubic":
        return jax.image.resize(grid, (rows, columns, grid.shape[2]), "bicubic", antialias=True)
    matrix = {
        "bilinear": _corners_aligned,
        "bilinear_sharp": lambda old, new: _triangle(old, new, widened=False),
        "bicubic_sharp": _sharp,
        "geometric": _geometric,
    }[method]
    to_rows, to_columns = (jnp.asarray(matrix(*sides), grid.dtype) for sides in zip(grid.shape[:2], new, strict=True))
    # In full float32 everywhere: accelerators would otherwise multiply float32 matrices with fewer bits.
    return jnp.einsum("ir,jc,rcd->ijd", to_rows, to_columns, grid, precision="highest")


def resize_patch(
    kernel: Float[Array, "patch patch channels dim"] | Float[np.ndarray, "patch patch channels dim"], new_patch: int
) -> Float[Array, "new_patch new_patch channels dim"]:
    """Resample the kernel of a patch embedding by the pseudo-inverse resize of FlexiViT (Beyer et al., 2023).

    With B the bilinear resize (antialiased) of one patch, the result is pinv(B^T) w. When the patch grows, a patch
    resized by B has the embedding it had; when it shrinks, the nearest one there is, on average over white noise.
    """
    kernel = jnp.asarray(kernel)
    if kernel.shape[0] == new_patch:
        return kernel
    # B acts on rows and columns alike and so does its pseudo-inverse, which makes it two small products.
    inverse = jnp.asarray(np.linalg.pinv(_triangle(kernel.shape[0], new_patch).T), kernel.dtype)
    return jnp.einsum("ip,jq,pqcd->ijcd", inverse, inverse, kernel, precision="highest")


def _corners_aligned(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return the matrix of linear interpolation whose first and last points stay; a single new point is the first."""
    at = np.arange(new) * ((old - 1) / max(new - 1, 1))
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))


def _sharp(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return the matrix of Keys' cubic interpolation with a = -3/4; beyond the border its last point is repeated."""
    at = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for step in range(-1, 3):
        point = np.floor(at).astype(int) + step
        x = np.abs(at - point)
        near, far = (1.25 * x - 2.25) * x**2 + 1, -0.75 * (((x - 5) * x + 8) * x - 4)
        np.add.at(weights, (np.arange(new), np.clip(point, 0, old - 1)), np.where(x <= 1, near, far))
    return weights


def _geometric(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return the matrix of linear interpolation between offsets, zero in the middle, whose distances grow by a factor.

    The factor, from 1.01 to 1.5, is the one by which the outermost comes to lie nearest to the new outermost one.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        factor = (low + high) / 2
        far = (factor ** (old // 2) - 1) / (factor - 1) > new // 2
        low, high = (low, factor) if far else (factor, high)
    places = np.cumsum(factor ** np.arange(old // 2))
    places = np.concatenate([-places[::-1], [0], places])
    return np.stack([np.interp(np.arange(new) - new // 2, places, one) for one in np.eye(old)], axis=1)


def _triangle(old: int, new: int, *, widened: bool = True) -> Float[np.ndarray, "new old"]:
    """Return the matrix of linear interpolation between the centres of pixels; widened: when shrinking."""
    at = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)) * (min(1, new / old) if widened else 1))
    return weights / weights.sum(axis=1, keepdims=True)
