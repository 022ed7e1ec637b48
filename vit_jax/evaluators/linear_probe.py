"""Accuracy of a logistic regression on the frozen features of a whole training split."""

from typing import Any

from vit_jax.config import Evaluation
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.features import make_features
from vit_jax.evaluators.logistic import fit_logistic


class LinearProbe:
    """A logistic regression on all pictures of the split `train`, tested on a whole split.

    Features are extracted once, and L-BFGS sees all of them in every step; there are no mini-batches. The penalty is
    chosen from 45 values of C on a held-out tenth of `train`. See `fit_logistic` for the definition and the memory: for
    1.28 M features 768 wide, 3.9 GB on the device in float32, and twice that in host memory.

    Metrics: "accuracy"; "C", the value chosen; and "count". The table "sweep" has the accuracy and loss on the held-out
    tenth for each C.
    """

    metrics = ("accuracy", "C", "count")

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._features = make_features(subject, evaluation.features)
        self._train = subject.open(evaluation, evaluation.train or subject.config.data.train, classes="any")
        self._split = subject.open(evaluation, classes=self._train.label_names)
        self.pictures = len(self._train) + len(self._split)

    def __call__(self, params: Any, watch: Watch) -> Results:
        train, test = (self._features(params, split, watch) for split in (self._train, self._split))
        fitted = fit_logistic(train.vectors, train.labels, len(self._train.label_names), watch=watch)
        accuracy = fitted.head.accuracy(test.vectors, test.labels)
        scalars = {"accuracy": accuracy, "C": fitted.facts["C"], "count": len(test.labels)}
        return Results(scalars, {"sweep": fitted.sweep}, {})
