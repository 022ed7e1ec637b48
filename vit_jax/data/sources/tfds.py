"""TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_jax.cache import read_cached, write_cached
from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError


class TfdsSource:
    """A split of a TFDS data set; `identity` is the unique key under which its labels are cached."""

    def __init__(self, examples: Sequence, config: Config, label_names: tuple[str, ...], identity: str):
        self.label_names = label_names
        self._examples, self._data, self._identity = examples, config.data, identity
        self.columns = ("label",)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = self._examples[index]
        picture = example.pop(self._data.image_key)
        return Record(picture, example | {"label": int(example[self._data.label_key])}, str(index))

    @cached_property
    def labels(self) -> np.ndarray:
        """The class of every record; reads the whole split once, then caches the labels."""
        kept = read_cached("labels", self._identity)
        if kept is not None:
            return kept["labels"]
        with ThreadPoolExecutor(self._data.threads) as pool:
            numbers = tqdm(range(len(self)), "reading labels", unit="", unit_scale=True, disable=None)
            labels = np.fromiter(pool.map(lambda index: self[index].columns["label"], numbers), np.int32, len(self))
        write_cached("labels", self._identity, labels=labels)
        return labels


def open_tfds(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> TfdsSource:
    """Read a split, or a slice in TFDS notation (`train[:99%]`), of the data set `NAME[/CONFIG][:VERSION]`.

    Reads it from `config.data.path`, by default TFDS's directory: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        InputError: the data set isn't prepared as ArrayRecord, or has no such split or feature.
    """
    import tensorflow_datasets as tfds

    if not where:
        raise InputError("config.data.name='tfds' names no set: write tfds:NAME or tfds:NAME:VERSION")
    builder = find_builder(where, config.data.path)
    features = dict(builder.info.features.items())
    image_key, label_key = config.data.image_key, config.data.label_key
    for key, value, wanted in (
        ("image_key", image_key, tfds.features.Image),
        ("label_key", label_key, tfds.features.ClassLabel),
    ):
        if not isinstance(features.get(value), wanted):
            names = [name for name, feature in features.items() if isinstance(feature, wanted)]
            raise InputError(
                f"config.data.{key}={value!r}: tfds set {where!r} has no {wanted.__name__} of that name; "
                f"there is {', '.join(names) or 'none'}"
            )
    encoded = {name for name, feature in features.items() if isinstance(feature, tfds.features.Image)}
    decoders = {name: tfds.decode.SkipDecoding() for name in encoded}
    try:
        examples = builder.as_data_source(split=split, decoders=decoders)
        number = len(examples)
    except (ValueError, KeyError, AssertionError, OSError) as error:
        splits = ", ".join(f"{name} ({info.num_examples:,})" for name, info in builder.info.splits.items())
        raise InputError(f"split {split!r} of tfds set {where!r} can't be read; there is {splits}") from error
    if not number:
        raise InputError(f"split {split!r} of tfds set {where!r} is empty")
    changed = os.stat(Path(builder.data_dir) / "dataset_info.json").st_mtime_ns
    identity = f"tfds {builder.data_dir} {changed} {split} {label_key}"
    return TfdsSource(examples, config, tuple(features[label_key].names), identity)


def find_builder(where: str, data_dir: str | None) -> Any:
    """Return the read-only builder of a prepared data set.

    Raises:
        InputError: the data set isn't prepared, or not as ArrayRecord; the message has the command that prepares it.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    place = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    try:
        builder = builder_from_files(where, data_dir=place)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        trouble = f"tfds set {where!r} isn't prepared in {place!r}"
        raise InputError(f"{trouble}; prepare it once: {_command(where, place)}{_manual(where, place)}") from error
    if tfds.core.FileFormat.ARRAY_RECORD not in builder.info.available_file_formats():
        trouble = f"tfds set {where!r} is prepared as {builder.info.file_format.value}, which has no random access"
        beside = os.path.join(place, "array_record")
        raise InputError(f"{trouble}; prepare it once and set config.data.path={beside!r}: {_command(where, beside)}")
    return builder


def _command(where: str, place: str) -> str:
    arguments = f"'{where}', data_dir='{place}', file_format='array_record'"
    build = f"import tensorflow_datasets as tfds; tfds.builder({arguments}).download_and_prepare()"
    return f"pip install 'vit_jax[prepare]' && python -c \"{build}\""


def _manual(where: str, place: str) -> str:
    """Return TFDS's instructions for files to download by hand before preparing a data set, if any."""
    import tensorflow_datasets as tfds

    try:
        wanted = tfds.builder_cls(where.partition(":")[0].partition("/")[0]).MANUAL_DOWNLOAD_INSTRUCTIONS
    except (tfds.core.DatasetNotFoundError, ImportError, ValueError):
        return ""
    where_to = Path(place) / "downloads" / "manual"
    return f" (first, by hand, into {str(where_to)!r}: {' '.join(wanted.split())})" if wanted else ""
