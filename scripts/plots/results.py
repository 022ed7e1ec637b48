"""The results of a sweep as figures need them: runs that are done, in groups that differ in nothing but their seed."""

import csv
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError

CONFIDENCE = 0.95
FAMILIES = ("ViT", "hybrid", "BiT")
COLORS = {"ViT": "#1f5fa8", "hybrid": "#d9822b", "BiT": "0.35"}
MARKERS = "os^DvP"


class Mean(NamedTuple):
    """A mean with its interval; `low` and `high` are not a number where there is a single value."""

    value: float
    low: float
    high: float


def read_results(path: Path, *needed: str) -> list[dict[str, str]]:
    """Return the rows of a sweep's `results.csv` whose runs are done.

    Args:
        needed: columns that there must be, with a value in each of these rows.

    Raises:
        InputError: it can't be read, lacks such a column or value, or no run is done.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}; it is the results.csv of a sweep's folder") from error
    columns = rows[0].keys() if rows else ()
    for column in ("run", "status", *needed):
        if column not in columns:
            raise InputError(f"{str(path)!r} has no column {column!r}; take the results.csv of this study's sweep")
    done = [row for row in rows if row["status"] == "done"]
    if not done:
        raise InputError(f"{str(path)!r}: none of its {len(rows)} runs is done; continue the sweep first")
    for row in done:
        for column in needed:
            if row[column] == "":
                raise InputError(f"{str(path)!r}: run {row['run']!r} has no {column!r}")
    if len(done) < len(rows):
        print(f"warning: {len(rows) - len(done)} of {len(rows)} runs are not done, and left out")
    return done


def accuracy_of(rows: Sequence[dict[str, str]]) -> str:
    """Return the accuracy to draw: that on the test split, else on the validation split.

    Raises:
        InputError: not all runs have either.
    """
    for name in ("test/accuracy", "val/accuracy"):
        if all(row.get(name) for row in rows):
            return name
    raise InputError("the results have neither 'test/accuracy' nor 'val/accuracy' for all runs")


def number(row: dict[str, str], column: str) -> float:
    """Return a value as a number.

    Raises:
        InputError: it is none.
    """
    value = literal(row[column])
    if not isinstance(value, (int, float)):
        raise InputError(f"column {column!r} of the results: {row[column]!r} is no number")
    return float(value)


def model_name(row: dict[str, str]) -> str:
    """Return the model that a run's part of the config's argument names, such as "R26+S/32".

    Raises:
        InputError: it names none.
    """
    return argument(row, "model").replace("_", "/")  # Names of folders have no slashes.


def argument(row: dict[str, str], key: str) -> str:
    """Return what a run's part of the config's argument gives a key, as it is in the name of its folder.

    Raises:
        InputError: it gives it nothing.
    """
    found = re.match(rf"(?:.*?,)?{key}=([^,]+)", row["run"])
    if not found:
        raise InputError(f"run {row['run']!r} doesn't say which {key} it is; take the results of this study's sweep")
    return found[1]


def family(model: str) -> str:
    """Return which of `FAMILIES` a model is of, by its name."""
    return "BiT" if model.startswith("BiT-") else "hybrid" if "+" in model else "ViT"


def shown(model: str) -> str:
    """Return a model's name as a legend has it."""
    return f"ViT-{model}" if family(model) == "ViT" else model


def grouped(
    rows: Sequence[dict[str, str]], key: Callable[[dict[str, str]], Hashable]
) -> dict[Hashable, list[dict[str, str]]]:
    """Return the rows by a key, in the order of the first of each."""
    groups: dict[Hashable, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def mean_of(rows: Sequence[dict[str, str]], column: str) -> Mean:
    """Return the mean of a column and its interval by Student's t, of `CONFIDENCE`."""
    values = np.array([number(row, column) for row in rows])
    if len(values) == 1:
        return Mean(float(values[0]), np.nan, np.nan)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Mean(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def seeds_of(groups: Sequence[Sequence[dict[str, str]]]) -> str:
    """Return what a caption says of the seeds, such as "3 seeds; bands: 95 % t intervals of the mean"."""
    numbers = sorted({len(group) for group in groups})
    seeds = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    text = f"{seeds} seed{'s' * (numbers[-1] > 1)} each"
    return text if numbers[-1] == 1 else f"{text}, {CONFIDENCE * 100:g} % t intervals of the mean"
