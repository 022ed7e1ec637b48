"""Small built-in data sets: real handwritten digits, and random pictures."""

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import ArraySource
from vit_jax.errors import InputError


def open_digits(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> ArraySource:
    """Open scikit-learn's 1,797 handwritten digits, 8x8 gray: a fixed stratified split, 1,437 to train, 360 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    images = np.repeat(images, config.channels, axis=-1)
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    chosen = _choose({"train": (x_train, y_train), "test": (x_test, y_test)}, split, "digits")
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
