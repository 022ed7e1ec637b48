"""Groups of runs that differ in nothing but their seed, and the best of them."""

import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from vit_jax.errors import InputError
from vit_jax.sweeps.table import ASIDE, Row, differing, metric_names
from vit_jax.tasks import is_lower_better


class Group(NamedTuple):
    """Runs that differ in nothing but their seed.

    Attributes:
        values: of the keys that differ between groups.
    """

    values: dict[str, Any]
    rows: list[Row]

    def numbers(self, column: str) -> list[float]:
        """Return a metric, or a column of `COUNTS`, of the runs that are done and have it."""
        found = [(row.metrics | row.counts).get(column) for row in self.rows if row.status == "done"]
        return [float(value) for value in found if value is not None]

    def mean(self, column: str) -> float | None:
        """Return the mean over the runs that are done; None if there are none."""
        numbers = self.numbers(column)
        return statistics.fmean(numbers) if numbers else None

    def spread(self, column: str) -> float | None:
        """Return the sample standard deviation over the runs that are done; None if there are less than two."""
        numbers = self.numbers(column)
        return statistics.stdev(numbers) if len(numbers) > 1 else None


def groups(rows: Sequence[Row]) -> list[Group]:
    """Return the runs in groups that are equal in all but `seed`, in the order of their first."""
    keys, found = [key for key in differing(rows) if key != "seed"], {}
    for row in rows:
        values = {key: row.config.get(key) for key in keys}
        found.setdefault(json.dumps(values), Group(values, [])).rows.append(row)
    return list(found.values())


def selected(rows: Sequence[Row], metric: str | None = None) -> Group | None:
    """Return the group with the best mean of a metric over its seeds; None if no run that is done has it.

    Raises:
        InputError: as for `chosen_metric`.
    """
    metric = chosen_metric(rows, metric)
    means = [(group, group.mean(metric)) for group in groups(rows)]
    ranked = [(mean if is_lower_better(metric) else -mean, i) for i, (_, mean) in enumerate(means) if mean is not None]
    return means[min(ranked)[1]][0] if ranked else None


def chosen_metric(rows: Sequence[Row], metric: str | None) -> str:
    """Return the metric to compare runs by, the one they select their best checkpoint by if none is asked for.

    Raises:
        InputError: no run has the one that is asked for, or it is of the test split.
    """
    own = [row.metric for row in rows if row.metric is not None]
    default = max(dict.fromkeys(own), key=own.count, default="train/loss")
    if metric in (None, default):
        return default
    there = metric_names(rows)
    if metric.removeprefix("best ").startswith("test/"):
        raise InputError(f"metric {metric!r}: runs are not selected by their test split")
    if metric not in there:
        useful = [name for name in there if not name.startswith("test/") and not name.endswith(ASIDE)]
        have = f"they have {', '.join(map(repr, useful))}" if useful else "they have none yet"
        raise InputError(f"metric {metric!r}: no run has it; {have}")
    return metric
