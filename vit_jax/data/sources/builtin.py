"""Small built-in data sets: real handwritten digits, and random pictures."""

from pathlib import Path

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import ArraySource
from vit_jax.errors import InputError


def open_digits(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> ArraySource:
    """Open 1,797 handwritten digits, 8x8 gray: a fixed stratified split, 1,437 to train and then 360 to test.

    They are those of scikit-learn, the test set of Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI,
    1998, CC BY 4.0), in a file of our own: importing scikit-learn takes longer than to read them.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"].astype(np.int64)
    images = np.repeat(np.round(images * (255 / 16)).astype(np.uint8)[..., None], config.channels, axis=-1)
    parts = {"train": slice(1437), "test": slice(1437, None)}
    chosen = _choose({name: (images[part], labels[part]) for name, part in parts.items()}, split, "digits")
    return ArraySource(*chosen, tuple(str(digit) for digit in range(10)))


def open_synthetic(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> ArraySource:
    """Open random pictures of 10 classes, each a color pattern under noise, to try a setup without any data."""
    seed, number = _choose({"train": (1, 1000), "test": (2, 200)}, split, "synthetic")
    shape = (*config.height_width(), config.channels)
    patterns = np.random.default_rng(0).integers(64, 192, (10, *shape))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(number) % 10)
    images = patterns[labels] + rng.integers(-64, 64, (number, *shape))
    return ArraySource(images.astype(np.uint8), labels, tuple(f"class {label}" for label in range(10)))


def _choose(splits: dict[str, tuple], split: str, name: str) -> tuple:
    if split not in splits:
        raise InputError(f"source {name!r} has no split {split!r}; there is {' and '.join(splits)}")
    return splits[split]
