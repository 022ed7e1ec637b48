"""Lines of means with bands, and what all figures of studies look like."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, StrMethodFormatter
from plots.results import Mean

from vit_jax.weights.files import replacing

DPI = 100
WIDTH = 9.0  # inches, which are the 900 pixels of a page

# What training costs, by the columns of a sweep's results.
COSTS = {"flops": "training FLOPs", "device_seconds": "device-seconds, start and evaluations included"}
PER_CENT = FuncFormatter(lambda share, _: f"{round(100 * share, 6):g} %")


def banded(ax: Axes, x: Sequence[float], means: Sequence[Mean], *, color: str, **line) -> None:
    """Draw means as a line, and their intervals as a band."""
    ax.plot(x, [mean.value for mean in means], color=color, **line)
    low, high = (np.array([getattr(mean, side) for mean in means]) for side in ("low", "high"))
    if np.isfinite(low).any():
        ax.fill_between(x, low, high, color=color, alpha=0.15, lw=0)


def accuracy_axis(ax: Axes, label: str) -> None:
    """Label the y axis, which is an accuracy, in per cent."""
    ax.set_ylabel(label)
    ax.yaxis.set_major_formatter(PER_CENT)
    ax.grid(alpha=0.25)


def cost_axis(ax: Axes, cost: str) -> None:
    """Label the x axis, which is one of `COSTS`, on a log scale."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter() if cost == "flops" else StrMethodFormatter("{x:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(COSTS[cost])


def spread(means: Sequence[Mean]) -> np.ndarray:
    """Return how far intervals reach below and above their means, as (2, means); 0 where there is none."""
    return np.nan_to_num([[mean.value - mean.low, mean.high - mean.value] for mean in means]).T


def save(figure: Figure, out: Path) -> None:
    """Write a figure as PNG.

    Raises:
        InputError: it can't be written.
    """
    with replacing(out) as part:
        figure.savefig(part, dpi=DPI, format="png")
    print(f"figure  {out}")
