"""The order of training pictures: a function of (seed, epoch), the same on any number of hosts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vit_jax.config import Config
from vit_jax.data.sources.source import Source


class Epoch(NamedTuple):
    """The pictures of an epoch, in order.

    Attributes:
        index: which picture of the split.
        visit: how often that picture was seen before; its crop depends on it.
    """

    index: Int[np.ndarray, " n"]
    visit: Int[np.ndarray, " n"]


def make_order(source: Source, config: Config) -> Callable[[int], Epoch]:
    """Return the function that maps the number of an epoch to its pictures, as many as the split has.

    With `config.data.balance` "none", every picture once, in an order drawn from (seed, epoch). With "classes", see
    `balanced`.
    """
    number = len(source)
    if config.data.balance == "classes":
        labels = source.labels
        # Classes without a picture are left out; `pictures` has those of each class.
        sorted_by_class = np.argsort(labels, kind="stable")
        _, firsts = np.unique(labels[sorted_by_class], return_index=True)
        pictures = np.split(sorted_by_class, firsts[1:])
        return functools.lru_cache(maxsize=2)(functools.partial(balanced, pictures, number, config.seed))

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> Epoch:
        return Epoch(np.random.default_rng((config.seed, epoch)).permutation(number), np.full(number, epoch))

    return order


def balanced(pictures: list[np.ndarray], number: int, seed: int, epoch: int) -> Epoch:
    """Return an epoch of `number` pictures, as many of every class, give or take one.

    In the endless sequence of epochs, every class runs through all of its pictures before any repeats, each time in
    an order drawn from (seed, class, time). How the classes follow each other is drawn from (seed, epoch).

    Args:
        pictures: indices of the pictures of each class.
    """
    classes = len(pictures)
    # Slot i of all epochs belongs to class i modulo the number of classes.
    slots = np.random.default_rng((seed, epoch)).permutation((epoch * number + np.arange(number)) % classes)
    places = np.split(np.argsort(slots, kind="stable"), np.cumsum(np.bincount(slots, minlength=classes))[:-1])
    index, visit = np.empty(number, np.int64), np.empty(number, np.int64)
    for label, (own, here) in enumerate(zip(pictures, places, strict=True)):
        before = (epoch * number - label + classes - 1) // classes
        visit[here] = (before + np.arange(len(here))) // len(own)
        times = range(before // len(own), (before + len(here) - 1) // len(own) + 1)
        drawn = [np.random.default_rng((seed, label, time)).permutation(own) for time in times]
        index[here] = np.concatenate([own[:0], *drawn])[before % len(own) :][: len(here)]
    return Epoch(index, visit)
