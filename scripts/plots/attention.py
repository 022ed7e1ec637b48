"""Time and memory of attention patterns against the number of tokens, beside full attention."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from plots.curves import WIDTH, save

from vit_jax.errors import InputError

COLUMNS = {"forward and backward ms": "forward and backward, ms", "forward and backward MiB": "memory, MiB"}
FULL, FIRST = "xla", 1024  # Exponents are fitted from so many tokens on.
COLORS = ("0.2", "#1f5fa8", "#d9822b", "#2e8b57", "#8e44ad", "#b03a2e", "#17818e", "#9a9a00")


def draw(results: Path, out: Path) -> None:
    """Write the figure of `scripts/benchmark.py attention --pattern=... --json=RESULTS`, and print what was fitted.

    Raises:
        InputError: the results are none of that benchmark, or the figure can't be written.
    """
    lines = _read(results)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.4), layout="constrained")
    for ax, (column, label) in zip(axes, COLUMNS.items(), strict=True):
        drawn = {name: points for name, rows in lines.items() if len(points := _points(rows, column)) > 1}
        for (name, points), color in zip(drawn.items(), COLORS * 2, strict=False):
            kind = "full" if name == FULL else name
            ax.plot(*points.T, color=color, marker="o", ms=3.5, lw=1.6, ls="--" if "torch" in name else "-", label=kind)
            told = [f"{kind:20s} {column}: grows as tokens^{_exponent(points):.2f}"]
            if name != FULL and FULL in drawn and (place := _crossing(points, drawn[FULL])) is not None:
                told.append(f"less than full attention's from {place:,.0f} tokens on")
                ax.plot(place, np.exp(np.interp(np.log(place), *np.log(points).T)), "x", color=color, ms=8)
            print(", ".join(told))
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        ax.set_xticks(_apart(sorted({row["tokens"] for rows in lines.values() for row in rows})))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        ax.minorticks_off()
        ax.grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, out)


def _read(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows by what was measured; "strided:14" and "strided:32" are one, as long as a row."""
    try:
        rows = json.loads(results.read_text())["rows"]
        lines = {}
        for row in rows:
            stride = str(math.isqrt(row["tokens"]))
            name = row["by"].removesuffix(f":{stride}")
            lines.setdefault(f"{name}, by rows" if name != row["by"] else name, []).append(row)
        return lines if all(column in row for row in rows for column in COLUMNS) else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{results}: not what benchmark.py attention --json wrote: {error}") from error


def _apart(tokens: list[int]) -> list[int]:
    """Return the lengths whose labels have room: each at least twice the one before, the last among them."""
    kept = [tokens[-1]]
    for length in reversed(tokens):
        kept += [length] if 2 * length <= kept[-1] else []
    return kept[::-1]


def _points(rows: list[dict[str, Any]], column: str) -> np.ndarray:
    return np.array([(row["tokens"], row[column]) for row in rows if row[column] is not None])


def _exponent(points: np.ndarray) -> float:
    far = points[points[:, 0] >= FIRST] if (points[:, 0] >= FIRST).sum() > 1 else points
    return np.polyfit(*np.log(far).T, 1)[0]


def _crossing(points: np.ndarray, full: np.ndarray) -> float | None:
    """Return from how many tokens on a line lies below that of full attention, between measured ones log-linearly."""
    tokens = np.geomspace(max(points[0, 0], full[0, 0]), min(points[-1, 0], full[-1, 0]), 200)
    mine, other = (np.interp(np.log(tokens), *np.log(line).T) for line in (points, full))
    above = np.flatnonzero(mine >= other)
    if not len(above):
        return tokens[0]
    return None if above[-1] == len(tokens) - 1 else tokens[above[-1] + 1]
