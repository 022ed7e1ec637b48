"""What a config leaves to its data ("auto"): the splits, and the length of the run."""

import dataclasses
from typing import NamedTuple

import numpy as np

from vit_jax.config import Config, make_plan, with_length
from vit_jax.data.sources import Source, open_split, open_train, split_names
from vit_jax.errors import InputError

# Names of a split to choose settings on, the usual first.
VAL = ("val", "validation", "valid")
HELD_OUT = 10  # per cent
SHOWN = 3


class Splits(NamedTuple):
    """The splits of a config, and what to tell people about those for `val`."""

    train: str
    val: str
    test: str | None
    origin: str


def settle(config: Config) -> tuple[Config, list[str]]:
    """Return the config with every "auto" replaced, and what was decided, in lines for people.

    Raises:
        InputError: there are no such splits, no pictures can be held out, or a split can't be read.
    """
    lines = []
    if "auto" in (config.data.val, config.data.test):
        splits = _find_splits(config)
        names = {"train": splits.train, "val": splits.val, "test": splits.test}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **names))
        lines += _describe(config, splits)
    if "auto" in (config.total, config.warmup):
        examples = len(open_train(config))
        why = f" (the BiT-HyperRule for {examples:,} pictures)" if config.total == "auto" else ""
        config = with_length(config, examples)
        plan = make_plan(config, examples)
        epochs = plan.total * config.batch / examples
        lines.append(
            f"length: {plan.total:,} steps of {config.batch:,} pictures, {epochs:,.1f} epochs, of which "
            f"{plan.warmup:,} steps are warm-up{why}"
        )
    return config, lines


def _find_splits(config: Config) -> Splits:
    data, there = config.data, split_names(config)
    test = data.test
    if test == "auto":
        test = "test" if "test" in there else None
    train = data.train
    if not there and train == "train":
        train = "."
    if data.val != "auto":
        return Splits(train, data.val, test, "")
    found = next((name for name in VAL if name in there), None)
    if found is not None:
        return Splits(train, found, test, "")
    if "[" in train:
        raise InputError(
            f"config.data.val='auto' can't hold out a part of config.data.train={train!r}; name a split for it: "
            f"there is {', '.join(there) or 'no other'}"
        )
    source = open_split(config, train)
    number = _held_out(source)
    part = f"{HELD_OUT}%" if number == round(HELD_OUT * len(source) / 100) else str(number)
    return Splits(f"{train}[{part}:]", f"{train}[:{part}]", test, f"held out of {_place(config, train)}")


def _held_out(source: Source) -> int:
    """Return how many pictures to hold out: a tenth, or if that is fewer, one of every class; at most half."""
    classes = len(np.unique(source.labels)) if source.labels.ndim == 1 else 1
    number = min(max(round(HELD_OUT * len(source) / 100), classes), len(source) // 2)
    if not number:
        raise InputError(
            "config.data.val='auto' can't hold out a part of 1 picture; add pictures, or name a split for it"
        )
    return number


def _describe(config: Config, splits: Splits) -> list[str]:
    train = open_train(config)
    name, sliced, _ = splits.train.partition("[")
    whole = len(open_split(config, name)) if sliced else len(train)
    share = f"{len(train) / whole:.0%} of " if len(train) < whole else ""
    parts = [f"{len(train):,} train ({share}{_place(config, name)})"]
    val = open_split(config, splits.val, train.label_names)
    parts.append(f"{len(val):,} val ({splits.origin or _place(config, splits.val)})")
    if splits.test is not None:
        test = open_split(config, splits.test, train.label_names)
        parts.append(f"{len(test):,} test ({_place(config, splits.test)})")
    lines = [f"pictures: {', '.join(parts)}, {len(train.label_names):,} classes"]
    if splits.origin and train.labels.ndim == 1:
        alone = np.setdiff1d(val.labels, train.labels)
        if len(alone):
            names = ", ".join(repr(train.label_names[label]) for label in alone[:SHOWN])
            more = f" and {len(alone) - SHOWN:,} more" if len(alone) > SHOWN else ""
            lines.append(f"warning: val has the only picture of {names}{more}: there is none to train on")
    return lines


def _place(config: Config, split: str) -> str:
    if config.data.name.partition(":")[0] != "folder":
        return split
    return "the folder" if split == "." else f"{split}/"
