"""A picture as a row of a batch: pixels of one shape, or the patches of its own shape and their grid."""

import math
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int, UInt8

from vit_jax.config import Config
from vit_jax.data import crop
from vit_jax.data.crop import Box, Choose
from vit_jax.data.decode import Resampling, Size, decode
from vit_jax.errors import InputError
from vit_jax.packing import cut_patches, fit_grid

GRID = {"grid": jax.ShapeDtypeStruct((2,), np.int32)}


def is_native(config: Config) -> bool:
    """Return whether pictures keep their own shapes."""
    return config.data.resize == "native"


def most_patches(config: Config) -> int:
    """Return how many patches a native picture has at most: those of the config's image size."""
    return math.prod(side // config.model.patch for side in config.height_width())


def picture_shape(config: Config) -> tuple[int, ...]:
    """Return the shape of a picture in a batch; native ones are (patches, patch, patch, channels)."""
    if not is_native(config):
        return *config.height_width(), config.channels
    return most_patches(config), config.model.patch, config.model.patch, config.channels


def extra_columns(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the columns of a batch that go with its pictures: "grid", rows and columns, of native ones."""
    return GRID if is_native(config) else {}


def sequence(config: Config) -> tuple[int, int]:
    """Return how many pictures share a training sequence, and its length over their number.

    Raises:
        InputError: a sequence is shorter than a picture, or can't hold a patch of each.
    """
    data, most = config.data, most_patches(config)
    if data.packing is None:
        return 1, most
    if data.packing < most:
        raise InputError(
            f"config.data.packing={data.packing}: shorter than a picture of {most} patches at image_size="
            f"{config.image_size}; make it longer, or the pictures smaller"
        )
    number = data.pictures or data.packing // most
    if data.packing < 2 * number:
        raise InputError(f"config.data.pictures={number}: too many for a sequence of {data.packing} patches")
    return number, min(data.packing // number, most)


def budgets(config: Config, step: int, first: int) -> Int[np.ndarray, " pictures"]:
    """Return how many patches each picture of a training sequence may have, determined by (seed, step, its number).

    Args:
        first: the row of the sequence's first picture in the global batch.
    """
    (number, share), most = sequence(config), most_patches(config)
    if share >= most:
        return np.full(number, most)
    weights = np.random.default_rng((config.seed, step, first)).uniform(0.5, 1.5, number)
    return np.clip(weights / weights.sum() * (number * share), 1, most).astype(int)


def native_size(config: Config, patches: int) -> Size:
    """Return what fits a part of a picture into so many patches."""

    def size(box: Box) -> tuple[int, int]:
        rows, columns = fit_grid(max(1, round(box.height)), max(1, round(box.width)), patches)
        return rows * config.model.patch, columns * config.model.patch

    return size


def decode_row(
    config: Config,
    picture: Path | bytes | np.ndarray,
    out: UInt8[np.ndarray, "..."],
    choose: Choose | None = None,
    fast: bool = False,
    patches: int | None = None,
) -> dict[str, np.ndarray]:
    """Write a picture into a row of a batch, and return its `extra_columns`; else as `decode`.

    Args:
        choose: None: as evaluation, prediction and exported models of the config do.
        patches: at most so many, of a native picture; None: `most_patches`.
    """
    choose, resampling = choose or crop.evaluation(config), Resampling.of(config)
    if not is_native(config):
        pixels = decode(picture, config.height_width(), config.channels, choose, fast, out, resampling)
        if not np.may_share_memory(pixels, out):
            out[...] = pixels
        return {}
    size = native_size(config, patches or most_patches(config))
    pixels = decode(picture, size, config.channels, choose, fast, resampling=resampling)
    cut = cut_patches(pixels, config.model.patch)
    out[: len(cut)], out[len(cut) :] = cut, 0
    return {"grid": np.array(pixels.shape[:2], np.int32) // config.model.patch}


def decode_as(config: Config, picture: Path | bytes | np.ndarray) -> np.ndarray:
    """Return a picture as evaluation, prediction and exported models of a config take it; else as `decode`."""
    image = np.empty(picture_shape(config), np.uint8)
    decode_row(config, picture, image)
    return image


def join(images: UInt8[np.ndarray, "rows ..."], grids: Int[np.ndarray, "rows 2"], config: Config) -> np.ndarray:
    """Return the rows with the patches of every training sequence one after the other; each row has its share."""
    number, share = sequence(config)
    if number == 1:
        return images
    joined = np.zeros((len(images) // number, number * share, *images.shape[2:]), np.uint8)
    counts = grids.prod(axis=1)
    for i, row in enumerate(joined):
        rows = range(i * number, (i + 1) * number)
        patches = np.concatenate([images[j, : counts[j]] for j in rows])
        row[: len(patches)] = patches
    return joined.reshape(len(images), share, *images.shape[2:])
