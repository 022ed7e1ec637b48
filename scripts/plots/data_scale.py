"""Accuracy against the size of the training set, fully trained and by few shots: the paper's figures 3 and 4."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator
from plots.curves import WIDTH, accuracy_axis, banded, save
from plots.results import (
    COLORS,
    MARKERS,
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

SHOTS = 5  # as in the paper's figure 4


def draw(results: Path, out: Path, pictures: int | None) -> None:
    """Write the figure of a sweep of configs/studies/data_scale.py, and print its means.

    Args:
        pictures: of the whole training set; None: the axis is in fractions of it.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    few = f"few/accuracy_{SHOTS}shot"
    rows = read_results(results, "data.fraction", few)
    full = accuracy_of(rows)
    panels = {full: f"{full.split('/')[0]} accuracy, fully trained", few: f"linear {SHOTS}-shot accuracy"}
    models = grouped(rows, model_name)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.2), layout="constrained")
    groups = []
    for i, (model, own) in enumerate(models.items()):
        fractions = dict(sorted(grouped(own, lambda row: number(row, "data.fraction")).items()))
        groups += fractions.values()
        x = [_amount(fraction, pictures) for fraction in fractions]
        of_family = [name for name in models if family(name) == family(model)]
        style = dict(color=COLORS[family(model)], marker=MARKERS[i % len(MARKERS)], ms=5, label=shown(model))
        style["ls"] = ("-", "--", ":")[of_family.index(model) % 3]
        for ax, metric in zip(axes, panels, strict=True):
            means = [mean_of(group, metric) for group in fractions.values()]
            banded(ax, x, means, **style)
            print(
                f"{shown(model):12s} {metric:22s}",
                *(f"{at:,}: {mean.value:.4f}" for at, mean in zip(x, means, strict=True)),
            )
    for ax, title in zip(axes, panels.values(), strict=True):
        ax.set_xscale("log")
        ax.set_xticks(sorted({_amount(number(row, "data.fraction"), pictures) for row in rows}))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if pictures else f"{x:g}"))
        ax.set_xlabel("training pictures" if pictures else "fraction of the training set")
        accuracy_axis(ax, title)
    axes[0].legend(frameon=False)
    figure.suptitle(
        f"Accuracy by the size of the training set, as many updates on each\n{seeds_of(groups)}", fontsize=11
    )
    save(figure, out)


def _amount(fraction: float, pictures: int | None) -> float:
    return fraction if pictures is None else round(fraction * pictures)
