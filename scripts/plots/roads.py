"""Accuracy of roads other than full attention, over training FLOPs and over seconds."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from plots.curves import COSTS, WIDTH, accuracy_axis, cost_axis, save, spread
from plots.results import MARKERS, accuracy_of, argument, grouped, mean_of, number, read_results, seeds_of

COLORS = ("#1f5fa8", "#4fa3d9", "#3f9b6c", "#9ccb3b", "#b0489c", "#d9822b")


def draw(results: Path, out: Path) -> None:
    """Write the figure of a sweep of configs/studies/roads.py, and print its means.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    rows = read_results(results, "total", *COSTS)
    metric = accuracy_of(rows)
    roads = grouped(rows, lambda row: argument(row, "road").replace("_", ":"))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.6), sharey=True, layout="constrained")
    groups = []
    for i, (road, own) in enumerate(roads.items()):
        lengths = grouped(own, lambda row: row["total"])
        groups += lengths.values()
        means = [mean_of(group, metric) for group in lengths.values()]
        told = []
        for ax, cost in zip(axes, COSTS, strict=True):
            costs = [float(np.mean([number(row, cost) for row in group])) for group in lengths.values()]
            # Intervals of roads of equal cost stand beside one another.
            places = np.array(costs) * (1 + 0.02 * (i - len(roads) / 2)) if cost == "flops" else costs
            style = dict(color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)], ms=5, lw=1.2, capsize=2)
            ax.errorbar(places, [mean.value for mean in means], spread(means), label=road, **style)
            told.append(costs)
        for flops, seconds, mean in zip(*told, means, strict=True):
            print(f"{road:11s} {flops:.3g} FLOPs {seconds:6.0f} s  {mean.value:.4f}  {mean.low:.4f} to {mean.high:.4f}")
    for ax, cost in zip(axes, COSTS, strict=True):
        cost_axis(ax, cost)
        accuracy_axis(ax, f"{metric.split('/')[0]} accuracy" if ax is axes[0] else "")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"Accuracy by the cost of training\n{seeds_of(groups)}", fontsize=11)
    save(figure, out)
