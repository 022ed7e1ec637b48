"""Where pictures come from. Every source has the same three facts: a length, a record at an index, the label names."""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from vit_jax.config import Config
from vit_jax.errors import InputError, nearest


class Record(NamedTuple):
    """One picture: a decoded uint8 array (height, width, channels) or the file that holds it, and its class."""

    picture: np.ndarray | Path
    label: int


@runtime_checkable
class Source(Protocol):
    """A split of a data set."""

    label_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class ArraySource:
    """Pictures in memory: `images` uint8 (n, height, width, channels), `labels` int (n,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]):
        self.images, self.labels, self.label_names = images, labels.astype(np.int32), tuple(label_names)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        return Record(self.images[index], int(self.labels[index]))


class FolderSource:
    """A folder of class folders of pictures."""

    def __init__(self, files: list[Path], labels: np.ndarray, label_names: tuple[str, ...]):
        self.files, self.labels, self.label_names = files, labels.astype(np.int32), tuple(label_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        return Record(self.files[index], int(self.labels[index]))


PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def open_folder(config: Config) -> dict[str, Source]:
    """Read `{train,test}/<class>/*.jpg|png`; the classes are the training split's folders, in order of name.

    Raises:
        InputError: a folder is missing or has no pictures, or a class is known to one split alone.
    """
    if config.data.path is None:
        raise InputError("config.data.path is not set: the folder that holds the splits, --config.data.path=DIR")
    root = Path(config.data.path)
    train = _scan_split(root / config.data.train, label_names=None)
    return {"train": train, "val": _scan_split(root / config.data.val, train.label_names)}


def _scan_split(folder: Path, label_names: tuple[str, ...] | None) -> FolderSource:
    if not folder.is_dir():
        raise InputError(
            f"data folder {str(folder)!r} does not exist; expected SPLIT/CLASS/*.jpg below config.data.path"
        )
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    names = label_names or tuple(classes)
    files, labels = [], []
    for name in classes:
        if name not in names:
            raise InputError(f"class folder {str(folder / name)!r} has no counterpart in the training split")
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        files += found
        labels += [names.index(name)] * len(found)
    if not files:
        raise InputError(f"data folder {str(folder)!r} has no pictures; expected CLASS/*.jpg or *.png in it")
    return FolderSource(files, np.array(labels), names)


def open_digits(config: Config) -> dict[str, Source]:
    """The 1,797 handwritten digits of scikit-learn, 8x8 grey: a fixed stratified split, 1,437 to train, 360 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    images = np.repeat(images, config.channels, axis=-1)
    names = tuple(str(digit) for digit in range(10))
    x_train, x_val, y_train, y_val = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    return {"train": ArraySource(x_train, y_train, names), "val": ArraySource(x_val, y_val, names)}


def open_synthetic(config: Config) -> dict[str, Source]:
    """Random pictures of 10 classes, each class a colour pattern under noise: to try a set-up with nothing at hand."""
    shape = (*config.height_width(), config.channels)
    patterns = np.random.default_rng(0).integers(64, 192, (10, *shape))

    def draw(seed: int, number: int) -> ArraySource:
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(number) % 10)
        images = patterns[labels] + rng.integers(-64, 64, (number, *shape))
        return ArraySource(images.astype(np.uint8), labels, tuple(f"class {label}" for label in range(10)))

    return {"train": draw(1, 1000), "val": draw(2, 200)}


# To add a source: a function from a config to its splits, and a line here.
SOURCES = {"digits": open_digits, "folder": open_folder, "synthetic": open_synthetic}


def open_sources(config: Config) -> dict[str, Source]:
    """Return {"train": ..., "val": ...} of the source that `config.data.name` chooses."""
    if config.data.name not in SOURCES:
        raise InputError(f"config.data.name={config.data.name!r}: {nearest(config.data.name, SOURCES)}")
    return SOURCES[config.data.name](config)
