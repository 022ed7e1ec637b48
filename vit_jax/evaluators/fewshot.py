"""Accuracy of a linear classifier fitted to a few pictures of each class, on frozen features."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from vit_jax.config import Evaluation
from vit_jax.data import Record, Source
from vit_jax.data.pipeline import LABEL
from vit_jax.errors import InputError
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.features import make_features
from vit_jax.evaluators.least_squares import fit_least_squares
from vit_jax.evaluators.logistic import fit_logistic

NUMBER = {"number": jax.ShapeDtypeStruct((), np.int32)}


class Fewshot:
    """A linear classifier on k pictures of each class of the split `train`, tested on a whole split.

    The k pictures are the first k of a permutation of each class's, drawn class by class from each of `seeds`; so those
    of a smaller k are among those of a larger one. Heads are `fit_least_squares`, by which published few-shot
    accuracies are measured, and `fit_logistic`; a held-out part, where one is needed, is drawn from the same seed.

    Metrics, for every k in `shots`: "accuracy_{k}shot" and "std_{k}shot", the mean and the standard deviation (of all
    seeds, divided by their number) of the accuracy; and "count". The table "fits" has a row for each k and seed.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation):
        for key in ("shots", "seeds", "l2"):
            if not getattr(evaluation, key):
                raise InputError(f"config.evaluators: {key}=(): name at least one")
        self._shots, self._seeds = tuple(sorted(set(evaluation.shots))), evaluation.seeds
        self._head, self._l2 = evaluation.head, evaluation.l2
        self._features = make_features(subject, evaluation.features)
        train = evaluation.train or subject.config.data.train
        source = subject.source(evaluation, train, "any")
        self._num_classes = len(source.label_names)
        _check(source, train, self._shots)
        drawn = {seed: draw(source.labels, self._num_classes, self._shots[-1], seed) for seed in self._seeds}
        # Only pictures that some seed drew go through the model.
        needed = np.unique(np.concatenate([index.ravel() for index in drawn.values()]))
        self._drawn = {seed: np.searchsorted(needed, index) for seed, index in drawn.items()}
        self._needed = subject.prepare(Numbered(source, needed), LABEL | NUMBER)
        self._split = subject.open(evaluation, classes=source.label_names)
        self.pictures = len(self._needed) + len(self._split)
        self.metrics = (*(f"{name}_{k}shot" for k in self._shots for name in ("accuracy", "std")), "count")

    def __call__(self, params: Any, watch: Watch) -> Results:
        shots, test = (self._features(params, split, watch) for split in (self._needed, self._split))
        # A picture that can't be read has no row.
        row_of = np.full(len(self._needed), -1)
        row_of[shots.others["number"]] = np.arange(len(shots.labels))
        fit = {
            "least_squares": functools.partial(fit_least_squares, l2=self._l2),
            "logistic": functools.partial(fit_logistic, watch=watch),
        }[self._head]
        table = []
        for k in self._shots:
            for seed in watch(self._seeds):
                rows = row_of[self._drawn[seed][:, :k].ravel()]
                rows = rows[rows >= 0]
                fitted = fit(shots.vectors[rows], shots.labels[rows], self._num_classes, seed=seed)
                accuracy = fitted.head.accuracy(test.vectors, test.labels)
                table.append({"shots": k, "seed": seed, "accuracy": accuracy} | fitted.facts)
        scalars = {}
        for k in self._shots:
            found = [row["accuracy"] for row in table if row["shots"] == k]
            scalars |= {f"accuracy_{k}shot": float(np.mean(found)), f"std_{k}shot": float(np.std(found))}
        return Results(scalars | {"count": len(test.labels)}, {"fits": table}, {})


class Numbered:
    """Some records of a source, with their place among them as the column "number"."""

    def __init__(self, source: Source, index: Int[np.ndarray, " n"]):
        self.source, self.index = source, index
        self.label_names, self.columns = source.label_names, (*source.columns, "number")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Record:
        record = self.source[int(self.index[index])]
        return record._replace(columns={**record.columns, "number": index})


def draw(labels: Int[np.ndarray, " n"], num_classes: int, number: int, seed: int) -> Int[np.ndarray, "classes number"]:
    """Return the indices of the first `number` pictures of a permutation of each class, which has at least as many."""
    rng = np.random.default_rng(seed)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])
    return np.stack([rng.permutation(each)[:number] for each in members])


def _check(source: Source, split: str, shots: tuple[int, ...]) -> None:
    labels, names = source.labels, source.label_names
    if labels.ndim > 1:
        raise InputError(
            f"config.evaluators: fewshot needs one label for each picture, but split {split!r} has several"
        )
    counts = np.bincount(labels, minlength=len(names))
    few = np.flatnonzero(counts < shots[-1])
    if len(few):
        fit = tuple(k for k in shots if k <= counts.min())
        advice = f"set shots={fit}" if fit else "take another split or leave such classes out"
        raise InputError(
            f"config.evaluators: shots={shots}: split {split!r} has fewer than {shots[-1]:,} pictures of {len(few):,} "
            f"of {len(names):,} classes, such as {counts[few[0]]:,} of {names[few[0]]!r}; {advice}"
        )
