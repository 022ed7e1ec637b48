"""Principal components of the filters that meet the pixels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vit_jax.models import Backbone, BiT


class Components(NamedTuple):
    """Principal components of filters, the greatest share of their variance first.

    Attributes:
        filters: (number, rows, columns, channels), orthonormal; the largest entry of each is positive.
        shares: of the variance, in [0, 1].
    """

    filters: Float[np.ndarray, "number rows columns channels"]
    shares: Float[np.ndarray, " number"]


def first_kernel(model: Backbone) -> tuple[str, Float[np.ndarray, "rows columns channels filters"]]:
    """Return what meets the pixels, in words, and its kernel: the patch embedding, first convolution or ResNet's root.

    The kernel of a root has mean 0 and variance 1 over each filter, as it is applied.
    """
    if model.config.tokenizer is not None:
        return "first convolution", np.asarray(model.embedding.conv1.kernel[...], np.float64)
    if model.config.resnet is None:
        return "patch embedding", np.asarray(model.embedding.kernel[...], np.float64)
    resnet = model.resnet if isinstance(model, BiT) else model.embedding.resnet
    kernel = np.asarray(resnet.root.kernel[...], np.float64)
    kernel = kernel - kernel.mean(axis=(0, 1, 2))
    return "root of the ResNet", kernel / np.sqrt(np.square(kernel).mean(axis=(0, 1, 2)) + 1e-10)


def principal_components(kernel: Float[np.ndarray, "rows columns channels filters"], number: int = 28) -> Components:
    """Return the first principal components of a kernel's filters (Dosovitskiy et al., 2021, figure 7, left).

    With the filters as the rows of X and their mean subtracted, X = U S V': components are the rows of V', and the
    share of component i is S_i^2 / sum_j S_j^2.

    Args:
        number: at most; there are no more than filters, or than numbers in one.
    """
    rows = kernel.reshape(-1, kernel.shape[-1]).T
    _, scales, components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    components, variances = components[:number], np.square(scales)
    # A component is defined up to its sign.
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.where(largest < 0, -1, 1)
    total = variances.sum()
    return Components(components.reshape(-1, *kernel.shape[:3]), variances[:number] / (total if total > 0 else 1))
