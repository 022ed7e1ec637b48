"""A run at a glance: its curves, and what it makes of its test pictures."""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from vit_jax import data
from vit_jax.errors import InputError
from vit_jax.runs.checkpoint import load_model
from vit_jax.runs.records import read_records

GREY, RIGHT, WRONG = "0.45", "#2a7f3f", "#c62828"


def series(records: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a metric was written, and its values."""
    found = [(record["step"], record[name]) for record in records if name in record]
    return [step for step, _ in found], [value for _, value in found]


def draw_curves(axes: np.ndarray, records: list[dict]) -> None:
    """Draw training and test loss and accuracy over steps."""
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(*series(records, f"train/{metric}"), color=GREY, lw=1, label="train (augmented)")
        ax.plot(*series(records, f"val/{metric}"), color="#1f5fa8", marker="o", ms=4, label="test")
        ax.set_xlabel("step")
        ax.set_title(metric)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)
    axes[1].set_ylim(0, 1.02)


def draw_predictions(axes: np.ndarray, source: data.Source, predicted: np.ndarray) -> None:
    """Draw as many pictures as fit, with their predicted classes, wrong ones first."""
    names, labels = source.label_names, source.labels
    order = np.argsort(predicted == labels, kind="stable")
    for ax, i in zip(axes.flat, order, strict=False):
        right = predicted[i] == labels[i]
        ax.imshow(source.images[i].squeeze(), cmap="gray_r", interpolation="nearest")
        text = names[predicted[i]] if right else f"{names[predicted[i]]}, not {names[labels[i]]}"
        ax.set_title(text, color=RIGHT if right else WRONG, fontsize=9, pad=3, weight="normal" if right else "bold")
        for spine in ax.spines.values():
            spine.set(color=RIGHT if right else WRONG, linewidth=0.8 if right else 2.5)
        ax.set(xticks=[], yticks=[])


def draw(run: Path) -> None:
    """Write RUN/quickstart.png, curves above a grid of test pictures, and print a summary.

    Raises:
        InputError: it is not a run directory.
    """
    if not run.is_dir():
        raise InputError(f"{str(run)!r} is not a run directory")
    model, (config, _) = load_model(run)
    source = data.prepare(data.open_sources(config)["val"], config)
    predicted = np.asarray(jax.jit(lambda images: model(images).argmax(-1))(source.images))
    right = int((predicted == source.labels).sum())
    records = read_records(run)

    figure = plt.figure(figsize=(11, 9.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.75))
    draw_curves(top.subplots(1, 2), records)
    draw_predictions(bottom.subplots(5, 12), source, predicted)
    wrong = len(source) - right
    top.suptitle(f"{config.model.name} on {config.data.name}: {right}/{len(source)} test pictures right", weight="bold")
    bottom.suptitle(f"predictions, the {wrong} wrong ones first" if wrong else "predictions, none wrong")
    figure.savefig(run / "quickstart.png", dpi=110)

    steps, speeds = series(records, "train/images_per_second")
    seconds = np.diff([0, *steps]) * config.batch / np.array(speeds)
    print(f"""
test accuracy      {right / len(source):.4f}  ({right} of {len(source)} pictures)
training time      {sum(seconds):.0f} s  ({np.median(speeds):,.0f} pictures per second)
run directory      {run}
figure             {run / "quickstart.png"}

what to try next
  .venv/bin/python -m vit_jax.evaluate --workdir={run}
  .venv/bin/python -m vit_jax.train --config=configs/digits.py --workdir=runs/deeper --config.model.depth=8
  your own pictures: see docs/own_folder.md""")
