"""Accuracy of the nearest neighbours in feature space, exact, in blocks."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from vit_jax.config import Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.features import make_features

TEMPERATURE = 0.07
QUERIES, BANK = 2048, 16384  # rows of the blocks that are compared
# Of the device, for blocks of features up to 1,024 wide and 200 neighbours: a test measures it.
DEVICE_BYTES = 512 * 2**20


class NearestNeighbours:
    """The class that the k most similar pictures of a bank vote for.

    The bank is the split `train`. Similarity s is the cosine of the angle between two features, and the weight of a
    vote the softmax of s / 0.07 over the k neighbours (Wu et al., 2018), or exp(s / 0.07) up to a factor. The search is
    exact: of equally similar pictures the first counts, and of equal votes the class with the smaller number.

    Metrics: "accuracy_{k}nn" for every k in `neighbours`, and "count". A k above the number of pictures in the bank is
    refused.

    Memory: each process holds the features of both splits, and of each query the similarity and index of its
    neighbours, in host memory; a device holds a block of each at a time, at most 512 MiB for features up to 1,024 wide
    and 200 neighbours. A bank of 1.28 M and 50,000 queries with features 768 wide take 3.94 + 0.15 + 0.08 GB.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._neighbours = tuple(sorted(set(evaluation.neighbours)))
        if not self._neighbours:
            raise InputError("config.evaluators: neighbours=(): name at least one number of neighbours")
        self._features = make_features(subject, evaluation.features)
        train = evaluation.train or subject.config.data.train
        self._bank = subject.open(evaluation, train, classes="any")
        if self._neighbours[-1] > len(self._bank):
            raise InputError(
                f"config.evaluators: neighbours={evaluation.neighbours}: split {train!r} has only {len(self._bank):,} "
                "pictures; set smaller numbers"
            )
        self._split = subject.open(evaluation, classes=self._bank.label_names)
        self.pictures = len(self._bank) + len(self._split)
        self.metrics = (*(f"accuracy_{k}nn" for k in self._neighbours), "count")

    def __call__(self, params: Any, watch: Watch) -> Results:
        bank = self._features(params, self._bank, watch)
        queries = self._features(params, self._split, watch)
        similarities, index = nearest(queries.vectors, bank.vectors, self._neighbours[-1], watch)
        voted = vote(similarities, bank.labels[index], len(self._bank.label_names), self._neighbours)
        scalars = {f"accuracy_{k}nn": float((voted[k] == queries.labels).mean()) for k in self._neighbours}
        return Results(scalars | {"count": len(queries.labels)}, {}, {})


def nearest(
    queries: Float[np.ndarray, "n dim"],
    bank: Float[np.ndarray, "size dim"],
    k: int,
    watch: Callable[[Iterable], Iterable] = iter,
) -> tuple[Float[np.ndarray, "n k"], Int32[np.ndarray, "n k"]]:
    """Return the cosine similarities of the k nearest of a bank, the most similar first, and their indices.

    k is at most the size of the bank. A feature of zeros has similarity 0 to all.
    """
    k, rows, width = min(k, len(bank)), min(QUERIES, len(queries)), min(BANK, len(bank))
    similarities, index = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32)
    for first in watch(range(0, len(queries), rows)):
        block = jnp.asarray(_padded(queries[first : first + rows], rows))
        found = jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32)
        for start in range(0, len(bank), width):
            part = _padded(bank[start : start + width], width)
            # Waits, so that not more than one block of the bank is on the device.
            found = jax.block_until_ready(_merge(found, block, part, start, len(bank) - start))
        stop = min(first + rows, len(queries))
        for whole, part in zip((similarities, index), jax.device_get(found), strict=True):
            whole[first:stop] = part[: stop - first]
    return similarities, index


def vote(
    similarities: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, "n k"],
    num_classes: int,
    neighbours: Sequence[int],
) -> dict[int, Int[np.ndarray, " n"]]:
    """Return the class of each query by the weighted votes of its nearest, for each number of neighbours."""
    # Relative to the nearest, so that nothing overflows.
    weights = np.exp((similarities.astype(np.float64) - similarities[:, :1]) / TEMPERATURE)
    voted = {k: np.empty(len(labels), np.int64) for k in neighbours}
    rows = max(1, 2**22 // num_classes)
    for first in range(0, len(labels), rows):
        part = slice(first, first + rows)
        number = len(labels[part])
        place = np.arange(number)[:, None] * num_classes + labels[part]
        for k in neighbours:
            votes = np.bincount(place[:, :k].ravel(), weights[part, :k].ravel(), number * num_classes)
            voted[k][part] = votes.reshape(number, num_classes).argmax(axis=1)
    return voted


@functools.partial(jax.jit, donate_argnums=0)
def _merge(
    found: tuple[Float[Array, "rows k"], Int32[Array, "rows k"]],
    queries: Float[Array, "rows dim"],
    bank: Float[Array, "width dim"],
    start: int | Array,
    number: int | Array,
) -> tuple[Float[Array, "rows k"], Int32[Array, "rows k"]]:
    """Return the nearest of what was found and the first `number` rows of a block, whose first has index `start`."""
    k = found[0].shape[1]
    similarities = jnp.matmul(_unit(queries), _unit(bank).T, precision="highest")
    similarities = jnp.where(jnp.arange(len(bank)) < number, similarities, -jnp.inf)
    best, place = jax.lax.top_k(similarities, min(k, len(bank)))
    # What was found before comes first: it stays where it is as similar.
    both = jnp.concatenate([found[0], best], axis=1)
    index = jnp.concatenate([found[1], start + place], axis=1)
    best, place = jax.lax.top_k(both, k)
    return best, jnp.take_along_axis(index, place, axis=1)


def _unit(features: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    length = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.where(length > 0, length, 1)


def _padded(array: Float[np.ndarray, "n dim"], rows: int) -> Float[np.ndarray, "rows dim"]:
    return np.pad(array, ((0, rows - len(array)), (0, 0))) if len(array) < rows else array
