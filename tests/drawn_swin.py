"""Swins whose weights are drawn by the names of their arrays, so that every code base can have the same."""

import zlib
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    width: int
    num_heads: int
    swin: tuple[int, ...]
    classes: int


TINY, SMALL = Shape(96, 3, (2, 2, 6, 2), 10), Shape(16, 2, (2, 2), 5)
# Code base, pixels, window. At 216 windows of 6 divide no map but the first, and the third has an odd side. timm shifts
# such maps before it pads them, unlike the original. At 32 the window is larger than the second map: timm's alone.
CASES = {
    "timm 224": ("timm", 224, 7, TINY),
    "timm 256": ("timm", 256, 8, TINY),
    "timm small": ("timm", 32, 8, SMALL),
    "huggingface 224": ("huggingface", 224, 7, TINY),
    "huggingface 216": ("huggingface", 216, 6, TINY),
    "huggingface small": ("huggingface", 36, 4, SMALL),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array: scales of norms near 1, the rest near 0."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=tuple(shape)).astype(np.float32)
    scale = len(shape) == 1 and name.endswith("weight")
    return 1 + 0.1 * values if scale else values * (0.3 if "bias" in name else 0.05)


def pictures(size: int) -> np.ndarray:
    """Return two pictures (2, size, size, 3), normalised."""
    return np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
