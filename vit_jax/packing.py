"""Pictures of many shapes in one batch: sequences of patches (Dehghani et al., 2023; Tschannen et al., 2025)."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Shaped

from vit_jax.errors import InputError


class Packed(NamedTuple):
    """Pictures as sequences of patches; a model takes it in place of an array of pictures.

    Attributes:
        patches: of each sequence those of its pictures, one picture after the other and each row by row; uint8 from 0
            to 255, or floats as the weights expect. What comes after the last picture is not seen.
        grids: rows and columns of each picture; (0, 0) stands for no picture.
    """

    patches: Shaped[Array | np.ndarray, "sequences length patch patch channels"]
    grids: Int[Array | np.ndarray, "sequences pictures 2"]


@functools.lru_cache(4096)
def fit_grid(height: int, width: int, patches: int) -> tuple[int, int]:
    """Return the rows and columns of patches that a picture of any size is resized to, in its own aspect ratio.

    The picture is scaled, up or down, as far as it has at most so many patches; then each side is rounded up to whole
    ones. As Tschannen et al. (2025, SigLIP 2) resize for NaFlex.
    """
    best = (0, 1)  # of all scales that make `rows` or `columns` whole, the largest, as a fraction of integers
    for rows in range(1, patches + 1):
        columns = patches // rows
        scale = (rows, height) if rows * width <= columns * height else (columns, width)
        if scale[0] * best[1] > best[0] * scale[1]:
            best = scale
    rows, columns = (-(-side * best[0] // best[1]) for side in (height, width))
    return max(rows, 1), max(columns, 1)


def cut_patches(
    picture: Shaped[np.ndarray, "height width channels"], patch: int
) -> Shaped[np.ndarray, "patches patch patch channels"]:
    """Return the patches of a picture, row by row."""
    height, width, channels = picture.shape
    cut = picture.reshape(height // patch, patch, width // patch, patch, channels)
    return cut.swapaxes(1, 2).reshape(-1, patch, patch, channels)


def pack(
    pictures: Sequence[Shaped[np.ndarray, "_ _ channels"]], patch: int, length: int
) -> tuple[Packed, Int[np.ndarray, " pictures"]]:
    """Return pictures of any shapes in as few sequences as first-fit-decreasing finds, and where each of them is.

    Args:
        pictures: uint8 or normalised floats; sides are multiples of `patch`.
        length: patches in a sequence.

    Returns:
        The packed pictures, and for each picture its row among what a model returns: `model(packed)[rows]`.

    Raises:
        InputError: there are no pictures, the patch does not divide one, or one has more patches than a sequence.
    """
    if not pictures:
        raise InputError("pack: there are no pictures")
    for i, picture in enumerate(pictures):
        height, width, _ = picture.shape
        if height % patch or width % patch or not picture.size:
            raise InputError(f"pack: picture {i} is {height}x{width}, which the patch size {patch} does not divide")
        if (number := height * width // patch**2) > length:
            raise InputError(f"pack: picture {i} has {number} patches, but a sequence {length}")
    cut = [cut_patches(picture, patch) for picture in pictures]
    sequences: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(cut)), key=lambda i: (-len(cut[i]), i)):
        place = next((j for j, room in enumerate(free) if room >= len(cut[i])), len(free))
        if place == len(free):
            sequences.append([])
            free.append(length)
        sequences[place].append(i)
        free[place] -= len(cut[i])
    most = max(map(len, sequences))
    patches = np.zeros((len(sequences), length, *cut[0].shape[1:]), cut[0].dtype)
    grids = np.zeros((len(sequences), most, 2), np.int32)
    rows = np.zeros(len(pictures), int)
    for j, members in enumerate(sequences):
        joined = np.concatenate([cut[i] for i in members])
        patches[j, : len(joined)] = joined
        for place, i in enumerate(members):
            grids[j, place] = np.array(pictures[i].shape[:2]) // patch
            rows[i] = j * most + place
    return Packed(patches, grids), rows


def as_sequences(
    slots: Shaped[jax.Array, "pictures share patch patch channels"], grids: Int[jax.Array, "pictures 2"], number: int
) -> Packed:
    """Return the packed pictures of a batch that has a row for each picture, `number` rows to a sequence."""
    sequences = len(slots) // number
    patches = slots.reshape(sequences, number * slots.shape[1], *slots.shape[2:])
    return Packed(patches, grids.reshape(sequences, number, 2))


def pictures_of(batch: dict[str, jax.Array]) -> jax.Array | Packed:
    """Return the pictures of a batch for evaluation, as a model takes them: native ones are a sequence each."""
    return as_sequences(batch["image"], batch["grid"], 1) if "grid" in batch else batch["image"]
