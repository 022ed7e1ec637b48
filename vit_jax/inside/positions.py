"""Which position embeddings are alike, and what a relative bias adds to the scores."""

import numpy as np
from jaxtyping import Float

from vit_jax.errors import InputError
from vit_jax.models import Backbone, BiT, Swin
from vit_jax.models.position import num_prefix


def position_similarity(model: Backbone) -> Float[np.ndarray, "layers rows columns rows columns"]:
    """Return the cosine similarity of any two patches' position embeddings (Dosovitskiy et al., 2021, figures 7, 10).

    s(i, j) = p_i . p_j / (|p_i| |p_j|), and 0 where one of them is zero. The class token and registers are left out.
    The first axis is 1 long unless each block has its own.

    Raises:
        InputError: the model has no position embeddings, or a relative bias in their place.
    """
    _check(model)
    if model.config.position == "relative":
        raise InputError(f"{model.config.name!r} has no position embeddings but a relative bias in attention")
    grid = model.grid(model.image_size)
    positions = np.asarray(model.position(grid), np.float64)[..., num_prefix(model.config) :, :]
    positions = positions.reshape(-1, *positions.shape[-2:])
    norms = np.linalg.norm(positions, axis=-1, keepdims=True)
    units = positions / np.where(norms > 0, norms, 1)
    return (units @ units.swapaxes(1, 2)).reshape(-1, *grid, *grid)


def relative_bias(model: Backbone) -> Float[np.ndarray, "layers heads offset_rows offset_columns"]:
    """Return what is added to attention scores, by the offset of the key from the query, zero at the centre.

    The first axis is 1 long unless each block has its own.

    Raises:
        InputError: the model has no relative bias.
    """
    _check(model)
    if model.config.position != "relative":
        raise InputError(f"{model.config.name!r} has position embeddings, and no relative bias")
    # The table is by the offset of the query from the key.
    table = np.asarray(model.position.bias[...], np.float64)[..., ::-1, ::-1, :]
    return np.moveaxis(table.reshape(-1, *table.shape[-3:]), -1, 1)


def similarity_by_place(similarity: Float[np.ndarray, "layers rows columns rows columns"]) -> dict[str, list[float]]:
    """Return the mean similarity of pairs of patches, one number for each layer; a kind without pairs is left out.

    Kinds are "neighbours", side by side in a row or column; "same row or column", the others of these; "elsewhere".
    """
    rows, columns = similarity.shape[1:3]
    row, column = np.divmod(np.arange(rows * columns), columns)
    apart = np.abs(row[:, None] - row), np.abs(column[:, None] - column)
    lined, near = (apart[0] == 0) ^ (apart[1] == 0), apart[0] + apart[1] == 1
    elsewhere = (apart[0] > 0) & (apart[1] > 0)
    kinds = {"neighbours": near, "same row or column": lined & ~near, "elsewhere": elsewhere}
    pairs = similarity.reshape(len(similarity), rows * columns, rows * columns)
    return {kind: pairs[:, chosen].mean(axis=1).tolist() for kind, chosen in kinds.items() if chosen.any()}


def _check(model: Backbone) -> None:
    if isinstance(model, BiT):
        raise InputError(f"{model.config.name!r} is a ResNet, which has no position embeddings")
    if isinstance(model, Swin):
        raise InputError(f"{model.config.name!r} has no position embeddings, but a bias in its windows")
    if model.position is None:
        raise InputError(f"{model.config.name!r} has no position embeddings: its position is 'none'")
