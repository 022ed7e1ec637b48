"""Crops: boxes in the pixels of the upright picture, chosen from its size alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vit_jax.config import Config


class Box(NamedTuple):
    """A part of a picture, in pixels from its top left corner; it may start and end within a pixel.

    A box that is larger than the picture, about the same center, stands for the whole picture and bars beside it.
    """

    top: float
    left: float
    height: float
    width: float


# Maps the height and width of a picture to the part that is used.
Choose = Callable[[int, int], Box]


def evaluation(config: Config) -> Choose:
    """Return what evaluation, prediction and exported models use of a picture, by `config.data.resize`."""
    image_size = config.height_width()
    if config.data.resize == "crop":
        return central(image_size, config.data.crop_fraction)
    return padded(image_size) if config.data.resize == "pad" else whole  # also what is left in its own shape


def whole(height: int, width: int) -> Box:
    """Return the whole picture, whose aspect ratio changes when it is resized to the model's."""
    return Box(0, 0, height, width)


def padded(image_size: tuple[int, int]) -> Choose:
    """Return the smallest box with the model's aspect ratio around the whole picture."""

    def choose(height: int, width: int) -> Box:
        if height / image_size[0] >= width / image_size[1]:
            box_height, box_width = height, image_size[1] * height / image_size[0]
        else:
            box_height, box_width = image_size[0] * width / image_size[1], width
        return Box((height - box_height) / 2, (width - box_width) / 2, box_height, box_width)

    return choose


def central(image_size: tuple[int, int], fraction: float) -> Choose:
    """Return the central crop: `fraction` of the largest central box with the model's aspect ratio.

    Equivalent to the usual resize of the shorter side to the model's size / `fraction`, then a center crop (256 to
    224 pixels). A picture that already has the model's size is used whole.
    """

    def choose(height: int, width: int) -> Box:
        if (height, width) == image_size:
            return Box(0, 0, height, width)
        box_height, box_width = _cover(height, width, image_size, fraction)
        return Box((height - box_height) / 2, (width - box_width) / 2, box_height, box_width)

    return choose


def training(config: Config, epoch: int, index: int) -> Choose:
    """Return the crop of a training picture, determined by (seed, epoch, index) and the picture's size alone."""
    if config.data.crop == "central":
        return evaluation(config)
    rng = np.random.default_rng((config.seed, epoch, index))
    if config.data.crop == "random":
        return lambda height, width: _random(rng, height, width, config.height_width(), config.data.crop_fraction)
    return lambda height, width: _random_resized(rng, height, width, config.data.crop_scale, config.data.crop_ratio)


def _cover(height: int, width: int, image_size: tuple[int, int], fraction: float) -> tuple[float, float]:
    scale = min(height / image_size[0], width / image_size[1]) * fraction
    return image_size[0] * scale, image_size[1] * scale


def _random(rng: np.random.Generator, height: int, width: int, image_size: tuple[int, int], fraction: float) -> Box:
    box_height, box_width = (max(1, round(side)) for side in _cover(height, width, image_size, fraction))
    top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
    return Box(int(top), int(left), box_height, box_width)


def _random_resized(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    # Szegedy et al. (2015): try ten areas and aspect ratios, else take the largest central box with an allowed ratio.
    low, high = math.log(ratio[0]), math.log(ratio[1])
    draws = rng.random(40).tolist()  # Drawn all at once: each call costs as much as a whole try.
    for area, shape, y, x in zip(draws[::4], draws[1::4], draws[2::4], draws[3::4], strict=True):
        area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
        shape = math.exp(low + (high - low) * shape)
        box_height, box_width = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = int(y * (height - box_height + 1)), int(x * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height = min(height, math.ceil(width / ratio[0]))
    box_width = min(width, math.ceil(height * ratio[1]))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
