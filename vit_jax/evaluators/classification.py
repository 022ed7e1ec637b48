"""Loss, accuracy, confusions and calibration over a whole split with one class per picture."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_jax.config import Evaluation
from vit_jax.evaluators.calibration import calibration_error, reliability
from vit_jax.evaluators.confusion import confusion_matrix, paint_confusion, worst_confusions
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.figure import figure
from vit_jax.evaluators.interval import bootstrap_interval
from vit_jax.evaluators.rows import make_collect
from vit_jax.losses import make_targets
from vit_jax.step import Batch

TOP = 5
MATRIX = 100  # classes up to which the whole confusion matrix is a table


class Classification:
    """How often the class with the largest output is right, and how far its probability can be trusted.

    Every picture counts once. The scalars:

    - "loss": the training loss without label smoothing; "accuracy": fraction whose top class is right.
    - "accuracy_low", "accuracy_high": its 95 % interval; see `bootstrap_interval`.
    - "top5": fraction whose class is among the five largest outputs; only with more than five classes. Of equal
      outputs, the class with the lower number comes first.
    - "ece": expected calibration error in 15 bins; see `calibration_error`. The confidence is the task's probability
      of the top class, which with the sigmoid loss is its own and not a share of 1.

    The tables: "classes", accuracy by class; "reliability", the bins; and up to 100 classes "confusion", in row i and
    column j the pictures of class i taken for j, otherwise "confusions", the most frequent of them.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._split, self._label_names = subject.open(evaluation), subject.label_names
        self.pictures = len(self._split)
        top = ("top5",) if len(self._label_names) > TOP else ()
        self.metrics = ("loss", "accuracy", "accuracy_low", "accuracy_high", *top, "ece", "count")

        def rows_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            outputs, label = subject.outputs(params, batch), batch["label"]
            return {
                "label": label,
                "predicted": outputs.argmax(-1),
                "top5": place_of(outputs, label) < TOP,
                "loss": subject.task.loss(outputs, make_targets(label, outputs.shape[-1], smoothing=0.0)),
                "confidence": subject.task.probabilities(outputs).max(-1),
            }

        self._collect = make_collect(rows_of, subject.mesh)

    def __call__(self, params: Any, watch: Watch) -> Results:
        rows = self._collect(params, watch(self._split.batches()))
        label, predicted, number = rows["label"], rows["predicted"], len(rows["label"])
        right = label == predicted
        low, high = bootstrap_interval(int(right.sum()), number)
        bins = reliability(rows["confidence"], right)
        values = {
            "loss": float(rows["loss"].sum(dtype=np.float64) / number),
            "accuracy": float(right.sum() / number),
            "accuracy_low": low,
            "accuracy_high": high,
            "top5": float(rows["top5"].sum() / number),
            "ece": calibration_error(bins),
            "count": number,
        }
        scalars = {name: values[name] for name in self.metrics}
        names = self._label_names
        confusions = worst_confusions(label, predicted, names)
        tables = {"classes": _by_class(label, right, names), "reliability": bins}
        if len(names) <= MATRIX:
            tables["confusion"] = confusion_matrix(label, predicted, len(names)).tolist()
        else:
            tables["confusions"] = confusions
        paint = functools.partial(paint_confusion, names, confusions, tables, scalars)
        return Results(scalars, tables, figure("confusion", (12.0, 5.5), paint))


def place_of(outputs: Float[Array, "batch classes"], label: Int[Array, " batch"]) -> Int[Array, " batch"]:
    """Return how many classes come before the label, by output and then by number; all of them if it is NaN."""
    own = jnp.take_along_axis(outputs, label[:, None], axis=-1)
    earlier = (outputs == own) & (jnp.arange(outputs.shape[-1]) < label[:, None])
    return (~(outputs <= own) | earlier).sum(-1)


def _by_class(
    label: Int[np.ndarray, " n"], right: Bool[np.ndarray, " n"], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    pictures = np.bincount(label, minlength=len(names)).tolist()
    hits = np.bincount(label[right], minlength=len(names)).tolist()
    return [
        {"label": name, "pictures": count, "accuracy": hit / count if count else None}
        for name, count, hit in zip(names, pictures, hits, strict=True)
    ]
