"""Accuracy by kind of position embedding and by where it is added: the paper's table 8 of appendix D.4."""

from collections.abc import Container
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from plots.curves import PER_CENT, WIDTH, save
from plots.results import accuracy_of, grouped, mean_of, number, read_results, seeds_of

KINDS = {
    "none": "none",
    "learned": "learned, 1-D",
    "learned2d": "learned, 2-D",
    "relative": "relative bias",
    "sincos2d": "sine-cosine, 2-D",
}
# As the paper calls the places. A bias acts in every block, even if it is made before the first.
PLACES = {
    "stem": ("stem", "#1f5fa8", "o"),
    "blocks": ("every block", "#d9822b", "s"),
    "blocks_shared": ("every block, shared", "0.35", "^"),
}
SPACE = 0.22  # between places, of the distance of two kinds


def draw(results: Path, out: Path) -> None:
    """Write the figure of a sweep of configs/studies/positions.py, and print its means as a table.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    rows = read_results(results, "model.position", "model.position_at")
    metric = accuracy_of(rows)
    groups = grouped(rows, _which)
    kinds = [kind for kind in KINDS if any(kind == position for position, _ in groups)]
    figure, ax = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
    for place, (label, color, marker) in PLACES.items():
        own = {kind: groups[kind, place] for kind in kinds if (kind, place) in groups}
        means = {kind: mean_of(group, metric) for kind, group in own.items()}
        y = [_height(kinds, kind, place, groups) for kind in own]
        spread = np.nan_to_num([[mean.value - mean.low, mean.high - mean.value] for mean in means.values()]).T
        values = [mean.value for mean in means.values()]
        ax.errorbar(
            values, y, xerr=spread, color=color, marker=marker, ms=6, capsize=3, lw=0, elinewidth=1.5, label=label
        )
        for height, group in zip(y, own.values(), strict=True):
            ax.plot([number(row, metric) for row in group], [height] * len(group), "|", ms=9, color=color, alpha=0.6)
        for kind, mean in means.items():
            where = "" if kind == "none" else label
            interval = "" if np.isnan(mean.low) else f"  {mean.low:.4f} to {mean.high:.4f}"
            print(f"{KINDS[kind]:18s} {where:20s} {mean.value:.4f}{interval}")
    ax.set_yticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(PER_CENT)
    ax.set_xlabel(f"{metric.split('/')[0]} accuracy")
    ax.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"Accuracy by position embedding\n{seeds_of(list(groups.values()))}; ticks: single runs", fontsize=11
    )
    save(figure, out)


def _which(row: dict[str, str]) -> tuple[str, str]:
    kind, place = row["model.position"], row["model.position_at"]
    return kind, "blocks_shared" if kind == "relative" and place == "stem" else place


def _height(kinds: list[str], kind: str, place: str, groups: Container[tuple[str, str]]) -> float:
    places = [each for each in PLACES if (kind, each) in groups]
    return kinds.index(kind) + SPACE * (places.index(place) - (len(places) - 1) / 2)
