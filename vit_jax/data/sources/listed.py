"""Pictures listed in a CSV or JSON-lines file, each with any number of labels."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError

PATH, SEPARATOR = "path", ";"


class Row(NamedTuple):
    """A line of a file: its number, counted from 1, all its columns, and the labels among them."""

    line: int
    columns: dict[str, Any]
    labels: list[str]


class ListedSource:
    """The rows of a file; `labels` is int32 (n,) if every row has exactly one, else uint8 (n, classes).

    Attributes:
        lacks: {"label": why not every picture has exactly one}, unless it has.
    """

    def __init__(self, folder: Path, rows: list[Row], labels: np.ndarray, label_names: tuple[str, ...], lacks: str):
        self.labels, self.label_names = labels, label_names
        self.columns = ("label", "labels") if labels.ndim == 1 else ("labels",)
        self.lacks = {"label": lacks} if lacks else {}
        self._folder, self._rows = folder, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        row, label = self._rows[index].columns, self.labels[index]
        columns: dict[str, Any] = {"labels": label}
        if self.labels.ndim == 1:
            columns = {"label": int(label), "labels": np.eye(len(self.label_names), dtype=np.uint8)[label]}
        return Record(self._folder / row[PATH], row | columns, row[PATH])


def open_csv(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> ListedSource:
    """Read `WHERE/SPLIT.csv`, with the columns "path", relative to WHERE, and "label", such as "cat" or "cat;dog".

    `config.data.label_key` sets another column for the labels; it may be empty in some rows. Other columns are kept as
    text in each record. The classes are those of the training split, sorted by name.

    Raises:
        InputError: the file or a column is missing, a picture is missing or listed twice, or a label is not in the
            training split.
    """
    return _open(config, where, f"{split}.csv", label_names, _read_csv)


def open_jsonl(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> ListedSource:
    """Read `WHERE/SPLIT.jsonl`, an object per line: {"path": "1.jpg", "label": "cat"}, or ["cat", "dog"], or [].

    Otherwise as `open_csv`.
    """
    return _open(config, where, f"{split}.jsonl", label_names, _read_jsonl)


def listed_splits(config: Config, where: str) -> tuple[str, ...]:
    """Return the names of the splits that have a file, by the ending that the name of the source says."""
    kind = config.data.name.partition(":")[0]
    return tuple(sorted(path.stem for path in _folder(config, where).glob(f"*.{kind}")))


def _folder(config: Config, where: str) -> Path:
    where = config.data.path or where
    if not where:
        kind = config.data.name
        raise InputError(f"config.data.name={kind!r} names no folder: write {kind}:DIR, or set config.data.path")
    return Path(where).expanduser()


def _open(
    config: Config,
    where: str,
    name: str,
    label_names: tuple[str, ...] | None,
    read: Callable[[Path, str], list[Row]],
) -> ListedSource:
    folder = _folder(config, where)
    file = folder / name
    try:
        rows = read(file, config.data.label_key)
    except FileNotFoundError as error:
        columns = f"path and {config.data.label_key}"
        raise InputError(
            f"{str(file)!r} does not exist; expected SPLIT{file.suffix} with the columns {columns}"
        ) from error
    if not rows:
        raise InputError(f"{str(file)!r} lists no pictures")
    _check_paths(folder, file, rows)
    names = label_names or tuple(sorted({label for row in rows for label in row.labels}))
    number = {name: i for i, name in enumerate(names)}
    shown, lacks = np.zeros((len(rows), len(names)), np.uint8), ""
    for row, into in zip(rows, shown, strict=True):
        for label in row.labels:
            if label not in number:
                raise InputError(f"{str(file)!r}, line {row.line}: label {label!r} is unknown to the training split")
            into[number[label]] = 1
        if len(row.labels) != 1:
            lacks = lacks or f"{str(file)!r}, line {row.line}: {row.columns[PATH]!r} has {len(row.labels)} labels"
    return ListedSource(folder, rows, shown if lacks else shown.argmax(1).astype(np.int32), names, lacks)


def _check_paths(folder: Path, file: Path, rows: list[Row]) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        path, where = row.columns[PATH], f"{str(file)!r}, line {row.line}"
        first = lines.setdefault(os.path.normpath(path), row.line)
        if first != row.line:
            raise InputError(f"{where}: {path!r} is listed twice, first in line {first}; give all its labels in one")
        if not (folder / path).is_file():
            raise InputError(f"{where}: there is no picture {str(folder / path)!r}")


def _read_csv(file: Path, key: str) -> list[Row]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            rows, header = list(reader), reader.fieldnames or ()
    except FileNotFoundError:
        raise
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
    return [
        Row(line, row, [label for label in map(str.strip, row[key].split(SEPARATOR)) if label])
        for line, row in enumerate(rows, start=2)
    ]


def _read_jsonl(file: Path, key: str) -> list[Row]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} can't be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{str(file)!r}, line {number}"
        try:
            columns = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON: {error}") from error
        if not isinstance(columns, dict) or not isinstance(columns.get(PATH), str) or key not in columns:
            raise InputError(f"{where}: must be an object with {PATH!r} and {key!r}, such as {_example(key)}")
        labels = columns[key] if isinstance(columns[key], list) else [columns[key]]
        if not all(isinstance(label, str) for label in labels):
            raise InputError(f"{where}: {key!r} must be text, or a list of texts")
        rows.append(Row(number, columns, labels))
    return rows


def _example(key: str) -> str:
    return json.dumps({PATH: "1.jpg", key: "cat"})
