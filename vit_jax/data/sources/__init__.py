"""The table of sources: where pictures and what is known of them come from."""

from collections.abc import Callable

from vit_jax.config import Config
from vit_jax.data.sources.builtin import open_digits, open_synthetic
from vit_jax.data.sources.csv_file import open_csv
from vit_jax.data.sources.folder import open_folder
from vit_jax.data.sources.hub import open_hub
from vit_jax.data.sources.records import open_records
from vit_jax.data.sources.source import ArraySource, Record, Source, parse_split, take_fraction, take_slice
from vit_jax.data.sources.tfds import open_tfds
from vit_jax.errors import InputError, nearest

__all__ = ["SOURCES", "ArraySource", "Record", "Source", "open_sources", "open_split", "open_train"]

# From a config, what follows the kind in `config.data.name`, a split, and the label names where they are known already.
Open = Callable[[Config, str, str, tuple[str, ...] | None], Source]


def sliced(open_whole: Open) -> Open:
    """Let a source that opens whole splits open slices of them: `train[:99%]`, `train[50_000:]`."""

    def open_part(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> Source:
        name, start, stop = parse_split(split)
        return take_slice(open_whole(config, where, name, label_names), start, stop)

    return open_part


# To add a source: a function from a config and a split to a `Source`, and a line here.
SOURCES = {
    "csv": sliced(open_csv),
    "digits": sliced(open_digits),
    "folder": sliced(open_folder),
    "hf": sliced(open_hub),
    "records": sliced(open_records),
    "synthetic": sliced(open_synthetic),
    "tfds": open_tfds,  # TFDS cuts its slices itself.
}


def open_split(config: Config, split: str, label_names: tuple[str, ...] | None = None) -> Source:
    """Return a split, such as "train" or "train[:99%]", of the source that `config.data.name` chooses.

    Raises:
        InputError: there is no such source or split, or it can't be read, or has a class that `label_names` has not.
    """
    kind, _, where = config.data.name.partition(":")
    if kind not in SOURCES:
        raise InputError(f"config.data.name={config.data.name!r}: {nearest(kind, SOURCES)}")
    return SOURCES[kind](config, where, split, label_names)


def open_train(config: Config) -> Source:
    """Return the training split that a config names, and of it the fraction that it asks for."""
    return take_fraction(open_split(config, config.data.train), config.data.fraction, config.data.fraction_seed)


def open_sources(config: Config) -> dict[str, Source]:
    """Return {"train": ..., "val": ...}: the two splits that a config names, of one set of classes."""
    train = open_train(config)
    return {"train": train, "val": open_split(config, config.data.val, train.label_names)}
