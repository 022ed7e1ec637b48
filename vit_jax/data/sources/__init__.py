"""The registry of sources of pictures and labels."""

from collections.abc import Callable

from vit_jax.config import Config
from vit_jax.data.sources.builtin import open_digits, open_synthetic
from vit_jax.data.sources.folder import open_folder, split_folders
from vit_jax.data.sources.hub import open_hub
from vit_jax.data.sources.listed import listed_splits, open_csv, open_jsonl
from vit_jax.data.sources.records import open_records, prepared_splits
from vit_jax.data.sources.source import ArraySource, Record, Source, parse_split, take_fraction, take_slice
from vit_jax.data.sources.tfds import open_tfds
from vit_jax.errors import InputError, nearest

__all__ = ["SOURCES", "ArraySource", "Record", "Source", "open_sources", "open_split", "open_train", "split_names"]

# Opens a split from a config, the text after the colon in `config.data.name`, a split, and label names if known.
Open = Callable[[Config, str, str, tuple[str, ...] | None], Source]


def sliced(open_whole: Open) -> Open:
    """Let a source that opens whole splits also open slices: `train[:99%]`, `train[50_000:]`."""

    def open_part(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> Source:
        name, start, stop = parse_split(split)
        return take_slice(open_whole(config, where, name, label_names), start, stop)

    return open_part


# To add a source: write a function that opens a split as a `Source`, and add a line here.
SOURCES = {
    "csv": sliced(open_csv),
    "digits": sliced(open_digits),
    "folder": sliced(open_folder),
    "hf": sliced(open_hub),
    "jsonl": sliced(open_jsonl),
    "records": sliced(open_records),
    "synthetic": sliced(open_synthetic),
    "tfds": open_tfds,  # TFDS does its own slicing.
}

# The names of the splits that are there, for sources that can tell; none if the pictures aren't divided.
SPLITS: dict[str, Callable[[Config, str], tuple[str, ...]]] = {
    "csv": listed_splits,
    "folder": split_folders,
    "jsonl": listed_splits,
    "records": prepared_splits,
}


def split_names(config: Config) -> tuple[str, ...]:
    """Return the names of the splits of the source in `config.data.name`; none if its pictures are not divided.

    Raises:
        InputError: the source can't tell, or can't be read.
    """
    kind, _, where = config.data.name.partition(":")
    if kind not in SPLITS:
        raise InputError(
            f"config.data.name={config.data.name!r}: only {', '.join(SPLITS)} tell which splits there are; "
            "name config.data.val and config.data.test instead of 'auto'"
        )
    return SPLITS[kind](config, where)


def open_split(config: Config, split: str, label_names: tuple[str, ...] | None = None) -> Source:
    """Return a split, such as "train" or "train[:99%]", of the source in `config.data.name`.

    Raises:
        InputError: the source or split doesn't exist or can't be read, or has a class that is not in `label_names`.
    """
    kind, _, where = config.data.name.partition(":")
    if kind not in SOURCES:
        raise InputError(f"config.data.name={config.data.name!r}: {nearest(kind, SOURCES)}")
    return SOURCES[kind](config, where, split, label_names)


def open_train(config: Config) -> Source:
    """Return the training split of a config, reduced to `config.data.fraction`."""
    return take_fraction(open_split(config, config.data.train), config.data.fraction, config.data.fraction_seed)


def open_sources(config: Config) -> dict[str, Source]:
    """Return {"train": ..., "val": ...}: the two splits of a config, with the same classes."""
    train = open_train(config)
    return {"train": train, "val": open_split(config, config.data.val, train.label_names)}
