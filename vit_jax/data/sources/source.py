"""What a source of pictures is: a length, a record at an index, the label names. And parts of one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from vit_jax.errors import InputError


class Record(NamedTuple):
    """One picture and what is known of it.

    Attributes:
        picture: decoded as uint8 (height, width, channels), a file, or the bytes of one.
        columns: by name: "label", an int; or "labels", uint8 (classes,), 1 for each class that it shows; and whatever
            else the source knows.
        identifier: tells it from all others of its split: a path, or a number.
    """

    picture: np.ndarray | Path | bytes
    columns: Mapping[str, Any]
    identifier: str


@runtime_checkable
class Source(Protocol):
    """A split of a data set.

    Attributes:
        label_names: the classes.
        columns: names of the columns that every record has.

    One that can be cut class by class also has `labels`, int32 (n,), which it may read when first asked; where pictures
    have several, uint8 (n, classes).
    """

    label_names: tuple[str, ...]
    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class ArraySource:
    """Pictures in memory: `images` uint8 (n, height, width, channels), `labels` int32 (n,) or uint8 (n, classes)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]):
        self.images, self.label_names = images, tuple(label_names)
        self.labels = labels.astype(np.int32 if labels.ndim == 1 else np.uint8)
        self.columns = (column_of(self.labels),)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        return Record(self.images[index], {self.columns[0]: self.labels[index]}, str(index))


class Subset:
    """The records of another source at some indices, in that order."""

    def __init__(self, source: Source, index: Int[np.ndarray, "n"]):
        self.source, self.index = source, index
        self.label_names, self.columns = source.label_names, source.columns
        if hasattr(source, "labels"):
            self.labels = source.labels[index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.index[index])]


def column_of(labels: Integer[np.ndarray, "n *classes"]) -> str:
    """Return the name of the column that holds such labels: one a picture, or several."""
    return "label" if labels.ndim == 1 else "labels"


def take(source: Source, index: Int[np.ndarray, "n"]) -> Source:
    """Return the source of the records at `index`; of pictures in memory, one in memory."""
    if isinstance(source, ArraySource):
        return ArraySource(source.images[index], source.labels[index], source.label_names)
    return Subset(source, index)


def stratified_order(labels: Integer[np.ndarray, "n *classes"], seed: int) -> Int[np.ndarray, "n"]:
    """Return an order of all records, any beginning of which holds the classes in their proportions.

    A beginning holds ceil(t n_c) pictures of a class of n_c, or one fewer, with the same t for every class; so no class
    is missing from one that is as long as there are classes. Within its class the order is drawn from (seed, class).
    Where pictures have several labels, it is a random order drawn from the seed.
    """
    if labels.ndim > 1:
        return np.random.default_rng(seed).permutation(len(labels))
    share = np.empty(len(labels))
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        share[np.random.default_rng((seed, int(label))).permutation(members)] = np.arange(len(members)) / len(members)
    return np.lexsort((labels, share))


def take_fraction(source: Source, fraction: float, seed: int) -> Source:
    """Return a part of a source, class by class: each smaller fraction of the same seed lies inside each larger.

    Raises:
        InputError: the part has fewer pictures than there are classes.
    """
    if fraction == 1:
        return source
    number, least = round(fraction * len(source)), len(source.label_names)
    if number < least:
        raise InputError(
            f"config.data.fraction={fraction}: is {number:,} of {len(source):,} pictures, but there are {least:,} "
            f"classes; take at least {least / len(source):.2g}"
        )
    return take(source, np.sort(stratified_order(source.labels, seed)[:number]))


def parse_split(text: str) -> tuple[str, str | None, str | None]:
    """Split "train[:99%]" into its name and the two ends of its slice.

    Raises:
        InputError: it is neither a name nor a name with a slice.
    """
    match = re.fullmatch(r"([^\[\]]+)(?:\[(-?[\d_]+%?)?:(-?[\d_]+%?)?\])?", text)
    if not match:
        raise InputError(f"split {text!r}: must be a name, or a name and a slice such as train[:99%] or train[50_000:]")
    return match[1], match[2], match[3]


def take_slice(source: Source, start: str | None, stop: str | None) -> Source:
    """Return the records between two ends, numbers or percentages, that count from the end where negative.

    It is cut in a fixed stratified order, for many a set is stored class by class: each part holds every class.

    Raises:
        InputError: nothing lies between the ends.
    """
    if start is None and stop is None:
        return source
    number = len(source)

    def position(text: str) -> int:
        value = round(int(text[:-1]) * number / 100) if text.endswith("%") else int(text)
        return min(max(value + number if text.startswith("-") else value, 0), number)

    chosen = stratified_order(source.labels, seed=0)[position(start or "0") : position(stop or "100%")]
    if not len(chosen):
        raise InputError(f"the slice [{start or ''}:{stop or ''}] of {number:,} pictures is empty")
    return take(source, np.sort(chosen))
