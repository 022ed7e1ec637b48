"""Mean average precision, F1 and loss over a whole split with any number of classes per picture."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, UInt8

from vit_jax.config import Evaluation
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.step import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 10  # maximum number of classes drawn


class MultiLabel:
    """How well the probabilities rank the pictures of each class, and how well they decide.

    "mean_average_precision" is the mean of scikit-learn's average precision over the classes in the split; "f1" is
    micro-averaged over all decisions at probability 1/2. Every picture counts once. The table "classes" has the
    average precision and the number of pictures of each class.
    """

    metrics = ("loss", "mean_average_precision", "f1", "count")

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._split, self._label_names = subject.open(evaluation), subject.label_names
        self.pictures = len(self._split)

        def rows_of(params: Any, batch: Batch) -> tuple[jax.Array, ...]:
            outputs = subject.outputs(params, batch)
            loss = subject.task.loss(outputs, subject.task.targets(batch))
            return loss, subject.task.probabilities(outputs), batch["labels"], batch["mask"]

        # Replicated on every device, so that each process has all rows.
        self._rows_of = jax.jit(rows_of, out_shardings=NamedSharding(subject.mesh, P()))

    def __call__(self, params: Any, watch: Watch) -> Results:
        from sklearn.metrics import average_precision_score, f1_score

        rows = [jax.device_get(self._rows_of(params, batch)) for batch in watch(self._split.batches())]
        loss, probabilities, labels, mask = (np.concatenate(arrays) for arrays in zip(*rows, strict=True))
        good = mask > 0
        loss, probabilities, labels = loss[good], probabilities[good], labels[good]
        shown = np.flatnonzero(labels.any(axis=0)).tolist()
        precisions = [float(average_precision_score(labels[:, i], probabilities[:, i])) for i in shown]
        scalars = {
            "loss": float(loss.mean(dtype=np.float64)),
            "mean_average_precision": float(np.mean(precisions)) if precisions else float("nan"),
            "f1": float(f1_score(labels, probabilities >= 0.5, average="micro", zero_division=1.0)),
            "count": len(labels),
        }
        table = [
            {"label": self._label_names[i], "average_precision": precision, "pictures": int(labels[:, i].sum())}
            for i, precision in zip(shown, precisions, strict=True)
        ]
        hardest = [shown[i] for i in np.argsort(precisions)[:CURVES]]
        return Results(scalars, {"classes": table}, self._draw(labels, probabilities, hardest))

    def _draw(
        self, labels: UInt8[np.ndarray, "n classes"], probabilities: Float[np.ndarray, "n classes"], classes: list[int]
    ) -> dict[str, "Figure"]:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return {}
        from sklearn.metrics import precision_recall_curve

        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        for i in classes:
            precision, recall, _ = precision_recall_curve(labels[:, i], probabilities[:, i])
            axes.step(recall, precision, where="post", label=self._label_names[i])
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_title("precision and recall" + (f", the {CURVES} hardest classes" if len(classes) == CURVES else ""))
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        return {"precision_recall": figure}
