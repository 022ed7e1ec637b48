"""Batches as a function of the step: (seed, step) alone decides which pictures a global batch holds.

A host reads the rows of the global batch that its devices need, whatever the number of hosts, and resuming at step k
begins the sequence at k.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np

from vit_jax.config import Config
from vit_jax.data.decode import decode
from vit_jax.data.sources import ArraySource, Source

Batch = dict[str, np.ndarray]


def prepare(source: Source, config: Config) -> Source:
    """Decode a split once and hold it in memory if it is no larger than `config.data.cache_mb`.

    Raises:
        InputError: a picture can't be decoded.
    """
    shape = (*config.height_width(), config.channels)
    if len(source) * np.prod(shape) > config.data.cache_mb * 2**20:
        return source
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)

    def read(index: int) -> None:
        picture, labels[index] = source[index]
        images[index] = decode(picture, shape[:2], shape[2])

    with ThreadPoolExecutor(config.data.threads) as pool:
        for _ in pool.map(read, range(len(source)), chunksize=64):
            pass
    return ArraySource(images, labels, source.label_names)


def train_batches(source: Source, config: Config, rows: np.ndarray, first: int, last: int) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last` (exclusive): "image" uint8 and "label" int32 of the given rows.

    Each epoch visits every picture once, in an order drawn from (seed, epoch); a batch may span two epochs.
    """
    number = len(source)

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((config.seed, epoch)).permutation(number)

    def batch_at(step: int) -> Batch:
        position = int(step) * config.batch + rows
        epochs = position // number
        index = np.empty_like(position)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            index[chosen] = order(int(epoch))[position[chosen] % number]
        return _read(source, index, config)

    return _stream(batch_at, first, last, config.data.threads)


def eval_batches(source: Source, config: Config, rows: np.ndarray) -> Iterator[Batch]:
    """Yield every picture exactly once, in order; "mask" is 0 for the rows that only fill up the last batch."""
    number = len(source)

    def batch_at(step: int) -> Batch:
        index = int(step) * config.batch + rows
        return _read(source, np.minimum(index, number - 1), config) | {"mask": (index < number).astype(np.float32)}

    return _stream(batch_at, 0, -(-number // config.batch), config.data.threads)


def _read(source: Source, index: np.ndarray, config: Config) -> Batch:
    if isinstance(source, ArraySource):
        return {"image": source.images[index], "label": source.labels[index]}
    records = [source[int(i)] for i in index]
    images = [decode(record.picture, config.height_width(), config.channels) for record in records]
    return {"image": np.stack(images), "label": np.array([record.label for record in records], np.int32)}


def _stream(batch_at: Callable[[int], Batch], first: int, last: int, threads: int) -> Iterator[Batch]:
    steps = grain.MapDataset.range(first, last).map(batch_at)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)))
