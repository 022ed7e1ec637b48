"""Tables of predictions, written as they come: to a terminal, as CSV, JSON lines or Parquet."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from vit_jax.errors import InputError, Stop
from vit_jax.prediction.forward import Predictions, Row
from vit_jax.weights.files import replacing

# Takes the next batch of predictions.
Write = Callable[[Predictions], None]

ROWS = 10_000  # in a row group of a Parquet file
PIPE_CLOSED = 141  # What shells return for a command that wrote to a closed pipe.


def show_rows(predictions: Predictions) -> None:
    """Print a line for each picture: its path, then its classes and their probabilities, or why it can't be read."""
    lines = []
    for path, classes, error in predictions.rows:
        cells = [f"{_printable(name)} {probability:.3f}" for name, probability in classes]
        lines.append([_printable(path), *(cells if error is None else [f"error: {error}"])])
    widths: dict[int, int] = {}
    for line in lines:
        # What stands last in its line pads nothing.
        widths |= {i: max(widths.get(i, 0), len(cell)) for i, cell in enumerate(line[:-1])}
    try:
        for line in lines:
            print("  ".join(cell.ljust(widths.get(i, 0)) for i, cell in enumerate(line)).rstrip())
        sys.stdout.flush()
    except BrokenPipeError as error:
        # The reader, such as `head`, has seen enough. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Stop(PIPE_CLOSED) from error


@contextlib.contextmanager
def writing_table(path: Path) -> Iterator[Write]:
    """Open a table for writing: `path` appears, or is replaced, when the block ends without an error.

    Its columns are path, label_1, probability_1, and so on, and error.

    Raises:
        InputError: its ending is not .csv, .jsonl or .parquet, or it can't be written.
    """
    check_output("out", path, TABLES)
    with replacing(path) as part, contextlib.closing(TABLES[path.suffix](part)) as table:
        yield table.write


def check_output(option: str, path: Path, endings: Iterable[str]) -> None:
    """Raise an `InputError` if a file has none of the endings, or a folder has its name."""
    if path.suffix not in endings:
        raise InputError(f"--{option}={path}: nothing is written with this ending; use {' or '.join(endings)}")
    if path.is_dir():
        raise InputError(f"--{option}={path}: is a folder; name a file in it")


class CsvTable:
    """A CSV file; what a bad picture doesn't have is empty."""

    def __init__(self, path: Path):
        self._file = _open_text(path)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._started = False

    def write(self, predictions: Predictions) -> None:
        """Add a line for each picture."""
        if not self._started:
            self._writer.writerow(column_names(predictions.top))
            self._started = True
        self._writer.writerows(_values(row, predictions.top) for row in predictions.rows)

    def close(self) -> None:
        """Write what is still in memory."""
        self._file.close()


class JsonLines:
    """A JSON object on each line, with the same keys; what a bad picture doesn't have is null."""

    def __init__(self, path: Path):
        self._file = _open_text(path)

    def write(self, predictions: Predictions) -> None:
        """Add a line for each picture."""
        names = column_names(predictions.top)
        for row in predictions.rows:
            values = dict(zip(names, _values(row, predictions.top), strict=True))
            self._file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Write what is still in memory."""
        self._file.close()


class ParquetTable:
    """A Parquet file in row groups; what a bad picture doesn't have is null."""

    def __init__(self, path: Path):
        self._file, self._writer = path.open("wb"), None
        self._rows: list[list] = []
        self._names: list[str] = []

    def write(self, predictions: Predictions) -> None:
        """Add a row for each picture."""
        self._names = column_names(predictions.top)
        self._rows += [_values(row, predictions.top) for row in predictions.rows]
        if len(self._rows) >= ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is still in memory."""
        with self._file:
            if self._rows:
                self._flush()
            if self._writer is not None:
                self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = [pa.float32() if name.startswith("probability_") else pa.string() for name in self._names]
        schema = pa.schema(list(zip(self._names, types, strict=True)))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema)
        columns = zip(zip(*self._rows, strict=True), types, strict=True)
        self._writer.write_table(pa.table([pa.array(column, kind) for column, kind in columns], schema=schema))
        self._rows = []


TABLES = {".csv": CsvTable, ".jsonl": JsonLines, ".parquet": ParquetTable}


def column_names(top: int) -> list[str]:
    """Return the columns of a table with the `top` most probable classes."""
    return ["path", *(f"{name}_{i}" for i in range(1, top + 1) for name in ("label", "probability")), "error"]


def _values(row: Row, top: int) -> list[str | float | None]:
    # Six digits are what a float32 holds for certain.
    classes = [value for name, probability in row.classes for value in (name, float(f"{probability:.6g}"))]
    return [as_text(row.path), *(classes or [None] * (2 * top)), row.error]


def as_text(path: str) -> str:
    """Return a path as valid text: bytes that are none are written as Python writes them."""
    return path.encode("utf-8", "backslashreplace").decode()


def _open_text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="")


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
