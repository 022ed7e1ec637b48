"""Accuracy at other resolutions than that of training, as the model is and fine-tuned."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator
from plots.curves import WIDTH, accuracy_axis, banded, save
from plots.results import accuracy_of, grouped, mean_of, number, read_results, seeds_of

POSITIONS = {
    "learned": ("learned, resampled", "#1f5fa8", "o"),
    "sincos2d": ("sine-cosine, computed", "#d9822b", "s"),
    "none": ("none", "0.35", "^"),
}
AS_IT_IS = "1st"  # The length of a run that learns nothing.


def draw(results: Path, out: Path, trained: int | None) -> None:
    """Write the figure of the second sweep of configs/studies/resolution.py, and print its means.

    Args:
        trained: the size that the models were trained at, in pixels, to mark it; None: not marked.

    Raises:
        InputError: the results are none of such a sweep, or the figure can't be written.
    """
    rows = read_results(results, "model.position", "image_size", "total")
    metric = accuracy_of(rows)
    sizes = sorted({number(row, "image_size") for row in rows})
    groups = grouped(rows, lambda row: (row["model.position"], row["total"] != AS_IT_IS, number(row, "image_size")))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.2), sharey=True, layout="constrained")
    for ax, tuned in zip(axes, (False, True), strict=True):
        for position, (label, color, marker) in POSITIONS.items():
            own = {size: groups[position, tuned, size] for size in sizes if (position, tuned, size) in groups}
            if not own:
                continue
            means = [mean_of(group, metric) for group in own.values()]
            banded(ax, list(own), means, color=color, marker=marker, ms=5, label=label)
            how = "fine-tuned" if tuned else "as it is"
            print(f"{label:22s} {how:11s}", *(f"{a:g}: {m.value:.4f}" for a, m in zip(own, means, strict=True)))
        if trained is not None:
            ax.axvline(trained, color="0.6", lw=1, ls="--", zorder=0)
        ax.set_xscale("log")
        ax.set_xticks(sizes)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{x:g}" if trained is None else f"{x:g}\n{x / trained:g}x")
        )
        ax.set_xlabel("pixels" if trained is None else f"pixels, and times those of training ({trained})")
        ax.set_title("fine-tuned at this size" if tuned else "evaluated as it is", fontsize=10)
        accuracy_axis(ax, "" if tuned else f"{metric.split('/')[0]} accuracy")
    axes[1].legend(frameon=False, title="positions")
    figure.suptitle(f"Accuracy at other resolutions\n{seeds_of(list(groups.values()))}", fontsize=11)
    save(figure, out)
