"""Batches as a function of the step: (seed, step) alone determines the pictures of a global batch and their crops.

Each host reads only the rows of the global batch that its devices need, for any number of hosts. Resuming at step k
starts the sequence at k. An unreadable picture is replaced by the next good one in the order of its epoch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grain
import jax
import numpy as np

from vit_jax.config import Config
from vit_jax.data import crop
from vit_jax.data.bad import BadPictures
from vit_jax.data.decode import BadPictureError
from vit_jax.data.order import Epoch, make_order
from vit_jax.data.rows import (
    budgets,
    decode_row,
    extra_columns,
    is_native,
    join,
    most_patches,
    picture_shape,
    sequence,
)
from vit_jax.data.sources.source import ArraySource, Source, column_of
from vit_jax.errors import InputError

Batch = dict[str, np.ndarray]
# Shape and dtype of one record's value, by column name.
Columns = Mapping[str, jax.ShapeDtypeStruct]
T = TypeVar("T")

LABEL = {"label": jax.ShapeDtypeStruct((), np.int32)}


class DecodedSource(ArraySource):
    """A split in memory at the model's size.

    Attributes:
        values: columns by name, each an array with one row per picture.
        bad: why a picture could not be read, by index.
    """

    def __init__(self, images: np.ndarray, values: dict[str, np.ndarray], source: Source, bad: dict[int, str]):
        self.images, self.values, self.bad = images, values, bad
        self.label_names, self.columns = source.label_names, tuple(values)
        read = [values[name] for name in ("label", "labels") if name in values]
        self.labels = read[0] if read else source.labels


def prepare(
    source: Source,
    config: Config,
    bad: BadPictures | None = None,
    train: bool = False,
    columns: Columns = LABEL,
) -> Source:
    """Decode a split once and keep it in memory, with the given columns, if it fits in `config.data.cache_mb`.

    A split for training with random crops, or native pictures of random sizes, is returned unchanged.

    Raises:
        InputError: a column is missing, or too many pictures can't be read.
    """
    shape = picture_shape(config)
    check_columns(source, columns)
    if train and config.data.balance == "classes" and "label" not in columns:
        raise InputError(f"config.data.balance='classes': needs one label per picture, not task {config.task!r}")
    if train and (config.data.crop != "central" or (is_native(config) and sequence(config)[1] < most_patches(config))):
        return source
    columns = {**columns, **extra_columns(config)}
    if isinstance(source, ArraySource) and source.images.shape[1:] == shape:
        return DecodedSource(source.images, {column_of(source.labels): source.labels}, source, {})
    if len(source) * np.prod(shape) > config.data.cache_mb * 2**20:
        return source
    bad = bad or BadPictures(len(source), config.data.max_bad)
    images = np.zeros((len(source), *shape), np.uint8)
    values = _empty(columns, len(source))
    found = {}

    def read(index: int) -> None:
        try:
            _read(source, index, config, images[index], values, index)
        except BadPictureError as error:
            found[index] = str(error)

    with ThreadPoolExecutor(config.data.threads) as pool:
        for _ in pool.map(read, range(len(source)), chunksize=64):
            pass
    bad.report(found)
    return DecodedSource(images, values, source, found)


def check_columns(source: Source, columns: Columns) -> None:
    """Raise an `InputError` if a source lacks columns that the task needs."""
    for name in columns:
        if name not in source.columns:
            why = getattr(source, "lacks", {}).get(name)
            raise InputError(
                f"the task needs {name!r} for every picture, but the data has {', '.join(source.columns) or 'none'}"
                f"{f' ({why})' if why else ''}; "
                "config.task says what a model is trained for: classification needs one label per picture"
            )


def train_batches(
    source: Source,
    config: Config,
    rows: np.ndarray,
    first: int,
    last: int,
    bad: BadPictures | None = None,
    columns: Columns = LABEL,
) -> Iterator[Batch]:
    """Yield the given rows of the batches of steps `first` to `last` (exclusive): uint8 "image" and the columns.

    The pictures of an epoch and their order are those of `make_order`; a batch may span two epochs. "replaced" is 1 for
    rows whose picture could not be read. Of native pictures, see `vit_jax.data.rows`, "grid" has rows and columns of
    patches, and "image" those of each sequence, one picture after the other.

    Raises:
        InputError: too many pictures can't be read.
    """
    number, columns = len(source), {**columns, **extra_columns(config)}
    bad = bad or BadPictures(number, config.data.max_bad)
    order = make_order(source, config)

    def read(position: int, batch: Batch, values: Batch, row: int, most: int | None, found: dict[int, str]) -> None:
        # Read the picture at a position in the endless sequence of epochs, or the next good one of the same epoch.
        epoch, place = divmod(position, number)
        for step in range(number):
            index, visit = (int(column[(place + step) % number]) for column in order(epoch))
            choose = crop.training(config, visit, index)
            try:
                how = dict(choose=choose, fast=config.data.crop != "central", patches=most)
                _read(source, index, config, batch["image"][row], values, row, **how)
                batch["replaced"][row] = step > 0
                return
            except BadPictureError as error:
                found[index] = str(error)
                bad.check(found)
        raise AssertionError("a split with only bad pictures passed the check")

    def batch_at(step: int) -> tuple[Batch, dict[int, str]]:
        position, found = int(step) * config.batch + rows, {}
        if isinstance(source, DecodedSource):
            index, replaced = _replace(position, order, source)
            values = {name: source.values[name][index] for name in columns}
            return joined({"image": source.images[index], **values, "replaced": replaced}), found
        values = _empty(columns, len(rows))
        images = np.empty((len(rows), *picture_shape(config)), np.uint8)
        batch = {"image": images, **values, "replaced": np.zeros(len(rows), np.int32)}
        most = _most(config, int(step), rows)
        try:
            for row, place in enumerate(position):
                read(int(place), batch, values, row, most[row], found)
        except InputError:  # Too many: raised again in the consumer, because Grain would add to the message here.
            return {}, found
        return joined(batch), found

    def joined(batch: Batch) -> Batch:
        return batch | {"image": join(batch["image"], batch["grid"], config)} if is_native(config) else batch

    return _stream(batch_at, first, last, _threads(source, config), bad)


def eval_batches(
    source: Source, config: Config, rows: np.ndarray, bad: BadPictures | None = None, columns: Columns = LABEL
) -> Iterator[Batch]:
    """Yield every picture exactly once, in order, with its columns.

    "mask" is 0 for rows that pad the last batch, and for pictures that can't be read.

    Raises:
        InputError: too many pictures can't be read.
    """
    number, columns = len(source), {**columns, **extra_columns(config)}

    def read(index: int, image: np.ndarray, values: Batch, row: int, found: dict[int, str]) -> bool:
        try:
            _read(source, index, config, image, values, row)
        except BadPictureError as error:
            found[index] = str(error)
        return index not in found

    def batch_at(step: int) -> tuple[Batch, dict[int, str]]:
        index, found = int(step) * config.batch + rows, {}
        inside, index = index < number, np.minimum(index, number - 1)
        if isinstance(source, DecodedSource):
            batch = {"image": source.images[index]} | {name: source.values[name][index] for name in columns}
            good = ~np.isin(index, list(source.bad))
        else:
            images, values = np.zeros((len(rows), *picture_shape(config)), np.uint8), _empty(columns, len(rows))
            good = [read(int(i), images[row], values, row, found) for row, i in enumerate(index)]
            batch = {"image": images, **values}
        return {**batch, "mask": (inside & good).astype(np.float32)}, found

    steps = -(-number // config.batch)
    return _stream(batch_at, 0, steps, _threads(source, config), bad or BadPictures(number, config.data.max_bad))


def ahead(batches: Iterable[T], number: int = 1) -> Iterator[T]:
    """Yield from `batches`, drawn `number` items ahead, so that the next batch is copied while a step computes."""
    waiting = []
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > number:
            yield waiting.pop(0)
    yield from waiting


def _empty(columns: Columns, number: int) -> Batch:
    return {name: np.zeros((number, *column.shape), column.dtype) for name, column in columns.items()}


def _read(source: Source, index: int, config: Config, out: np.ndarray, values: Batch, row: int, **how) -> None:
    # Write the decoded picture to `out`, and its columns to a row of `values`; `how` is what `decode_row` takes.
    picture, columns, identifier = source[index]
    try:
        columns = {**columns, **decode_row(config, picture, out, **how)}
    except BadPictureError as error:
        raise error if isinstance(picture, Path) else BadPictureError(f"record {identifier}: {error}") from error
    for name, array in values.items():
        array[row] = columns[name]


def _most(config: Config, step: int, rows: np.ndarray) -> list[int | None]:
    # How many patches each native picture of a batch may have.
    if not is_native(config):
        return [None] * len(rows)
    number = sequence(config)[0]
    return np.concatenate([budgets(config, step, int(first)) for first in rows[::number]]).tolist()


def _replace(
    position: np.ndarray, order: Callable[[int], Epoch], source: DecodedSource
) -> tuple[np.ndarray, np.ndarray]:
    # Return the index of the picture at each position, and 1 where it is the next good one of the epoch instead.
    epochs, places = np.divmod(position, len(source))
    index, replaced = np.empty_like(position), np.zeros(len(position), np.int32)
    for epoch in np.unique(epochs):
        index[epochs == epoch] = order(int(epoch)).index[places[epochs == epoch]]
    for row in np.flatnonzero(np.isin(index, list(source.bad))) if source.bad else ():
        later = np.roll(order(int(epochs[row])).index, -places[row])
        index[row], replaced[row] = next(i for i in later if int(i) not in source.bad), 1
    return index, replaced


def _threads(source: Source, config: Config) -> int:
    # For data in memory, one thread is fastest and leaves the most CPU to a step on the same cores.
    return 1 if isinstance(source, DecodedSource) else config.data.threads


def _stream(
    batch_at: Callable[[int], tuple[Batch, dict[int, str]]], first: int, last: int, threads: int, bad: BadPictures
) -> Iterator[Batch]:
    steps = grain.MapDataset.range(first, last).map(batch_at)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    for batch, found in steps.to_iter_dataset(options):
        bad.report(found)
        yield batch
