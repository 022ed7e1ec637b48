"""Weights for another resolution: grids of position embeddings and patch-embedding kernels, resampled."""

import types
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Method = Literal["bilinear", "bilinear_sharp", "bilinear_smooth", "bicubic", "bicubic_sharp", "geometric"]
Numbers = Float[Array, "..."] | Float[np.ndarray, "..."]


def resize_grid(
    grid: Float[Array, "rows columns dim"] | Float[np.ndarray, "rows columns dim"],
    new: tuple[int, int],
    method: Method = "bilinear",
) -> Float[Array, "new_rows new_columns dim"]:
    """Resample a grid of vectors to `new` (rows, columns).

    "bilinear" keeps the corners where they are, as the original ViT does (`scipy.ndimage.zoom` of order 1). "bicubic"
    is Keys' kernel with a = -1/2 between pixels' centres, widened when shrinking (antialiasing), as timm does by
    PyTorch's interpolation. "bicubic_sharp" has a = -3/4 and is never widened, as Transformers does. Linear between
    pixels' centres are "bilinear_smooth", widened when shrinking, as SigLIP 2 does for pictures of any shape, and
    "bilinear_sharp", never widened, as Transformers' BEiT. "geometric" is BEiT's own for tables of offsets: linear
    between offsets that lie ever farther apart (Bao et al., 2022).
    """
    grid, (rows, columns) = jnp.asarray(grid), new
    if grid.shape[:2] == (rows, columns):
        return grid
    to_rows, to_columns = (
        jnp.asarray(
            _geometric(old, new) if method == "geometric" else interpolation(np.arange(new), new, old, method),
            grid.dtype,
        )
        for old, new in zip(grid.shape[:2], new, strict=True)
    )
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
    bilinear = interpolation(np.arange(new_patch), new_patch, kernel.shape[0], "bilinear_smooth")
    inverse = jnp.asarray(np.linalg.pinv(bilinear.T), kernel.dtype)
    return jnp.einsum("ip,jq,pqcd->ijcd", inverse, inverse, kernel, precision="highest")


def interpolation(
    index: Int[Array, "*points"] | Int[np.ndarray, "*points"],
    new: Int[Array, "*points"] | Int[np.ndarray, "*points"] | int,
    old: int,
    method: Method,
) -> Float[Array, "*points old"] | Float[np.ndarray, "*points old"]:
    """Return how points of resized axes are made of the points of the old one.

    Args:
        index: the number of each point on its axis.
        new: how many points its axis has; it may be another for each.
    """
    # In double precision where it is known while tracing.
    xp = np if isinstance(index, np.ndarray) else jnp
    points = np.arange(old)
    if method == "bilinear":
        at = index * ((old - 1) / xp.maximum(new - 1, 1))
        return xp.maximum(0, 1 - xp.abs(at[..., None] - points))
    at = ((index + 0.5) * old / new - 0.5)[..., None]
    if method != "bicubic_sharp":
        x = xp.abs(at - points)
        x = x if method == "bilinear_sharp" else x / xp.maximum(old / xp.asarray(new), 1)[..., None]
        weights = _cubic(xp, x, -0.5) if method == "bicubic" else xp.maximum(0, 1 - x)
        return weights / weights.sum(-1, keepdims=True)
    # Beyond the border, the last point is repeated.
    around = xp.floor(at) + np.arange(-1, 3)
    taps = _cubic(xp, xp.abs(at - around), -0.75)
    return (taps[..., None] * (xp.clip(around, 0, old - 1)[..., None] == points)).sum(-2)


def _cubic(xp: types.ModuleType, x: Numbers, a: float) -> Numbers:
    """Return Keys' cubic kernel of a distance that is not negative."""
    near, far = ((a + 2) * x - (a + 3)) * x**2 + 1, a * (((x - 5) * x + 8) * x - 4)
    return xp.where(x <= 1, near, xp.where(x < 2, far, 0.0))


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
