"""What the page of a report shows, as one JSON object: runs with their curves, groups, axes, fronts."""

import bisect
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vit_jax.sweeps.groups import Group, groups, selected
from vit_jax.sweeps.plan import shown
from vit_jax.sweeps.table import ASIDE, COSTS, Row, differing, metric_names
from vit_jax.tasks import is_lower_better

POINTS = 50_000  # of all curves of one kind together
LEAST, MOST = 40, 500  # points of one curve
BANDS = 8  # colors of curves
TICKS = 8
DIGITS = 5  # significant, of a point of a curve
DECADE = 9.9  # An axis is logarithmic from such a ratio: 1e-3 to 1e-2, with rounding.
COLUMNS = {
    "step": ("step", "count"),
    "steps": ("steps", "count"),
    "parameters": ("parameters", "count"),
    "flops": ("training FLOPs", "large"),
    "seconds": ("seconds", "seconds"),
    "device_seconds": ("device-seconds", "seconds"),
    "memory_gib": ("peak memory, GiB", "metric"),
}
COST_AXES = ("flops", "device_seconds", "seconds")


def page_data(rows: Sequence[Row], metric: str, folder: Path) -> dict[str, Any]:
    """Return the data of a page in `folder` that compares runs by `metric`.

    No figure of the test split is in it: that of the selected group is for the page itself.
    """
    keys, together, best = differing(rows), groups(rows), selected(rows, metric)
    axes = {key: axis([row.config.get(key) for row in _measured(rows)]) for key in keys}
    bands = {key: _bands(rows, key) for key in keys}
    columns = _columns(rows, keys, metric)
    number_of = {id(row): i for i, row in enumerate(rows)}
    most = min(max(POINTS // max(len(rows), 1), LEAST), MOST)
    return {
        "metric": metric,
        "lower": is_lower_better(metric),
        "columns": columns,
        "keys": [
            {"key": key, **axes[key], "bands": bands[key][0], "lines": lines(together, key, axes[key])} for key in keys
        ],
        "runs": [
            {
                "run": row.run,
                "status": row.status,
                "href": quote(os.fsencode(os.path.relpath(row.directory, folder))),
                "cells": [_cell(row, column["name"]) for column in columns],
                "bands": [bands[key][1][i] for key in keys],
                "command": shown(row.command) if row.command else None,
                "lines": row.lines,
                "curves": curves(row.records, most),
            }
            for i, row in enumerate(rows)
        ],
        "groups": [
            {
                "label": label(group.values),
                "values": [_plain(group.values.get(key)) for key in keys],
                "places": [place(axes[key], group.values.get(key)) for key in keys],
                "runs": [number_of[id(row)] for row in group.rows],
                "done": len(group.numbers(metric)),
                "mean": group.mean(metric),
                "spread": group.spread(metric),
                "costs": {name: group.mean(name) for name in COST_AXES},
            }
            for group in together
        ],
        "costs": [_cost(together, name, metric) for name in COST_AXES if any(g.numbers(name) for g in together)],
        "selected": together.index(best) if best is not None else None,
    }


def axis(values: list[Any]) -> dict[str, Any]:
    """Return how the values of a key lie on an axis: its scale, and its ticks as [place, text].

    The scale is "log" for positive numbers that span a decade, "linear" for others, and "category" if any is no number,
    or some are 0 and the others span a decade; categories lie at 0, 1, ... in their natural order.
    """
    distinct = {json.dumps(value): value for value in values}
    numbers = [value for value in distinct.values() if _is_number(value)]
    positive = sorted(value for value in numbers if value > 0)
    wide = bool(positive) and positive[-1] / positive[0] >= DECADE
    if len(numbers) < len(distinct) or (wide and len(positive) < len(numbers) and len(numbers) <= TICKS):
        ordered = sorted(distinct.values(), key=_natural)
        return {"scale": "category", "ticks": [[i, text(value)] for i, value in enumerate(ordered)]}
    scale = "log" if wide and len(positive) == len(numbers) else "linear"
    if _fit(sorted(numbers), scale):
        return {"scale": scale, "ticks": [[value, text(value)] for value in sorted(numbers)]}
    if scale == "linear":
        return {"scale": scale, "ticks": None}
    powers = range(math.floor(math.log10(positive[0])), math.ceil(math.log10(positive[-1])) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in ((1,) if len(powers) > 3 else (1, 2, 5))]
    return {"scale": scale, "ticks": [[tick, text(tick)] for tick in ticks if positive[0] <= tick <= positive[-1]]}


def place(along: dict[str, Any], value: Any) -> float | int | None:
    """Return where a value lies on an axis; None if nowhere, as a run that never started may have it."""
    if along["scale"] == "category":
        return next((i for i, tick in along["ticks"] if tick == text(value)), None)
    return value if _is_number(value) else None


def banded(values: list[Any]) -> tuple[list[str], list[int]]:
    """Return at most `BANDS` labels for the values of a key, and the number of each one's; numbers form ranges."""
    distinct = sorted({json.dumps(value): value for value in values}.values(), key=_natural)
    if len(distinct) <= BANDS:
        labels = [text(value) for value in distinct]
        return labels, [labels.index(text(value)) for value in values]
    if all(map(_is_number, distinct)):
        starts = [distinct[len(distinct) * i // BANDS] for i in range(BANDS)]
        ends = [distinct[len(distinct) * (i + 1) // BANDS - 1] for i in range(BANDS)]
        labels = [f"{low:.3g} to {high:.3g}" for low, high in zip(starts, ends, strict=True)]
        return labels, [bisect.bisect_right(starts, value) - 1 for value in values]
    common = [value for value, _ in Counter(map(text, values)).most_common(BANDS - 1)]
    return [*common, "others"], [common.index(text(v)) if text(v) in common else BANDS - 1 for v in values]


def lines(together: list[Group], key: str, along: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the groups that differ only in `key`, in the order of its values, with the values of their other keys."""
    found: dict[str, list[int]] = {}
    others = [{k: v for k, v in group.values.items() if k != key} for group in together]
    for i in sorted(range(len(together)), key=lambda i: [_natural(value) for value in others[i].values()]):
        if place(along, together[i].values.get(key)) is not None:
            found.setdefault(label(others[i]), []).append(i)
    return [
        {"label": name, "groups": sorted(numbers, key=lambda i: place(along, together[i].values.get(key)))}
        for name, numbers in found.items()
    ]


def front(points: Sequence[tuple[float | None, float | None]], lower: bool) -> list[int]:
    """Return the numbers of the points (cost, metric) that no cheaper point is as good as, in order of cost."""
    known = [
        (cost, value if lower else -value, i) for i, (cost, value) in enumerate(points) if None not in (cost, value)
    ]
    found, best = [], math.inf
    for _, value, i in sorted(known):
        if value < best:
            found.append(i)
            best = value
    return found


def curves(records: list[dict[str, Any]], most: int) -> dict[str, dict[str, list[Any]]]:
    """Return {"val": {"step": [...], "seconds": [...], "accuracy": [...]}}, at most so many records of a kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for kind in dict.fromkeys(name.partition("/")[0] for name in record if _is_curve(name)):
            found.setdefault(kind, []).append(record)
    return {kind: _curves_of(kind, thinned(own, most)) for kind, own in found.items()}


def thinned(items: list[Any], most: int) -> list[Any]:
    """Return at most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def label(values: dict[str, Any]) -> str:
    """Return values of config keys as text."""
    return ", ".join(f"{key}={text(value)}" for key, value in values.items())


def text(value: Any) -> str:
    """Return a value of a config as text for people."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _measured(rows: Sequence[Row]) -> Sequence[Row]:
    return [row for row in rows if row.status == "done"] or rows


def _bands(rows: Sequence[Row], key: str) -> tuple[list[str], list[int | None]]:
    labels, numbers = banded([row.config.get(key) for row in rows if row.records])
    each = iter(numbers)
    return labels, [next(each) if row.records else None for row in rows]


def _cost(together: list[Group], name: str, metric: str) -> dict[str, Any]:
    points = [(group.mean(name), group.mean(metric)) for group in together]
    return {"name": name, "title": COLUMNS[name][0], "front": front(points, is_lower_better(metric))}


def _columns(rows: Sequence[Row], keys: list[str], metric: str) -> list[dict[str, str]]:
    plain = metric.removeprefix("best ")
    names = [name for name in metric_names(rows) if _is_curve(name.removeprefix("best "))]
    wanted = [plain, f"best {plain}", *(n for n in names if not n.startswith(("train/", "best "))), "train/loss"]
    found = [{"name": key, "title": key, "kind": "key"} for key in keys]
    found += [{"name": name, "title": name, "kind": "metric"} for name in dict.fromkeys(wanted) if name in names]
    return found + [{"name": name, "title": title, "kind": kind} for name, (title, kind) in COLUMNS.items()]


def _fit(numbers: list[Any], scale: str) -> bool:
    # As ticks: few, short and far enough from each other; those of a random search seldom are.
    at = [math.log10(number) for number in numbers] if scale == "log" else numbers
    near = any(b - a < (at[-1] - at[0]) / (2 * TICKS) for a, b in itertools.pairwise(at))
    return len(numbers) <= TICKS and not near and all(len(text(number)) <= 7 for number in numbers)


def _cell(row: Row, name: str) -> Any:
    return _plain(row.config[name] if name in row.config else (row.metrics | row.counts).get(name))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, bool)) or _is_number(value) else text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_curve(name: str) -> bool:
    kind, slash, metric = name.partition("/")
    hidden = kind in ("data", "test") or name in (*COSTS, "train/skipped") or metric.endswith(ASIDE)
    return bool(slash) and not hidden


def _curves_of(kind: str, records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(
        name for record in records for name in record if name.startswith(f"{kind}/") and _is_curve(name)
    )
    found = {name.removeprefix(f"{kind}/"): [_short(record.get(name)) for record in records] for name in names}
    return {"step": [r["step"] for r in records], "seconds": [_short(r.get(COSTS[0])) for r in records]} | found


def _short(value: float | int | None) -> float | int | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _natural(value: Any) -> tuple:
    # None first, then numbers, then text with the numbers in it as numbers: "30ep" is before "100ep".
    if value is None or isinstance(value, bool):
        return (0, [], str(value))
    if isinstance(value, (int, float)):
        return (1, [], value)
    parts = re.split(r"(\d+)", text(value))
    return (2, [int(part) if part.isdecimal() else part for part in parts], "")
