"""Accuracy on few labels, of models that were pre-trained without any and of those that were not."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from plots.curves import WIDTH, accuracy_axis, save, spread
from plots.results import accuracy_of, grouped, mean_of, number, read_results, seeds_of

STARTS = {
    "from scratch": "0.45",
    "masked_patches": "#3f9b6c",
    "mae": "#1f5fa8",
    "next_patch": "#d9822b",
}


def draw(results: Path, out: Path) -> None:
    """Write the figure of a sweep of configs/studies/labels.py, and print its means.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    rows = read_results(results, "data.fraction")
    metric = accuracy_of(rows)
    fractions = sorted({number(row, "data.fraction") for row in rows})
    groups = grouped(rows, lambda row: (_start(row), number(row, "data.fraction")))
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for i, (start, color) in enumerate(STARTS.items()):
        own = {fraction: groups[start, fraction] for fraction in fractions if (start, fraction) in groups}
        if not own:
            continue
        means = [mean_of(group, metric) for group in own.values()]
        places = [fractions.index(fraction) + 0.12 * (i - 1.5) for fraction in own]
        style = dict(color=color, marker="o", ms=7, lw=0, elinewidth=1.5, capsize=3)
        ax.errorbar(places, [mean.value for mean in means], spread(means), label=start, **style)
        for place, group in zip(places, own.values(), strict=True):
            ax.plot([place] * len(group), [number(row, metric) for row in group], "_", color=color, ms=6, alpha=0.7)
        told = (f"{a:g}: {m.value:.4f} ({m.low:.4f} to {m.high:.4f})" for a, m in zip(own, means, strict=True))
        print(f"{start:15s}", *told)
    ax.set_xticks(range(len(fractions)), [f"{fraction:.0%} of the labels" for fraction in fractions])
    accuracy_axis(ax, f"{metric.split('/')[0]} accuracy")
    ax.legend(frameon=False, title="pre-training")
    figure.suptitle(f"Fine-tuned on few labels\n{seeds_of(list(groups.values()))}", fontsize=11)
    save(figure, out)


def _start(row: dict[str, str]) -> str:
    found = re.match(r"task=(\w+)", Path(row.get("init") or "").name)
    return found[1] if found else "from scratch"
