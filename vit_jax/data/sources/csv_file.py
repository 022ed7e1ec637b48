"""Pictures listed in a CSV file, each with any number of labels."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError

PATH, SEPARATOR = "path", ";"


class CsvSource:
    """The rows of a CSV file; `labels` is int32 (n,) if every row has exactly one, else uint8 (n, classes)."""

    def __init__(self, folder: Path, rows: list[dict[str, str]], labels: np.ndarray, label_names: tuple[str, ...]):
        self.labels, self.label_names = labels, label_names
        self.columns = ("label", "labels") if labels.ndim == 1 else ("labels",)
        self._folder, self._rows = folder, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        row, label = self._rows[index], self.labels[index]
        columns: dict[str, Any] = {"labels": label}
        if self.labels.ndim == 1:
            columns = {"label": int(label), "labels": np.eye(len(self.label_names), dtype=np.uint8)[label]}
        return Record(self._folder / row[PATH], row | columns, row[PATH])


def open_csv(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> CsvSource:
    """Read `WHERE/SPLIT.csv`, with the columns "path", relative to WHERE, and "label", such as "cat" or "cat;dog".

    `config.data.label_key` sets another column for the labels; it may be empty in some rows. Other columns are kept as
    text in each record. The classes are those of the training split, sorted by name.

    Raises:
        InputError: the file or a column is missing, a picture is missing or listed twice, or a label is not in the
            training split.
    """
    where = config.data.path or where
    if not where:
        raise InputError("config.data.name='csv' names no folder: write csv:DIR, or set config.data.path")
    folder = Path(where).expanduser()
    file, key = folder / f"{split}.csv", config.data.label_key
    rows = _read(file, key)
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if row[PATH] in seen:
            raise InputError(f"{str(file)!r}, line {line}: {row[PATH]!r} is listed twice")
        if not (folder / row[PATH]).is_file():
            raise InputError(f"{str(file)!r}, line {line}: there is no picture {str(folder / row[PATH])!r}")
        seen.add(row[PATH])
    named = [[label for label in map(str.strip, row[key].split(SEPARATOR)) if label] for row in rows]
    names = label_names or tuple(sorted({label for labels in named for label in labels}))
    number = {name: i for i, name in enumerate(names)}
    shown = np.zeros((len(rows), len(names)), np.uint8)
    for row, labels in enumerate(named):
        for label in labels:
            if label not in number:
                raise InputError(f"{str(file)!r}, line {row + 2}: label {label!r} is unknown to the training split")
            shown[row, number[label]] = 1
    single = all(len(labels) == 1 for labels in named)
    return CsvSource(folder, rows, shown.argmax(1).astype(np.int32) if single else shown, names)


def _read(file: Path, key: str) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            rows, header = list(reader), reader.fieldnames or ()
    except FileNotFoundError as error:
        raise InputError(f"{str(file)!r} does not exist; expected SPLIT.csv with the columns path and {key}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{str(file)!r} can't be read as a CSV file: {error}") from error
    for name in (PATH, key):
        if name not in header:
            raise InputError(f"{str(file)!r} has no column {name!r}; it has {', '.join(header) or 'nothing'}")
    for line, row in enumerate(rows, start=2):
        if more := row.get(None):
            columns = len(header) + len(more)
            raise InputError(
                f"{str(file)!r}, line {line}: has {columns} columns, but the first line names {len(header)}"
            )
    if not rows:
        raise InputError(f"{str(file)!r} lists no pictures")
    return rows
