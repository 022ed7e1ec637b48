"""Which classes are taken for which, and the figure of that beside the reliability of the probabilities."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from vit_jax.evaluators.calibration import BINS
from vit_jax.evaluators.figure import caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

LISTED = 1000  # confusions in a table
DRAWN = 20  # confusions in a figure
LABELLED = 30  # classes up to which the figure has the whole matrix
NUMBERED = 12  # classes up to which its cells have numbers
BLUE, RED, GRAY = "#3b6ea5", "#c8553d", "#8a8a8a"


def confusion_matrix(
    label: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], number: int
) -> Int[np.ndarray, "number number"]:
    """Return how many pictures of each class (row) are taken for each (column)."""
    return np.bincount(label * number + predicted, minlength=number**2).reshape(number, number)


def worst_confusions(
    label: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return pairs of classes, right and predicted, with the number of pictures, the most frequent 1,000 first."""
    wrong = label != predicted
    pairs, pictures = np.unique(label[wrong].astype(np.int64) * len(names) + predicted[wrong], return_counts=True)
    order = np.argsort(-pictures, kind="stable")[:LISTED]
    rows = zip(*np.divmod(pairs[order], len(names)), pictures[order].tolist(), strict=True)
    return [{"label": names[i], "predicted": names[j], "pictures": number} for i, j, number in rows]


def paint_confusion(
    names: tuple[str, ...],
    confusions: list[dict[str, Any]],
    tables: dict[str, Any],
    scalars: dict[str, float],
    empty: "Figure",
) -> None:
    """Draw the confusion matrix, or the worst confusions of more than 30 classes, beside a reliability diagram.

    Args:
        tables, scalars: of the `Classification` evaluator.
    """
    left, right = empty.subfigures(1, 2, width_ratios=(1.15, 1))
    if len(names) <= LABELLED:
        _paint_matrix(left, names, np.array(tables["confusion"]))
    else:
        _paint_worst(left, confusions[:DRAWN])
    _paint_reliability(right, tables["reliability"], scalars)


def _paint_matrix(figure: "SubFigure", names: tuple[str, ...], matrix: Int[np.ndarray, "classes classes"]) -> None:
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    captions, size = [caption(name) for name in names], 9 if len(names) <= NUMBERED else 7
    # Short labels, such as digits, are easier to read upright.
    turned = 90 if max(map(len, captions)) * len(names) > 50 else 0
    axes.set_xticks(range(len(names)), captions, rotation=turned, fontsize=size)
    axes.set_yticks(range(len(names)), captions, fontsize=size)
    axes.set(xlabel="predicted", ylabel="class")
    figure.suptitle("pictures of each class, by prediction", fontsize=10)
    if len(names) <= NUMBERED:
        for i, j in np.argwhere(matrix):
            color = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=color, fontsize=8)


def _paint_worst(figure: "SubFigure", rows: list[dict[str, Any]]) -> None:
    figure.suptitle("class → prediction, the most frequent mistakes" if rows else "no mistakes", fontsize=10)
    if not rows:
        return
    axes = figure.subplots()
    labels = [f"{caption(row['label'])} → {caption(row['predicted'])}" for row in rows]
    bars = axes.barh(range(len(rows)), [row["pictures"] for row in rows], color=RED, height=0.7)
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("pictures")


def _paint_reliability(figure: "SubFigure", bins: list[dict[str, Any]], scalars: dict[str, float]) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    left, width = [row["low"] for row in bins], 1 / BINS
    shown = [row for row in bins if row["pictures"]]
    at = [row["low"] for row in shown]
    accuracy, confidence = ([row[name] for row in shown] for name in ("accuracy", "confidence"))
    bar = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.5}
    upper.bar(at, accuracy, color=BLUE, label="accuracy", **bar)
    gaps = [c - a for a, c in zip(accuracy, confidence, strict=True)]
    upper.bar(at, gaps, bottom=accuracy, color=RED, alpha=0.35, label="gap to the confidence", **bar)
    upper.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(fontsize=8, loc="upper left", edgecolor="white")
    figure.suptitle(
        f"accuracy {scalars['accuracy']:.3f} [{scalars['accuracy_low']:.3f}, {scalars['accuracy_high']:.3f}], "
        f"calibration error {scalars['ece']:.3f}",
        fontsize=10,
    )
    number = sum(row["pictures"] for row in bins)
    lower.bar(left, [row["pictures"] / number for row in bins], color=GRAY, **bar)
    lower.set(xlabel="confidence", ylabel="share")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
