"""Hugging Face `datasets`: a saved data set, parquet files, or a name on the hub."""

from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError


class HubSource:
    """The rows of a split, with classes from the label column."""

    def __init__(self, rows: Any, image_key: str, labels: np.ndarray, label_names: tuple[str, ...]):
        self.labels, self.label_names = labels.astype(np.int32), label_names
        self._rows, self._image_key = rows, image_key
        self.columns = tuple({*rows.column_names, "label"} - {image_key})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        columns = self._rows[index]
        picture = columns.pop(self._image_key)
        if isinstance(picture, dict):
            picture = picture["bytes"] if picture["bytes"] is not None else Path(picture["path"])
        return Record(picture, columns | {"label": int(self.labels[index])}, str(index))


def open_hub(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> HubSource:
    """Read a split written by `save_to_disk`, of parquet files (`DIR/train-*.parquet`), or of `NAME[:CONFIG]`.

    Data without splits (one parquet file or a saved `Dataset`) is the split `train`. The classes are the label column's
    class names, else its sorted values.

    Raises:
        InputError: `datasets` isn't installed, the data set can't be read, or it has no such split or column.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError("config.data.name='hf:...' needs Hugging Face datasets: pip install 'vit_jax[hf]'") from error
    if not (where or config.data.path):
        raise InputError("config.data.name='hf' names no data set: write hf:PATH_OR_NAME")
    where = config.data.path or where
    name = f"data set {where!r}"
    try:
        rows = _load(datasets, where, split)
    except Exception as error:  # The HTTP library or a damaged file may raise anything.
        raise InputError(f"{name}, split {split!r}: can't be read: {' '.join(str(error).split())}") from error
    for key, column in (("image_key", config.data.image_key), ("label_key", config.data.label_key)):
        if column not in rows.column_names:
            raise InputError(
                f"config.data.{key}={column!r}: {name} has no such column; there is {', '.join(rows.column_names)}"
            )
    if isinstance(rows.features[config.data.image_key], datasets.Image):
        rows = rows.cast_column(config.data.image_key, datasets.Image(decode=False))
    values, feature = rows[config.data.label_key][:], rows.features[config.data.label_key]
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        values = [names[value] if value is not None and value >= 0 else None for value in values]
    else:
        names = tuple(str(value) for value in sorted(set(values) - {None}))
        values = [value if value is None else str(value) for value in values]
    numbers = {name: number for number, name in enumerate(label_names or names)}
    for value in dict.fromkeys(values):
        if value not in numbers:
            trouble = "has pictures without a class" if value is None else f"has class {value!r}, unknown in training"
            raise InputError(f"{name}, split {split!r}: {trouble}")
    return HubSource(rows, config.data.image_key, np.array([numbers[value] for value in values]), label_names or names)


def _load(datasets: Any, where: str, split: str) -> Any:
    path = Path(where).expanduser()
    if path.suffix == ".parquet":
        return datasets.load_dataset("parquet", data_files={"train": str(path)}, split=split)
    if (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))[split]
    if (path / "state.json").is_file():
        return datasets.DatasetDict(train=datasets.load_from_disk(str(path)))[split]
    if path.is_dir():
        return datasets.load_dataset(str(path), split=split)
    name, _, configuration = where.partition(":")
    return datasets.load_dataset(name, configuration or None, split=split)
