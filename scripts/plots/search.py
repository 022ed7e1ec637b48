"""The best run of a search after each number of trials: one kind of search against another."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from plots.curves import WIDTH, accuracy_axis, save
from plots.results import grouped, number, read_results

from vit_jax.errors import InputError

METRIC = "val/accuracy"
COLORS = {"tpe": "#1f5fa8", "random": "0.45"}
TOLD = (1, 5, 10, 15, 20)  # trials after which the mean is printed, beside the last


def draw(results: Path, out: Path) -> None:
    """Write the figure of searches in folders named KIND-SEED, such as "tpe-0", and print the means.

    Raises:
        InputError: the results are none of such searches, or the figure can't be written.
    """
    rows = read_results(results, METRIC, "ended", "directory")
    searches = grouped(rows, lambda row: Path(row["directory"]).parent.name)
    kinds = grouped([{"search": name} for name in searches], lambda row: row["search"].rpartition("-")[0])
    figure, ax = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for kind, named in kinds.items():
        if kind not in COLORS:
            raise InputError(f"{str(results)!r}: no folders named {' or '.join(f'{name}-SEED' for name in COLORS)}")
        best = [_best(searches[row["search"]]) for row in named]
        trials = min(map(len, best))
        for one in best:
            ax.step(range(1, len(one) + 1), one, where="post", color=COLORS[kind], lw=0.8, alpha=0.5)
        mean = np.mean([one[:trials] for one in best], axis=0)
        ax.step(
            range(1, trials + 1), mean, where="post", color=COLORS[kind], lw=2.5, label=f"{kind}, {len(best)} seeds"
        )
        print(f"{kind:7s}", *(f"{n}: {mean[n - 1]:.4f}" for n in sorted({*TOLD, trials}) if n <= trials))
    ax.set_xlabel("trials that ended")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy_axis(ax, f"best {METRIC.replace('/', ' ')} so far")
    ax.legend(frameon=False, loc="lower right")
    figure.suptitle("The best run of a search\nthick lines: mean over seeds; thin lines: each seed", fontsize=11)
    save(figure, out)


def _best(rows: list[dict[str, str]]) -> np.ndarray:
    in_order = sorted(rows, key=lambda row: row["ended"])
    return np.maximum.accumulate([number(row, METRIC) for row in in_order])
