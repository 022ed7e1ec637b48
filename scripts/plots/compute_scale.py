"""Accuracy against what training costs, with Pareto fronts and power laws: the paper's figure 5."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from plots.curves import COSTS, WIDTH, accuracy_axis, cost_axis, save, spread
from plots.power_law import fit, front
from plots.results import (
    COLORS,
    FAMILIES,
    MARKERS,
    Mean,
    accuracy_of,
    family,
    grouped,
    mean_of,
    model_name,
    number,
    read_results,
    seeds_of,
    shown,
)


def draw(results: Path, out: Path) -> None:
    """Write the figure of a sweep of configs/studies/compute_scale.py, and print its laws.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    rows = read_results(results, "total", *COSTS)
    metric = accuracy_of(rows)
    groups = grouped(rows, lambda row: (model_name(row), row["total"]))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.6), sharey=True, layout="constrained")
    for ax, cost in zip(axes, COSTS, strict=True):
        _draw_panel(ax, groups, metric, cost)
        cost_axis(ax, cost)
        accuracy_axis(ax, f"{metric.split('/')[0]} accuracy" if ax is axes[0] else "")
    axes[0].legend(frameon=False, fontsize=8)
    title = "Accuracy by the cost of training; gray: Pareto front; lines: power law of the error"
    figure.suptitle(f"{title}\n{seeds_of(list(groups.values()))}; bands of laws: bootstrap over seeds", fontsize=11)
    save(figure, out)


def _draw_panel(ax: Axes, groups: dict[tuple[str, str], list[dict[str, str]]], metric: str, cost: str) -> None:
    costs = [float(np.mean([number(row, cost) for row in group])) for group in groups.values()]
    means = [mean_of(group, metric) for group in groups.values()]
    names = [model for model, _ in groups]
    best = front(costs, [1 - mean.value for mean in means])
    ax.plot(
        [costs[i] for i in best], [means[i].value for i in best], color="0.8", lw=5, drawstyle="steps-post", zorder=0
    )
    for kind in FAMILIES:
        own = [i for i, name in enumerate(names) if family(name) == kind]
        if not own:
            continue
        for order, model in enumerate(dict.fromkeys(names[i] for i in own)):
            here = [i for i in own if names[i] == model]
            _draw_points(
                ax, [costs[i] for i in here], [means[i] for i in here], COLORS[kind], MARKERS[order], shown(model)
            )
        errors = [[1 - number(row, metric) for row in list(groups.values())[i]] for i in own]
        law = fit([costs[i] for i in own], errors)
        if law is None:
            print(f"{cost:14s} {kind:7s} no law: fewer than 3 points on its front")
            continue
        low, high = law.interval
        ax.plot(law.costs, 1 - law.errors, color=COLORS[kind], lw=1.2)
        ax.fill_between(law.costs, 1 - law.high, 1 - law.low, color=COLORS[kind], alpha=0.15, lw=0)
        print(f"{cost:14s} {kind:7s} error ~ cost ** -{law.exponent:.3f}  (95 %: {low:.3f} to {high:.3f})")


def _draw_points(ax: Axes, costs: Sequence[float], means: Sequence[Mean], color: str, marker: str, label: str) -> None:
    values = [mean.value for mean in means]
    style = dict(color=color, marker=marker, ms=5, lw=0, elinewidth=1, capsize=2)
    ax.errorbar(costs, values, spread(means), label=label, **style)
