"""The interface of a source of pictures (length, records by index, label names), and ways to take parts of one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from vit_jax.errors import InputError


class Record(NamedTuple):
    """One picture and its columns.

    Attributes:
        picture: decoded uint8 (height, width, channels), a file, or the bytes of one.
        columns: values by name: "label", an int; or "labels", uint8 (classes,), 1 for each class in the picture; and
            any others that the source has.
        identifier: unique in its split: a path, or a number.
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

    A source that can be sliced also has `labels`, int32 (n,), or uint8 (n, classes) if pictures have several; it may
    load them on first access. It may have `lacks`, why it has no column of a name.
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
    """The records of another source at the given indices, in that order."""

    def __init__(self, source: Source, index: Int[np.ndarray, "n"]):
        self.source, self.index = source, index
        self.label_names, self.columns = source.label_names, source.columns
        self.lacks = getattr(source, "lacks", {})
        if hasattr(source, "labels"):
            self.labels = source.labels[index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.index[index])]


def column_of(labels: Integer[np.ndarray, "n *classes"]) -> str:
    """Return the column name of such labels: "label" for one per picture, "labels" for several."""
    return "label" if labels.ndim == 1 else "labels"


def take(source: Source, index: Int[np.ndarray, "n"]) -> Source:
    """Return a source of the records at `index`, in memory if the given one is."""
    if isinstance(source, ArraySource):
        return ArraySource(source.images[index], source.labels[index], source.label_names)
    return Subset(source, index)


def stratified_order(labels: Integer[np.ndarray, "n *classes"], seed: int) -> Int[np.ndarray, "n"]:
    """Return an order of all records in which every prefix has the classes in proportion.

    A prefix has ceil(t n_c) pictures of a class of n_c, or one fewer, with the same t for every class; so a prefix at
    least as long as the number of classes misses none. The order within a class is drawn from (seed, class). If
    pictures have several labels, the order is random, drawn from the seed.
    """
    if labels.ndim > 1:
        return np.random.default_rng(seed).permutation(len(labels))
    share = np.empty(len(labels))
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        share[np.random.default_rng((seed, int(label))).permutation(members)] = np.arange(len(members)) / len(members)
    return np.lexsort((labels, share))


def take_fraction(source: Source, fraction: float, seed: int) -> Source:
    """Return a stratified part of a source; with the same seed, a smaller fraction is a subset of a larger one.

    Raises:
        InputError: the part has no pictures, or fewer than there are classes.
    """
    if fraction == 1:
        return source
    number, classes = round(fraction * len(source)), len(source.label_names)
    least = max(classes, 1)
    if number < least:
        raise InputError(
            f"config.data.fraction={fraction}: is {number:,} of {len(source):,} pictures, but there are {classes:,} "
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
    """Return the records between two ends, numbers or percentages; negative ones count from the end.

    Slices a fixed stratified order, so that each part has every class even if the data is stored class by class.

    Raises:
        InputError: the slice is empty.
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
