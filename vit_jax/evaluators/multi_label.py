"""Mean average precision, F1 and loss over a whole split with any number of classes per picture."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.config import Evaluation
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.figure import caption, figure
from vit_jax.evaluators.rows import make_collect
from vit_jax.step import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 10  # maximum number of classes drawn


class MultiLabel:
    """How well the probabilities rank the pictures of each class, and how well they decide.

    "mean_average_precision" is the mean of scikit-learn's average precision over the classes in the split; "f1" is its
    micro-averaged F1 of all decisions, where a class counts as present from probability `threshold`. Every picture
    counts once. The table "classes" has the average precision, the F1 and the number of pictures of each class in the
    split.
    """

    metrics = ("loss", "mean_average_precision", "f1", "count")

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._split, self._label_names = subject.open(evaluation), subject.label_names
        self._threshold = evaluation.threshold
        self.pictures = len(self._split)

        def rows_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            outputs = subject.outputs(params, batch)
            loss = subject.task.loss(outputs, subject.task.targets(batch))
            return {"loss": loss, "probabilities": subject.task.probabilities(outputs), "labels": batch["labels"]}

        self._collect = make_collect(rows_of, subject.mesh)

    def __call__(self, params: Any, watch: Watch) -> Results:
        from sklearn.metrics import average_precision_score, f1_score

        rows = self._collect(params, watch(self._split.batches()))
        labels, probabilities = rows["labels"], rows["probabilities"]
        shown = np.flatnonzero(labels.any(axis=0)).tolist()
        precisions = [float(average_precision_score(labels[:, i], probabilities[:, i])) for i in shown]
        decided = (probabilities >= self._threshold).astype(np.uint8)
        by_class = [float(f1_score(labels[:, i], decided[:, i])) for i in shown]
        scalars = {
            "loss": float(rows["loss"].mean(dtype=np.float64)),
            "mean_average_precision": float(np.mean(precisions)) if precisions else float("nan"),
            "f1": float(f1_score(labels.ravel(), decided.ravel(), zero_division=1.0)),
            "count": len(labels),
        }
        table = [
            {
                "label": self._label_names[i],
                "average_precision": ap,
                "f1": float(f1),
                "pictures": int(labels[:, i].sum()),
            }
            for i, ap, f1 in zip(shown, precisions, by_class, strict=True)
        ]
        hardest = [shown[i] for i in np.argsort(precisions)[:CURVES]]
        paint = functools.partial(self._paint, labels, probabilities, hardest)
        return Results(scalars, {"classes": table}, figure("precision_recall", (6.0, 5.0), paint))

    def _paint(
        self,
        labels: UInt8[np.ndarray, "n classes"],
        probabilities: Float[np.ndarray, "n classes"],
        classes: list[int],
        empty: "Figure",
    ) -> None:
        from sklearn.metrics import precision_recall_curve

        axes = empty.subplots()
        for i in classes:
            precision, recall, _ = precision_recall_curve(labels[:, i], probabilities[:, i])
            axes.step(recall, precision, where="post", label=caption(self._label_names[i]))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_title("precision and recall" + (f", the {CURVES} hardest classes" if len(classes) == CURVES else ""))
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
